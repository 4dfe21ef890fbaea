"""Times that are not in milliseconds."""

FACTORS = {"seconds": (1000, 1), "microseconds": (1, 1000), "nanoseconds": (1, 1_000_000)}  # to ms


def unit_of(time: int, low: int, high: int) -> str | None:
    """The unit in which a time lies in [low, high), given in ms; None if it does in none but ms."""
    for unit, (times, over) in FACTORS.items():
        if low <= time * times // over < high:
            return unit
    return None
