"""A synthetic dataset that grows file by file; the expected interactions are known."""

import gzip
import json
from dataclasses import dataclass, field

import numpy as np

DAY = 86_400_000
ITEMS, USERS, NEW_USERS = 400, 40, 8  # new users per iteration
Interaction = tuple[str, str, int]  # user, item, milliseconds
Row = dict[str, object]


@dataclass(frozen=True)
class InputFile:
    """One file; `interactions` and `broken` lines are those that it adds: none if it was sent before or is `rejected`.

    A file is rejected as a whole, for many broken lines or damaged bytes."""

    name: str
    content: bytes
    interactions: tuple[Interaction, ...] = ()
    broken: int = 0
    rejected: bool = False


@dataclass
class ExpectedInteractions:
    """What the stage `interactions` must hold: the first interaction of each user and item, and counts of lines."""

    first_times: dict[tuple[str, str], int] = field(default_factory=dict)
    lines: int = 0
    broken: int = 0

    def add(self, file: InputFile) -> None:
        """Add what a file adds."""
        self.lines += len(file.interactions) + file.broken
        self.broken += file.broken
        for user, item, time in file.interactions:
            self.first_times[user, item] = min(time, self.first_times.get((user, item), time))


class SyntheticDataset:
    """Its files are a function of `seed` and the number of the iteration."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def raw_files(self) -> tuple[dict[str, bytes], InputFile]:
        """The first raw files by name (item texts and reviews), and the reviews with their interactions."""
        items: list[Row] = [
            {"parent_asin": f"I{n:03d}", "title": f"Thing {n}", "description": ["Good."]}
            for n in range(ITEMS)
        ]
        interactions = self._interactions(0, range(USERS))
        reviews = _file("synthetic.jsonl", interactions, ["{broken"])
        return {"meta_synthetic.jsonl": _text(items), reviews.name: reviews.content}, reviews

    def new_files(self, iteration: int) -> list[InputFile]:
        """The files of an iteration, counted from 1: two valid ones, one repeated, two that must be rejected."""
        draws = np.random.default_rng([self.seed, iteration, 1])
        first = USERS + NEW_USERS * (iteration - 1)
        new = self._interactions(iteration, range(first, first + NEW_USERS))
        again = self._interactions(iteration, draws.choice(USERS, 10, replace=False).tolist())
        opening = self._interactions(0, range(USERS))
        again += [opening[row] for row in draws.choice(len(opening), 20, replace=False)]
        broken = _file(f"broken-{iteration}.jsonl", new[:6], ["{", "[1]", '{"user_id": "U"}'])
        valid = [
            _file(f"new-{iteration}.jsonl", new, ["not json"]),
            _file(f"again-{iteration}.jsonl.gz", again, []),
        ]
        cut = gzip.compress(_text([_row(interaction) for interaction in reversed(new)]), mtime=0)
        return [
            *valid,
            InputFile(f"twice-{iteration}.jsonl", valid[0].content),
            InputFile(broken.name, broken.content, rejected=True),
            InputFile(f"cut-{iteration}.jsonl.gz", cut[: len(cut) // 2], rejected=True),
        ]

    def _interactions(self, iteration: int, users: range | list[int]) -> list[Interaction]:
        """5 to 11 interactions of each user; nine of ten times the next item number follows."""
        interactions = []
        for user in users:
            draws = np.random.default_rng([self.seed, iteration, 0, user])
            item = int(draws.integers(ITEMS))
            for place in range(int(draws.integers(5, 12))):
                day = 15_000 + 20 * iteration + place
                interactions.append((f"U{user:05d}", f"I{item:03d}", day * DAY + user))
                item = (item + (1 if draws.random() < 0.9 else int(draws.integers(ITEMS)))) % ITEMS
        return interactions


def _file(name: str, interactions: list[Interaction], broken: list[str]) -> InputFile:
    """The broken lines stand between the others."""
    lines = [json.dumps(_row(interaction)) for interaction in interactions]
    for place, line in enumerate(broken):
        lines.insert(2 * place + 1, line)
    text = ("\n".join(lines) + "\n").encode()
    content = gzip.compress(text, mtime=0) if name.endswith(".gz") else text
    return InputFile(name, content, tuple(interactions), len(broken))


def _row(interaction: Interaction) -> Row:
    return dict(zip(("user_id", "parent_asin", "timestamp"), interaction, strict=True))


def _text(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
