"""Feed unusual files to all parsers of external files and count the results (docs/howto/reliability.md).

A file is a function of the parser, the seed and its number. A file that fails is shrunk and saved.
"""

import argparse
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest import mock

from llmsrec.core.progress import Progress
from llmsrec.parsing import line_reader
from reliability.fuzzing import checks, inputs, settings

SHOWN = 300  # characters of a failure
FAILED = Path("scratch/fuzz")


@dataclass(frozen=True)
class Parser:
    """How the files of a parser are made, and how what it does with one is checked."""

    make: Callable[[Random], bytes]
    check: Callable[[bytes, Path, Counter[str]], Iterator[str]]

    def problem(self, content: bytes, folder: Path, counts: Counter[str]) -> str | None:
        """The first problem of a file, if any; an exception outside of the project's own classes is a problem."""
        try:
            return next(self.check(content, folder, counts), None)
        except Exception as error:
            return ascii(f"{type(error).__name__}: {error}")[1:-1]


PARSERS = {
    "reviews": Parser(inputs.review_file, checks.check_reviews),
    "csv": Parser(inputs.csv_file, checks.check_csv),
    "metadata": Parser(inputs.item_file, checks.check_items),
    "lines": Parser(inputs.plain_file, checks.check_plain),
    "gzip": Parser(inputs.gzip_file, checks.check_gzip),
    "settings": Parser(settings.settings_file, settings.check_settings),
}


def fuzz(name: str, seed: int, files: int, folder: Path) -> tuple[Counter[str], dict[str, Path]]:
    """The counts of lines and files by result, and the shrunk file of each kind of problem."""
    parser, counts, failures = PARSERS[name], Counter[str](), dict[str, Path]()
    progress = Progress(f"fuzzing {name}", files, "files", interval=5.0)
    for number in range(files):
        content = parser.make(Random(f"{name}-{seed}-{number}"))
        problem = parser.problem(content, folder, counts)
        counts["files"] += 1
        if problem is not None:
            counts["FAILED"] += 1
            if kind_of(problem) not in failures:
                small = shrunk(parser, content, kind_of(problem), folder)
                FAILED.mkdir(parents=True, exist_ok=True)
                failures[kind_of(problem)] = FAILED / f"{name}-{seed}-{number}.bin"
                failures[kind_of(problem)].write_bytes(small)
        progress.advance()
    return counts, failures


def kind_of(problem: str | None) -> str:
    """The text of a problem up to its first colon."""
    return (problem or "").partition(":")[0]


def shrunk(parser: Parser, content: bytes, kind: str, folder: Path, seconds: float = 20.0) -> bytes:
    """A part of the file that still has the problem: lines are removed, then bytes, for at most `seconds`."""

    def fails(parts: list[bytes]) -> bool:
        return kind_of(parser.problem(b"".join(parts), folder, Counter())) == kind

    end = time.monotonic() + seconds
    content = b"".join(_fewer(content.splitlines(keepends=True), fails, end))
    return b"".join(_fewer([bytes([byte]) for byte in content], fails, end))


def _fewer(parts: list[bytes], fails: Callable[[list[bytes]], bool], end: float) -> list[bytes]:
    """Remove runs of parts while the rest still fails; runs get shorter, down to one part."""
    size = max(1, len(parts) // 2)
    while parts:
        place, before = 0, len(parts)
        while place < len(parts):
            if time.monotonic() > end:
                return parts
            fewer = parts[:place] + parts[place + size :]
            if fails(fewer):
                parts = fewer
            else:
                place += size
        if size == 1 and len(parts) == before:
            break
        size = max(1, size // 2)
    return parts


def check_file(name: str, file: Path, folder: Path) -> str | None:
    """The problem of one saved file, which is printed, if any."""
    content = file.read_bytes()
    problem = PARSERS[name].problem(content, folder, Counter())
    print(f"{problem or 'no problem'}\n  {content[:SHOWN]!r}"[: 2 * SHOWN])
    if problem is not None:
        print(
            f"  again: python -m reliability.fuzz --parser {name} --file {shlex.quote(str(file))}"
        )
    return problem


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="files of each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parser", nargs="+", choices=PARSERS, default=list(PARSERS))
    parser.add_argument("--file", type=Path, help="check one saved file of --parser")
    args = parser.parse_args(arguments)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    failures: list[tuple[str, Path]] = []
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        mock.patch.object(line_reader, "Progress", mock.Mock()),
    ):
        if args.file:
            return int(check_file(args.parser[0], args.file, Path(folder)) is not None)
        for name in args.parser:
            counts, failed = fuzz(name, args.seed, args.files, Path(folder))
            print(f"{name}: " + ", ".join(f"{what} {n:,}" for what, n in counts.most_common()))
            failures += [(name, file) for file in failed.values()]
        for name, file in failures:
            check_file(name, file, Path(folder))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
