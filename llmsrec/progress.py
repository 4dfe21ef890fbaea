"""Progress as plain lines: they read the same in a terminal, a log file and the Dagster UI."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Counts units of work; prints share, rate and time left at most every `interval` seconds.

    `done` units were there before: they count for the share, not for the rate."""

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        interval: float = 2.0,
        done: int = 0,
    ) -> None:
        self.label, self.total, self.unit, self.interval = label, total, unit, interval
        self.done = self.before = done
        self.start = self.last = time.monotonic()
        self.speaks = os.environ.get("RANK", "0") == "0"  # of processes that work together, one

    def restart(self) -> None:
        """What was done is lost."""
        self.done = self.before = 0

    def advance(self, amount: int = 1, note: str | Callable[[], str] = "") -> None:
        """A `note` that takes time to write is written when a line is printed."""
        self.done += amount
        now = time.monotonic()
        if now - self.last >= self.interval and self.speaks:
            self.last = now
            text = note if isinstance(note, str) else note()
            print(self.line(now - self.start, text), file=sys.stderr, flush=True)

    def line(self, seconds: float, note: str = "") -> str:
        rate = (self.done - self.before) / max(seconds, 1e-9)
        if self.total:
            left = max(0, self.total - self.done) / max(rate, 1e-9)
            state = (
                f"{100 * self.done / self.total:3.0f}%  {self.done:,}/{self.total:,} {self.unit}"
            )
            tail = f"{_clock(left)} left"
        else:
            state, tail = f"{self.done:,} {self.unit}", f"{_clock(seconds)} so far"
        return "  ".join(
            filter(None, [self.label, state, f"{rate:,.0f} {self.unit}/s", tail, note])
        )


def track(items: Iterable[T], label: str, total: int, unit: str) -> Iterator[T]:
    """Iterate with progress."""
    progress = Progress(label, total, unit)
    for item in items:
        yield item
        progress.advance()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
