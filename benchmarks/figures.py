"""Shared by all benchmarks: the command line, measurement in a separate process, peak memory, and the final lines."""

import argparse
import inspect
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """`ratio` says how many times better than the reference, which is measured in the same run."""

    name: str
    ratio: float
    goal: float

    def line(self) -> str:
        """One JSON object."""
        met = self.ratio >= self.goal
        return json.dumps(
            {"name": self.name, "ratio": round(self.ratio, 2), "goal": self.goal, "met": met}
        )


def run_benchmark(figures: Callable[..., Iterable[Figure]]) -> None:
    """Call a benchmark and print its figures; its parameters are the options, several values where one is a tuple."""
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(inspect.getmodule(figures)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, parameter in inspect.signature(figures).parameters.items():
        default, many = parameter.default, isinstance(parameter.default, tuple)
        kind, nargs = type(default[0] if many else default), "+" if many else None
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=kind, nargs=nargs, default=default, help=f"default: {default}")  # fmt: skip
    measured = list(figures(**vars(parser.parse_args())))
    print()
    for figure in measured:
        print(figure.line(), flush=True)


@dataclass(frozen=True)
class Measured:
    """The result of a function and its cost; memory and CPU time include child processes."""

    result: Any
    seconds: float
    peak_bytes: int
    cpu_seconds: float = 0.0

    def show(self, name: str, rows: int) -> None:
        """Print the cost and the rate of `rows` rows."""
        print(
            f"    {name:26} {self.seconds:7.1f} s, {self.cpu_seconds:6.1f} core seconds  "
            f"{rows / self.seconds:>11,.0f} rows/s  peak {self.peak_bytes / 1e6:,.0f} MB",
            flush=True,
        )


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Measured:
    """Run `work` in a new process, so that caches are cold and the peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(send, work, arguments))
    child.start()
    send.close()
    try:
        measured: Measured = receive.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__} ended without a result; see above") from None
    child.join()
    return measured


def _child(send: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result, seconds = timed(lambda: work(*arguments))
    send.send(Measured(result, seconds, peak_bytes(), cpu_seconds()))


def peak_bytes() -> int:
    """Peak memory of this process and its children; `getrusage` would include the parent's memory at the fork."""
    peaks = [
        (folder / "status").read_text().partition("VmHWM:")[2].split() for folder in _processes()
    ]
    return sum(int(peak[0]) * 1024 for peak in peaks if peak)


def cpu_seconds() -> float:
    """CPU time of the same processes on all cores; it hardly depends on the machine's load."""
    ticks = [
        (folder / "stat").read_text().rpartition(")")[2].split()[11:13] for folder in _processes()
    ]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def _processes() -> list[Path]:
    """The folders in /proc of this process and its children."""
    tasks = Path("/proc/self/task").glob("*/children")
    children = [pid for task in tasks for pid in task.read_text().split()]
    return [Path("/proc") / pid for pid in ("self", *children)]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of a call, and its seconds."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start
