"""What one training came to, user by user: with the history as it was and shuffled, in either mode (SPEC E1, E4, E5).

A ranker is also asked among the candidates of mode G: its first place there is its answer, so that every system
stands in those tables (SPEC 2)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save_file

from llmsrec.core.errors import DataError
from llmsrec.core.files import atomic_directory, atomic_write, read_json, write_json
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig, cosine, per_user, shuffled_histories
from llmsrec.ranking.metrics import hit_rate
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker, VectorRanker
from llmsrec.systems.system import Answerer
from llmsrec.training.checkpoints import fingerprint

Values = dict[str, Float[np.ndarray, "..."]]
Rows = Int[np.ndarray, "users"]
ANSWERED = 256  # users between two savings


@dataclass(frozen=True)
class Outcome:
    """`values`: {original,shuffled}_{sampled,full}, users by metrics; similarity; and, of the users of mode G,
    {original,shuffled}_generation (whether the answer was right) and _valid (whether it was one)."""

    values: Values
    facts: dict[str, Any]

    def save(self, folder: Path) -> None:
        with atomic_directory(folder) as aside:
            save_file(self.values, aside / "values.safetensors")
            write_json(aside / "facts.json", self.facts)

    @classmethod
    def load(cls, folder: Path) -> "Outcome":
        facts = read_json(folder / "facts.json")
        return cls(load_file(folder / "values.safetensors"), facts)


@dataclass(frozen=True)
class EvaluationTask:
    """Who is asked for what: the same for every system."""

    splits: Splits
    evaluation: EvaluationConfig
    generation_users: int | None

    @property
    def rows(self) -> Rows:
        """Of the test users, those whose next title is written."""
        total, count = len(self.splits.generation_candidates["test"]), self.generation_users
        if count is None or count >= total:
            return np.arange(total)
        draws = np.random.default_rng((self.evaluation.seed, total))
        return np.sort(draws.choice(total, count, replace=False))

    def histories(self, *, shuffled: bool) -> list[Sequences]:
        """As they are; then, with `shuffled`, in other orders."""
        more = shuffled_histories(self.splits, "test", self.evaluation) if shuffled else []
        return [self.splits.histories("test"), *more]

    @property
    def digest(self) -> str:
        """Outcomes with the same can be paired."""
        drawn = (self.splits.candidates["test"], self.splits.generation_candidates["test"])
        asked = self.splits.histories("test")
        config = replace(self.evaluation, bootstrap=1, scores_mb=1)  # which change no user's value
        parts = [part for one in drawn for part in (one.rows, one.items, one.target_columns)]
        return fingerprint(config, self.rows, asked.items, asked.offsets, *parts)


def evaluate_ranker(ranker: Ranker, asked: EvaluationTask, *, shuffled: bool) -> Values:
    """Mode R: among the candidates, among all items, and first among the candidates of mode G."""
    ranker = CachedRanker(ranker) if isinstance(ranker, VectorRanker) else ranker
    splits, held = asked.splits, asked.evaluation.scores_mb
    titles = with_titles_apart(splits)
    found, vectors = [], []
    for histories in asked.histories(shuffled=shuffled):
        by_item = evaluate(ranker, splits, "test", histories=histories, scores_mb=held)
        by_title = evaluate(ranker, titles, "test", histories=histories, full=False, scores_mb=held)
        assert by_item.full is not None
        first = hit_rate(by_title.sampled, 1)[asked.rows]
        values = {"sampled": per_user(by_item.sampled), "full": per_user(by_item.full)}
        found.append(values | {"generation": first})
        vectors.append(by_item.users)
    values = _with_shuffles(found)
    if shuffled and isinstance(ranker, VectorRanker):
        values["similarity"] = np.mean([cosine(vectors[0], other) for other in vectors[1:]], axis=0)
    return values


def with_titles_apart(splits: Splits) -> Splits:
    """Those of mode G in the place of mode R's; they are the same users."""
    return replace(splits, candidates=splits.generation_candidates)


def evaluate_titles(
    answerer: Answerer, asked: EvaluationTask, scratch: Path, *, shuffled: bool
) -> Values:
    """Mode G: whether the written title is the target's, of all users, and whether it is a candidate's at all."""
    candidates = asked.splits.generation_candidates["test"].take(asked.rows)
    found = []
    for number, histories in enumerate(asked.histories(shuffled=shuffled)):
        shown = histories.take(asked.rows)
        parts = []
        for part in _parts(len(asked.rows)):
            file = scratch / f"answers-{number}-{part[0]}.safetensors"
            if not file.exists():
                columns = answerer.answers(shown.take(part), candidates.items[part])
                with atomic_write(file) as aside:
                    save_file({"columns": np.ascontiguousarray(columns)}, aside)
            parts.append(load_file(file)["columns"])
        columns = np.concatenate(parts)
        if len(columns) != len(asked.rows) or (columns >= candidates.items.shape[1]).any():
            raise DataError(f"{type(answerer).__name__} answered with a column that is not there")
        right = (columns == candidates.target_columns).astype(np.float64)
        found.append({"generation": right, "valid": (columns >= 0).astype(np.float64)})
    return _with_shuffles(found)


def _parts(total: int) -> Iterator[Rows]:
    for start in range(0, total, ANSWERED):
        yield np.arange(start, min(start + ANSWERED, total))


def _with_shuffles(found: list[Values]) -> Values:
    """The first is the history as it was; the mean of the others is that of a shuffled one."""
    values = {f"original_{name}": value for name, value in found[0].items()}
    if len(found) > 1:
        for name in found[0]:
            values[f"shuffled_{name}"] = np.mean([run[name] for run in found[1:]], axis=0)
    return values


class CachedRanker(VectorRanker):
    """Represents the same users once, however many candidates they are asked about."""

    def __init__(self, ranker: VectorRanker) -> None:
        self.ranker = ranker
        self._known: tuple[str, Float[np.ndarray, "users size"]] | None = None

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        key = fingerprint(histories.items, histories.offsets)
        if self._known is None or self._known[0] != key:
            self._known = (key, self.ranker.user_vectors(histories))
        return self._known[1]

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return self.score_users(self.user_vectors(histories))

    def score_users(
        self, users: Float[np.ndarray, "users size"]
    ) -> Float[np.ndarray, "users indices"]:
        return self.ranker.score_users(users)

    def score_candidates(
        self, users: Float[np.ndarray, "users size"], items: Int[np.ndarray, "users columns"]
    ) -> Float[np.ndarray, "users columns"]:
        return self.ranker.score_candidates(users, items)


class Chance:
    """Knows nothing: with all items tied, every metric is what a random order gives on average."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return np.zeros((len(histories), self.num_items + 1), dtype=np.float32)
