"""What every benchmark shares: time in a process of its own, peak memory, and the lines at the end."""

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`ratio`: how many times better than the reference, both run side by side."""

    name: str
    ratio: float
    goal: float

    def line(self) -> str:
        met = self.ratio >= self.goal
        return json.dumps(
            {"name": self.name, "ratio": round(self.ratio, 2), "goal": self.goal, "met": met}
        )


def print_figures(figures: list[Figure]) -> None:
    print()
    for figure in figures:
        print(figure.line(), flush=True)


@dataclass(frozen=True)
class Measured:
    result: Any
    seconds: float
    peak_bytes: int
    cpu_seconds: float = 0.0


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Measured:
    """Run `work` in a fresh process: nothing is warm, and the peak of its memory is its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(send, work, arguments))
    child.start()
    send.close()
    try:
        measured: Measured = receive.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__} ended without an answer; see above") from None
    child.join()
    return measured


def _child(send: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - start
    send.send(Measured(result, seconds, peak_bytes(), cpu_seconds()))


def peak_bytes() -> int:
    """Of this process and those it started (Spark's JVM): `getrusage` also counts the parent's memory at the start."""
    peaks = [(place / "status").read_text().partition("VmHWM:")[2].split() for place in _family()]
    return sum(int(found[0]) * 1024 for found in peaks if found)


def cpu_seconds() -> float:
    """Of the same processes, on all cores: what a busy machine does not stretch."""
    ticks = [(place / "stat").read_text().rpartition(")")[2].split()[11:13] for place in _family()]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def _family() -> list[Path]:
    tasks = Path("/proc/self/task").glob("*/children")
    started = [number for task in tasks for number in task.read_text().split()]
    return [Path("/proc") / number for number in ("self", *started)]


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """After one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
