"""Feed unusual inputs to all parsers of external files and count the results (docs/howto/reliability.md).

An input is a function of the seed and its number, so that any input can be generated again. An input that fails is
shrunk and saved.
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
from reliability.fuzzing.shrink import shrink
from reliability.fuzzing.tally import Tally
from reliability.fuzzing.targets import TARGETS, Batch, Target

SHOWN = 300  # characters of a failure


@dataclass
class Result:
    """The counts and failures of one parser."""

    target: Target
    inputs: int = 0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    kinds: Counter[str] = field(default_factory=Counter)
    failed: int = 0  # files
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)  # the first of each kind

    def document(self) -> dict[str, Any]:
        return {
            "parser": self.target.name,
            "unit": self.target.unit,
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
    """Checks batches and shrinks the inputs that fail."""

    seed: int
    folder: Path  # for the files to parse
    failures: Path  # for inputs that failed

    def run(self, batch: Batch, result: Result) -> None:
        started = time.monotonic()
        contents, kinds = batch.contents()
        for content in contents:
            problem = problem_of(batch.target, content, self.folder, result.tally)
            if problem is not None:
                result.failed += 1
                if kind_of(problem) not in result.failures:
                    result.failures[kind_of(problem)] = self._failure(batch, content, problem)
        result.inputs += batch.stop - batch.start
        result.kinds.update(kinds)
        result.seconds += time.monotonic() - started

    def _failure(self, batch: Batch, content: bytes, problem: str) -> dict[str, Any]:
        """Shrink the input while it fails in the same way, and save it."""
        target = batch.target

        def fails(smaller: bytes) -> bool:
            failure = problem_of(target, smaller, self.folder, Tally())
            return failure is not None and kind_of(failure) == kind_of(problem)

        small = shrink(content, fails)
        self.failures.mkdir(parents=True, exist_ok=True)
        file = self.failures / f"{target.name}-{self.seed}-{batch.start}.bin"
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
    """The first problem of an input, if any; an exception outside of the project's own classes is a problem."""
    try:
        return next(target.check(content, folder, tally), None)
    except Exception as error:
        return ascii(f"{type(error).__name__}: {error}")[1:-1]


def kind_of(problem: str) -> str:
    """The text of a problem up to its first colon."""
    return problem.partition(":")[0]


def schedule(targets: list[Target], seed: int, start: int, inputs: int) -> Iterator[Batch]:
    """Batches of all parsers in turn, by their shares, so that a run that is cut short has covered all of them."""
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
    """Check all inputs that the arguments ask for; a result for each parser."""
    targets = [TARGETS[name] for name in args.parser]
    results = {target.name: Result(target) for target in targets}
    end = time.monotonic() + 60 * args.minutes if args.minutes else None
    progress = Progress("fuzzing", args.inputs, "inputs", interval=5.0)
    with (
        tempfile.TemporaryDirectory(dir=_memory_folder()) as folder,
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


def _memory_folder() -> str | None:
    """A folder in memory, if there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def check_file(target: Target, file: Path) -> int:
    """Check one saved input."""
    with tempfile.TemporaryDirectory() as folder:
        problem = problem_of(target, file.read_bytes(), Path(folder), Tally())
    print(problem or "no problem")
    return 1 if problem else 0


def print_table(results: list[Result]) -> None:
    """Print the counts of each parser, its reasons of rejection and its failures."""
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
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in result.tally.rejects.most_common())
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
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--report", type=Path, help="write all counts to this JSON file")
    parser.add_argument("--failures", type=Path, default=Path("scratch/fuzz"))
    parser.add_argument("--file", type=Path, help="check one saved input of --parser")
    args = parser.parse_args(arguments)
    if args.file:
        return check_file(TARGETS[args.parser[0]], args.file)
    results = fuzz(args)
    print_table(results)
    if args.report:
        document = {"seed": args.seed, "parsers": [result.document() for result in results]}
        args.report.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
