"""Generated files for the line reader: plain files, and gzip files complete, truncated and damaged."""

import gzip
from random import Random

from reliability.fuzzing.inputs import Made
from reliability.fuzzing.mutations import mutate, splice


def plain_file(draws: Random, anomaly_rate: float) -> Made:
    """Some lines of any bytes, with every kind of line end."""
    lines = [
        draws.choice([b"", b"a", b"line " * draws.randrange(30), draws.randbytes(9), b"\xff\xfe"])
        for _ in range(draws.choice([0, 1, 2, 5, 20, 60]))
    ]
    end = draws.choice([b"\n", b"\n", b"\r\n", b"\r", b"\n\n"])
    text = end.join(lines) + draws.choice([b"", end, b"\n"])
    if draws.random() < 0.003:
        return text * 1000, ["long"]
    return mutate(text, draws) if draws.random() < 0.3 else (text, [f"ends {end!r}"])


def gzip_file(draws: Random, anomaly_rate: float) -> Made:
    """Complete, in several members, truncated, torn, with flipped bits or with trailing bytes."""
    members = [
        gzip.compress(plain_file(draws, anomaly_rate)[0], draws.choice([0, 1, 6]), mtime=0)
        for _ in range(draws.choice([1, 1, 1, 2, 3]))
    ]
    whole = b"".join(members)
    kind = draws.choice(
        ["whole", "cut", "flipped", "tail", "zeros between", "torn", "mutated", "header"]
    )
    if kind == "cut":
        whole = whole[: draws.randrange(len(whole))]
    elif kind == "flipped":
        place = draws.randrange(len(whole))
        whole = whole[:place] + bytes([whole[place] ^ 1 << draws.randrange(8)]) + whole[place + 1 :]
    elif kind == "tail":
        whole += draws.choice([b"\0" * 9, b"tail", b"\x1f", b"\x1f\x8b", members[0][:12], b"\n"])
    elif kind == "zeros between":
        whole = (b"\0" * draws.randrange(1, 600)).join(members)
    elif kind == "torn":
        whole = splice(whole, members[0], draws)
    elif kind == "mutated":
        whole, kinds = mutate(whole, draws)
        return whole, kinds
    elif kind == "header":
        place = draws.randrange(min(10, len(whole)))
        whole = whole[:place] + draws.randbytes(1) + whole[place + 1 :]
    return whole, [f"{kind}, members: {len(members)}"]
