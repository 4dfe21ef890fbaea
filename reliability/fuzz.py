"""Feeds all parsers of what comes from outside a million odd inputs; says what became of them (docs/reliability.md).

Inputs are drawn from the seed and their number, so that any of them can be made again. What fails is shrunk and kept.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from llmsrec.core.progress import Progress
from llmsrec.parsing import line_reader
from reliability.fuzzing.checks import Tally
from reliability.fuzzing.shrink import shrink
from reliability.fuzzing.targets import TARGETS, Batch, Target

SHOWN = 300  # letters of a failure


@dataclass
class Result:
    """Of one parser."""

    target: Target
    inputs: int = 0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    kinds: Counter[str] = field(default_factory=Counter)
    failed: int = 0  # files, or lines' files
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)  # the first of each way

    def as_dict(self) -> dict[str, Any]:
        return {
            "parser": self.target.name,
            "an_input_is": f"a {self.target.unit}",
            "inputs": self.inputs,
            "seconds": round(self.seconds, 1),
            "files": self.tally.files,
            "lines": self.tally.lines,
            "accepted": self.tally.rows,
            "blank": self.tally.blank,
            "rejects": dict(self.tally.rejects.most_common()),
            "distinct_mutations": len(self.kinds),
            "mutations": dict(self.kinds.most_common()),
            "failed": self.failed,
            "failures": list(self.failures.values()),
        }


@dataclass
class Fuzzer:
    """Runs batches, and looks closer at those that fail."""

    seed: int
    folder: Path  # of files to parse
    failed: Path  # of inputs that failed

    def run(self, batch: Batch, result: Result) -> None:
        started = time.monotonic()
        contents, kinds = batch.contents()
        for content in contents:
            problem = problem_of(batch.target, content, self.folder, result.tally)
            if problem is not None:
                result.failed += 1
                if way(problem) not in result.failures:
                    result.failures[way(problem)] = self._failure(batch, content, problem)
        result.inputs += batch.stop - batch.start
        result.kinds.update(kinds)
        result.seconds += time.monotonic() - started

    def _failure(self, batch: Batch, content: bytes, problem: str) -> dict[str, Any]:
        """Shrunk to what fails in the same way, kept in a file."""
        target = batch.target

        def fails(fewer: bytes) -> bool:
            found = problem_of(target, fewer, self.folder, Tally())
            return found is not None and way(found) == way(problem)

        small = shrink(content, fails)
        self.failed.mkdir(parents=True, exist_ok=True)
        file = self.failed / f"{target.name}-{self.seed}-{batch.start}.bin"
        file.write_bytes(small)
        count = batch.stop - batch.start
        return {
            "problem": (problem_of(target, small, self.folder, Tally()) or problem)[:SHOWN],
            "shrunk": repr(small[:SHOWN]),
            "file": str(file),
            "replay": f"python -m reliability.fuzz --parser {target.name} --seed {self.seed} "
            f"--start {batch.start} --inputs {count}",
            "replay_shrunk": f"python -m reliability.fuzz --parser {target.name} "
            f"--file {shlex.quote(str(file))}",
        }


def problem_of(target: Target, content: bytes, folder: Path, tally: Tally) -> str | None:
    """The first thing wrong; an error that is not the project's own is one."""
    try:
        return next(target.check(content, folder, tally), None)
    except Exception as error:
        return ascii(f"{type(error).__name__}: {error}")[1:-1]


def way(problem: str) -> str:
    return problem.partition(":")[0]


def schedule(targets: list[Target], seed: int, start: int, inputs: int) -> Iterator[Batch]:
    """Batches of all parsers in turn, each parser by its share; so a run that is cut short has seen all."""
    shares = sum(target.share for target in targets)
    counts = [round(inputs * target.share / shares) for target in targets]
    counts[0] += inputs - sum(counts)
    batches = [
        target.batches(seed, start, count) for target, count in zip(targets, counts, strict=True)
    ]
    done = [0] * len(targets)
    while open_ := [place for place, count in enumerate(counts) if done[place] < count]:
        place = min(open_, key=lambda place: done[place] / counts[place])
        batch = next(batches[place])
        done[place] += batch.stop - batch.start
        yield batch


def fuzz(args: argparse.Namespace) -> list[Result]:
    targets = [TARGETS[name] for name in args.parser]
    results = {target.name: Result(target) for target in targets}
    end = time.monotonic() + 60 * args.minutes if args.minutes else None
    progress = Progress("fuzzing", args.inputs, "inputs", interval=5.0)
    with (
        tempfile.TemporaryDirectory(dir=_memory()) as folder,
        mock.patch.object(line_reader, "Progress", mock.Mock()),
    ):
        fuzzer = Fuzzer(args.seed, Path(folder), args.failures)
        for batch in schedule(targets, args.seed, args.start, args.inputs):
            fuzzer.run(batch, results[batch.target.name])
            failed = sum(result.failed for result in results.values())
            progress.advance(batch.stop - batch.start, f"{failed} failures" if failed else "")
            if end and time.monotonic() > end:
                break
    return list(results.values())


def _memory() -> str | None:
    """A folder that costs no disk, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def check_file(target: Target, file: Path) -> int:
    """One input again, as it was kept."""
    with tempfile.TemporaryDirectory() as folder:
        problem = problem_of(target, file.read_bytes(), Path(folder), Tally())
    print(problem or "nothing is wrong with it")
    return 1 if problem else 0


def print_table(results: list[Result]) -> None:
    print(
        f"{'parser':9} {'unit':5} {'inputs':>10} {'files':>8} {'lines':>10} {'accepted':>9} "
        f"{'rejected':>9} {'blank':>7} {'mutations':>9} {'failures':>8} {'seconds':>8}"
    )
    for result in results:
        tally = result.tally
        print(
            f"{result.target.name:9} {result.target.unit:5} {result.inputs:10,} {tally.files:8,} {tally.lines:10,} "
            f"{tally.rows:9,} {tally.rejects.total():9,} {tally.blank:7,} {len(result.kinds):9,} "
            f"{result.failed:8,} {result.seconds:8.1f}"
        )
    for result in results:
        reasons = ", ".join(f"{why} {n:,}" for why, n in result.tally.rejects.most_common())
        print(f"{result.target.name}: {reasons or 'no rejects'}")
    for failure in (failure for result in results for failure in result.failures.values()):
        print(f"\nFAILED: {failure['problem']}\n  shrunk: {failure['shrunk']}")
        print(f"  again: {failure['replay']}\n  shrunk again: {failure['replay_shrunk']}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of each parser's first input")
    parser.add_argument("--parser", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--report", type=Path, help="write all counts to this JSON file")
    parser.add_argument("--failures", type=Path, default=Path("scratch/fuzz"))
    parser.add_argument("--file", type=Path, help="check one kept input of --parser")
    args = parser.parse_args(arguments)
    if args.file:
        return check_file(TARGETS[args.parser[0]], args.file)
    results = fuzz(args)
    print_table(results)
    if args.report:
        document = {"seed": args.seed, "parsers": [result.as_dict() for result in results]}
        args.report.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
