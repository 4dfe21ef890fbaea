"""The parsers under test: what each is fed, in what portions, and how it is judged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from reliability.fuzzing import checks, csv_inputs, file_checks, file_inputs, inputs
from reliability.fuzzing.checks import Tally
from reliability.fuzzing.inputs import Made
from reliability.fuzzing.mutations import mutate
from reliability.fuzzing.settings import settings_file

PORTION = 400  # inputs that share a spice, and a CSV header
SPICES = (0.02, 0.3, 1.0)


@dataclass(frozen=True)
class Target:
    """`share` of the inputs, `batch` of them in one file (of lines) or looked at together (files)."""

    name: str
    unit: str  # line: several inputs stand in one file | file: an input is one
    share: float
    batch: int
    make: Callable[[Random, float, int], Made]
    check: Callable[[bytes, Path, Tally], Iterator[str]]

    def input(self, seed: int, number: int) -> Made:
        """The input of this number: the same whichever others are made."""
        portion = number // PORTION
        draws = Random(f"{self.name}-{seed}-{number}")
        return self.make(draws, SPICES[portion % len(SPICES)], portion)

    def batches(self, seed: int, start: int, count: int) -> Iterator["Batch"]:
        """Inputs `start` to `start + count`, in batches that begin at multiples of their size."""
        number, end = start, start + count
        while number < end:
            stop = min(end, (number // self.batch + 1) * self.batch)
            yield Batch(self, seed, number, stop)
            number = stop


@dataclass(frozen=True)
class Batch:
    """Inputs of the numbers `start` to `stop`."""

    target: Target
    seed: int
    start: int
    stop: int

    def contents(self) -> tuple[list[bytes], list[str]]:
        """The files that hold them, and the kinds of oddness in these."""
        made = [self.target.input(self.seed, number) for number in range(self.start, self.stop)]
        odd = [kind for _, kinds in made for kind in kinds or ["as it should be"]]
        texts = [text for text, _ in made]
        if self.target.unit == "file":
            return texts, odd
        draws = Random(f"{self.target.name}-{self.seed}-batch-{self.start}")
        end = draws.choice([b"\n", b"\n", b"\n", b"\r\n"])
        body = end.join(texts) + draws.choice([end, b""])
        if self.target.name != "csv":
            return [body], odd
        header = csv_inputs.HEADERS[_shape(self.start // PORTION)].encode()
        damaged, kinds = mutate(header, draws)
        odd += [f"header: {kind}" for kind in kinds]
        return [header + end + body, damaged + end + texts[0]], odd


def _shape(portion: int) -> int:
    return portion % len(csv_inputs.HEADERS)


TARGETS = {
    target.name: target
    for target in (
        Target("reviews", "line", 0.5, PORTION,
               lambda draws, spice, _: inputs.review_line(draws, spice), checks.check_reviews),
        Target("csv", "line", 0.22, PORTION,
               lambda draws, spice, portion: csv_inputs.csv_line(draws, spice, _shape(portion)), checks.check_csv),
        Target("metadata", "line", 0.22, PORTION,
               lambda draws, spice, _: inputs.item_line(draws, spice), checks.check_items),
        Target("lines", "file", 0.02, 100,
               lambda draws, spice, _: file_inputs.plain_file(draws, spice), file_checks.check_plain),
        Target("gzip", "file", 0.02, 100,
               lambda draws, spice, _: file_inputs.gzip_file(draws, spice), file_checks.check_gzip),
        Target("settings", "file", 0.02, 50,
               lambda draws, spice, _: settings_file(draws, spice), file_checks.check_settings),
    )
}  # fmt: skip
