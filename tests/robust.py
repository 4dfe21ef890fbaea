"""Whether the tests' verdicts hang on the machine: `make test-robust` runs those that could, each way twice.

    python -m tests.robust [--times N] [NAME ...]

A line for each run: how, result, seconds. What pytest said is kept under scratch/robust/.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from reliability.project import CHECKOUT, tracked

TRAININGS = [
    "tests/sequential", "tests/training", "tests/student", "tests/systems", "tests/studies", "tests/stages",
    "tests/evaluation", "tests/report", "tests/serving",
]  # fmt: skip
PROCESSES = [
    "tests/orchestration", "tests/infra", "tests/reliability", "tests/training/test_distributed.py",
    "tests/core/test_files.py", "tests/sources", "tests/arrivals", "tests/parsing/test_parse_cache.py",
    "tests/test_cli.py",
]  # fmt: skip
LIGHT = [
    "tests/data", "tests/parsing", "tests/preprocessing", "tests/evaluation", "tests/report", "tests/orchestration",
    "tests/llm", "tests/test_cli.py",
]  # fmt: skip
BUSY = [sys.executable, "-c", "while True: pass"]


@dataclass(frozen=True)
class Way:
    """How the tests of `paths` are run."""

    paths: list[str]
    env: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ("-n", "2")
    busy: bool = False  # with one core kept busy beside them
    user: str | None = None


WAYS = {
    "kernels-default": Way(TRAININGS, {"ATEN_CPU_CAPABILITY": "default"}),
    "kernels-avx2": Way(TRAININGS, {"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "2"}),
    "other-histories": Way(TRAININGS, {"MADE_UP": "7"}),
    "random-order": Way([*TRAININGS, *PROCESSES], options=("-n", "2", "-p", "randomly")),
    "one-worker": Way(PROCESSES, options=("-n", "1")),
    "four-workers": Way(PROCESSES, options=("-n", "4")),
    "busy-core": Way(PROCESSES, busy=True),
    "c-locale": Way(LIGHT, {"LC_ALL": "C"}),
    "auckland": Way(LIGHT, {"TZ": "Pacific/Auckland"}),
    "not-root": Way(PROCESSES, user="nobody"),
}


@contextmanager
def a_busy_core() -> Iterator[None]:
    process = subprocess.Popen(BUSY)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def copy_for(user: str) -> Iterator[Path]:
    """This checkout, uncommitted changes too, below a folder of the user's own."""
    with tempfile.TemporaryDirectory(prefix="robust-") as folder:
        root = Path(folder) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(root)], check=True)
        for name in tracked():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CHECKOUT / name, root / name)
        if (shared := CHECKOUT.parent / "shared").is_dir():
            (root.parent / "shared").symlink_to(shared)
        subprocess.run(["chown", "--recursive", user, folder], check=True)
        yield root


def may_start(user: str) -> bool:
    """Not where the interpreter lies in root's home."""
    try:
        subprocess.run([sys.executable, "-c", ""], user=user, extra_groups=[], check=True, cwd="/")
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def run(name: str, way: Way, number: int) -> bool:
    log = CHECKOUT / "scratch" / "robust" / f"{name}-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *way.options,
        *way.paths,
    ]
    user = way.user if os.geteuid() == 0 else None  # else nobody is root anyway
    if user and not may_start(user):
        print(f"{name:16} failed: {user} may not start {sys.executable}", flush=True)
        return False
    start = time.monotonic()
    with (
        log.open("wb") as said,
        copy_for(user) if user else nullcontext(CHECKOUT) as root,
        a_busy_core() if way.busy else nullcontext(),
    ):
        paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": paths, **way.env}
        env |= {"HOME": str(root.parent), "TMPDIR": str(root.parent)} if user else {}
        done = subprocess.run(
            command,
            cwd=root,
            env=env,
            stdout=said,
            stderr=said,
            user=user,
            extra_groups=[] if user else None,
        )
    (*_, last) = log.read_text(errors="replace").splitlines() or ["it said nothing"]
    verdict = "failed" if done.returncode else "passed"
    print(f"{name:16} {verdict}  {time.monotonic() - start:5.0f} s  {last.strip('= ')}", flush=True)
    return not done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--times", type=int, default=2)
    args = parser.parse_args()
    if unknown := set(args.names) - set(WAYS):
        parser.error(f"no way {', '.join(sorted(unknown))}; there are: {', '.join(WAYS)}")
    names = args.names or list(WAYS)
    results = [run(name, WAYS[name], n) for n in range(args.times) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
