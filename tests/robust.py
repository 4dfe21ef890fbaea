"""Run the tests under other conditions of the machine, to show that no result depends on them: `make test-robust`.

    python -m tests.robust [NAME ...] [--times N] [--tests PATH ...]

Without a name, two runs of all tests combine all conditions, and each run is made twice: a run that passes shows that
none of its conditions matters. Where one fails, give a single condition by name, and the failed test as PATH. A line
is printed for each run; pytest's output is kept in scratch/robust/.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec

from reliability.project import CHECKOUT

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--dist", "loadfile"]
# A user namespace in which the process is not root. It still owns its files, wherever the interpreter is installed.
UNPRIVILEGED = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]


@dataclass(frozen=True)
class Condition:
    """What is different from `make test-all`."""

    env: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()  # of pytest
    busy: bool = False  # one core is kept busy by another process
    prefix: tuple[str, ...] = ()  # of the command


CONDITIONS = {
    "kernels-default": Condition({"ATEN_CPU_CAPABILITY": "default"}),
    "kernels-avx2": Condition({"ATEN_CPU_CAPABILITY": "avx2"}),
    "one-thread": Condition({"OMP_NUM_THREADS": "1"}),
    # Waiting threads that spin would make four workers of two threads take hours.
    "two-threads": Condition({"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}),
    "other-histories": Condition({"MADE_UP": "7"}),
    "random-order": Condition(options=("-p", "randomly")),
    "one-worker": Condition(options=("-n", "1")),
    "four-workers": Condition(options=("-n", "4")),
    "busy-core": Condition(busy=True),
    "c-locale": Condition({"LC_ALL": "C"}),
    "auckland": Condition({"TZ": "Pacific/Auckland"}),
    "not-root": Condition(prefix=tuple(UNPRIVILEGED)),
}
RUNS = {
    "a": ["kernels-default", "two-threads", "other-histories", "random-order", "four-workers", "c-locale", "auckland"],
    "b": ["kernels-avx2", "one-thread", "one-worker", "busy-core", "not-root"],
}  # fmt: skip


@contextmanager
def a_busy_core() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def usable(names: list[str]) -> list[str]:
    """The conditions that can be had here; the others are printed with the reason."""
    reasons = {name: obstacle(name) for name in names}
    for name, reason in reasons.items():
        if reason:
            print(f"skipped {name}: {reason}", flush=True)
    return [name for name in names if not reasons[name]]


def obstacle(name: str) -> str:
    """Why a condition cannot be had here, or nothing."""
    if name == "random-order" and find_spec("pytest_randomly") is None:
        return "pytest-randomly is not installed: make setup"
    if name == "not-root" and os.geteuid() != 0:
        return "nobody is root here"
    if name == "not-root":
        try:
            subprocess.run([*UNPRIVILEGED, "true"], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"{' '.join(UNPRIVILEGED)} fails here: {getattr(error, 'stderr', '') or error}"
    return ""


def run(name: str, number: int, tests: list[str]) -> bool:
    """Run the tests once; whether they passed."""
    names = usable(RUNS.get(name, [name]))
    if not names:
        return True
    conditions = [CONDITIONS[each] for each in names]
    command = [part for one in conditions for part in one.prefix]
    command += [*PYTEST, "-n", "2", *(part for one in conditions for part in one.options), *tests]
    env = dict(os.environ)
    for one in conditions:
        env |= one.env
    log = CHECKOUT / "scratch" / "robust" / f"{name}-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    busy = any(one.busy for one in conditions)
    with log.open("wb") as output, a_busy_core() if busy else nullcontext():
        done = subprocess.run(command, cwd=CHECKOUT, env=env, stdout=output, stderr=output)
    (*_, last) = log.read_text(errors="replace").splitlines() or ["no output"]
    verdict = "failed" if done.returncode else "passed"
    seconds = time.monotonic() - start
    print(f"{name:16} {verdict}  {seconds:5.0f} s  {last.strip('= ')}  ({log})", flush=True)
    return not done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    known = [*RUNS, *CONDITIONS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--tests", nargs="+", metavar="PATH", default=["tests"])
    args = parser.parse_args()
    if unknown := set(args.names) - set(known):
        parser.error(f"no condition {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    for name, conditions in RUNS.items():
        print(f"run {name}: {', '.join(conditions)}")
    names = args.names or list(RUNS)
    results = [run(name, number, args.tests) for number in range(args.times) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
