"""The parsers under test: their generators, batches and checks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from reliability.fuzzing import checks, csv_inputs, file_checks, file_inputs, inputs
from reliability.fuzzing.inputs import Made
from reliability.fuzzing.mutations import mutate
from reliability.fuzzing.settings import settings_file
from reliability.fuzzing.tally import Tally

PORTION = 400  # inputs with the same anomaly rate and CSV header
ANOMALY_RATES = (0.02, 0.3, 1.0)


@dataclass(frozen=True)
class Target:
    """A parser; it gets `share` of the inputs, `batch` of them in one file (lines) or one after another (files)."""

    name: str
    unit: str  # line: a file holds several inputs | file: an input is a file
    share: float
    batch: int
    make: Callable[[Random, float, int], Made]
    check: Callable[[bytes, Path, Tally], Iterator[str]]

    def input(self, seed: int, number: int) -> Made:
        """The input of this number; it does not depend on other inputs."""
        portion = number // PORTION
        draws = Random(f"{self.name}-{seed}-{number}")
        return self.make(draws, ANOMALY_RATES[portion % len(ANOMALY_RATES)], portion)

    def batches(self, seed: int, start: int, count: int) -> Iterator["Batch"]:
        """Inputs `start` to `start + count`, in batches that begin at multiples of the batch size."""
        number, end = start, start + count
        while number < end:
            stop = min(end, (number // self.batch + 1) * self.batch)
            yield Batch(self, seed, number, stop)
            number = stop


@dataclass(frozen=True)
class Batch:
    """The inputs `start` to `stop` of a target."""

    target: Target
    seed: int
    start: int
    stop: int

    def contents(self) -> tuple[list[bytes], list[str]]:
        """The files with these inputs, and the kinds of their anomalies."""
        made = [self.target.input(self.seed, number) for number in range(self.start, self.stop)]
        anomalies = [kind for _, kinds in made for kind in kinds or ["regular"]]
        texts = [text for text, _ in made]
        if self.target.unit == "file":
            return texts, anomalies
        draws = Random(f"{self.target.name}-{self.seed}-batch-{self.start}")
        end = draws.choice([b"\n", b"\n", b"\n", b"\r\n"])
        body = end.join(texts) + draws.choice([end, b""])
        if self.target.name != "csv":
            return [body], anomalies
        header = csv_inputs.HEADERS[_shape(self.start // PORTION)].encode()
        damaged, kinds = mutate(header, draws)
        anomalies += [f"header: {kind}" for kind in kinds]
        return [header + end + body, damaged + end + texts[0]], anomalies


def _shape(portion: int) -> int:
    return portion % len(csv_inputs.HEADERS)


TARGETS = {
    target.name: target
    for target in (
        Target("reviews", "line", 0.5, PORTION,
               lambda draws, rate, _: inputs.review_line(draws, rate), checks.check_reviews),
        Target("csv", "line", 0.22, PORTION,
               lambda draws, rate, portion: csv_inputs.csv_line(draws, rate, _shape(portion)), checks.check_csv),
        Target("metadata", "line", 0.22, PORTION,
               lambda draws, rate, _: inputs.item_line(draws, rate), checks.check_items),
        Target("lines", "file", 0.02, 100,
               lambda draws, rate, _: file_inputs.plain_file(draws, rate), file_checks.check_plain),
        Target("gzip", "file", 0.02, 100,
               lambda draws, rate, _: file_inputs.gzip_file(draws, rate), file_checks.check_gzip),
        Target("settings", "file", 0.02, 50,
               lambda draws, rate, _: settings_file(draws, rate), file_checks.check_settings),
    )
}  # fmt: skip
