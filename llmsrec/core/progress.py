"""Progress as plain lines: they read the same in a terminal, a log file and the Dagster UI."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Counts units of work; prints share, rate and remaining time at most every `interval` seconds.

    `initial` units were done by an earlier run: they count for the share, not for the rate. Of the processes of a
    distributed run only rank 0 prints."""

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        interval: float = 2.0,
        initial: int = 0,
    ) -> None:
        self.label, self.total, self.unit, self.interval = label, total, unit, interval
        self.done = self.initial = initial
        self.start = self.last = time.monotonic()
        self.prints = os.environ.get("RANK", "0") == "0"

    def restart(self) -> None:
        """Count from 0 again, because the work done so far is lost."""
        self.done = self.initial = 0

    def advance(self, amount: int = 1, note: str | Callable[[], str] = "") -> None:
        """Count `amount` more units; `note` is appended to the line, and is called, if it is a function, only then."""
        self.done += amount
        now = time.monotonic()
        if now - self.last >= self.interval and self.prints:
            self.last = now
            text = note if isinstance(note, str) else note()
            print(self.line(now - self.start, text), file=sys.stderr, flush=True)

    def line(self, seconds: float, note: str = "") -> str:
        """The line to print after `seconds` of work."""
        rate = (self.done - self.initial) / max(seconds, 1e-9)
        if self.total:
            remaining = max(0, self.total - self.done) / max(rate, 1e-9)
            share = f"{100 * self.done / self.total:3.0f}%"
            state = f"{share}  {self.done:,}/{self.total:,} {self.unit}"
            clock = f"{_clock(remaining)} left"
        else:
            state, clock = f"{self.done:,} {self.unit}", f"{_clock(seconds)} so far"
        parts = [self.label, state, f"{rate:,.0f} {self.unit}/s", clock, note]
        return "  ".join(filter(None, parts))


def track(items: Iterable[T], label: str, total: int, unit: str) -> Iterator[T]:
    """Iterate over `items` and print progress."""
    progress = Progress(label, total, unit)
    for item in items:
        yield item
        progress.advance()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
