"""The metrics of one trained system, user by user, for original and shuffled histories (specification E1, E4, E5).

A ranker also ranks the candidates of title generation; its first item there is its answer, so that every system has a
value in those tables (specification 2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save_file

from llmsrec.core.errors import ArtifactError, DataError
from llmsrec.core.files import atomic_directory, atomic_write, read_json, write_json
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.per_user import EvaluationConfig, cosine, per_user, shuffled_histories
from llmsrec.ranking.metrics import hit_rate
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker, VectorRanker, cached
from llmsrec.systems.system import Answerer
from llmsrec.training.checkpoints import fingerprint
from studies.config import Run

Values = dict[str, Float[np.ndarray, "..."]]
Rows = Int[np.ndarray, "users"]
RESULT = "result"  # a folder of an exported run
USERS_PER_FILE = 256  # answers are saved after so many users


@dataclass(frozen=True)
class RunResult:
    """The per-user metrics of a run, and facts about its training.

    `values`: {original,shuffled}_{sampled,full}, users by metrics; similarity, by user; and, for the users of title
    generation, {original,shuffled}_generation (the answer is right) and _valid (the answer is a candidate)."""

    values: Values
    facts: dict[str, Any]

    def save(self, folder: Path) -> None:
        with atomic_directory(folder) as partial:
            save_file(self.values, partial / "values.safetensors")
            write_json(partial / "facts.json", self.facts)

    @classmethod
    def load(cls, folder: Path) -> "RunResult":
        facts = read_json(folder / "facts.json")
        return cls(load_file(folder / "values.safetensors"), facts)


def load_results(folder: Path, runs: Sequence[Run], task: str) -> dict[Run, RunResult]:
    """The exported results of `runs`. Raises ArtifactError unless all were evaluated on this task (its digest)."""
    results = {run: RunResult.load(folder / run.system / run.name / RESULT) for run in runs}
    for run, result in results.items():
        if result.facts["task"] != task:
            raise ArtifactError(
                f"{folder}: {run.system} {run.name} was evaluated with other settings or on other users than those of "
                "now: run the stage `trainings` again"
            )
    return results


@dataclass(frozen=True)
class EvaluationTask:
    """The users, histories and candidates that every system is evaluated on."""

    splits: Splits
    evaluation: EvaluationConfig
    generation_users: int | None
    part: Part = "test"

    @property
    def rows(self) -> Rows:
        """The evaluated users of title generation, as rows of its candidates."""
        total, count = len(self.splits.generation_candidates[self.part]), self.generation_users
        if count is None or count >= total:
            return np.arange(total)
        draws = np.random.default_rng((self.evaluation.seed, total))
        return np.sort(draws.choice(total, count, replace=False))

    @property
    def users(self) -> Int[np.ndarray, "targets"]:
        """The user of each evaluated target; with `temporal_target: successive` a user has several."""
        return self.splits.evaluated(self.part).users

    @property
    def title_users(self) -> Int[np.ndarray, "targets"]:
        """The user of each target of title generation."""
        rows = self.splits.generation_candidates[self.part].rows[self.rows]
        return self.splits.targets[self.part].users[rows]

    def histories(self, *, shuffled: bool) -> list[Sequences]:
        """The original histories; with `shuffled`, their permutations follow."""
        permuted = shuffled_histories(self.splits, self.part, self.evaluation) if shuffled else []
        return [self.splits.histories(self.part), *permuted]

    @property
    def digest(self) -> str:
        """Results with equal digests can be paired user by user."""
        drawn = (self.splits.candidates[self.part], self.splits.generation_candidates[self.part])
        histories = self.splits.histories(self.part)
        config = replace(self.evaluation, bootstrap=1)  # which changes no user's value
        arrays = [array for one in drawn for array in (one.rows, one.items, one.target_columns)]
        return fingerprint(config, self.rows, histories.items, histories.offsets, *arrays)


def evaluate_ranker(ranker: Ranker, task: EvaluationTask, *, shuffled: bool) -> Values:
    """Metrics among the candidates, among all items, and of the first of the title candidates."""
    ranker = cached(ranker)
    splits, part = task.splits, task.part
    titles = replace(splits, candidates=splits.generation_candidates)  # of the same users
    results, vectors = [], []
    for shown in task.histories(shuffled=shuffled):
        by_item = evaluate(ranker, splits, part, histories=shown)
        by_title = evaluate(ranker, titles, part, histories=shown, full=False)
        assert by_item.full is not None
        first = hit_rate(by_title.sampled, 1)[task.rows]
        values = {"sampled": per_user(by_item.sampled), "full": per_user(by_item.full)}
        results.append(values | {"generation": first})
        vectors.append(by_item.users)
    values = _with_shuffled(results)
    if shuffled and isinstance(ranker, VectorRanker):
        values["similarity"] = np.mean([cosine(vectors[0], other) for other in vectors[1:]], axis=0)
    return values


def evaluate_titles(
    answerer: Answerer, task: EvaluationTask, scratch: Path, *, shuffled: bool
) -> Values:
    """Whether each user's answer is the target's title, and whether it is a candidate's title at all.

    Answers are saved in `scratch` as they are written. Raises DataError for a column that does not exist."""
    candidates = task.splits.generation_candidates[task.part].take(task.rows)
    results = []
    for number, histories in enumerate(task.histories(shuffled=shuffled)):
        shown = histories.take(task.rows)
        parts = []
        for rows in _parts(len(task.rows)):
            file = scratch / f"answers-{number}-{rows[0]}.safetensors"
            if not file.exists():
                columns = answerer.answers(shown.take(rows), candidates.items[rows])
                with atomic_write(file) as partial:
                    save_file({"columns": np.ascontiguousarray(columns)}, partial)
            parts.append(load_file(file)["columns"])
        columns = np.concatenate(parts)
        if len(columns) != len(task.rows) or (columns >= candidates.items.shape[1]).any():
            raise DataError(f"{type(answerer).__name__} answered with a column that does not exist")
        right = (columns == candidates.target_columns).astype(np.float64)
        results.append({"generation": right, "valid": (columns >= 0).astype(np.float64)})
    return _with_shuffled(results)


def _parts(total: int) -> Iterator[Rows]:
    for start in range(0, total, USERS_PER_FILE):
        yield np.arange(start, min(start + USERS_PER_FILE, total))


def _with_shuffled(results: list[Values]) -> Values:
    """The first result is of the original histories, the mean of the others of shuffled ones."""
    values = {f"original_{name}": value for name, value in results[0].items()}
    if len(results) > 1:
        for name in results[0]:
            values[f"shuffled_{name}"] = np.mean([result[name] for result in results[1:]], axis=0)
    return values


class Chance:
    """Scores that are all equal: every metric has the mean of a random order."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return np.zeros((len(histories), self.num_items + 1), dtype=np.float32)
