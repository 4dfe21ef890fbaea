"""The artifact of the stage `recommender`: what a dataset needs to recommend, beside the models themselves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save_file

from llmsrec.core.config import Count
from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import atomic_directory, read_json, sha256
from llmsrec.data.catalog import Catalog
from llmsrec.data.splits import Splits
from llmsrec.llm.ranker import RepresentUsers, RetrievalRanker, encode_items
from llmsrec.llm.retrieval import RetrievalModel
from llmsrec.ranking.ranker import Ranker
from llmsrec.recommender.content import ContentRanker
from llmsrec.recommender.hybrid import HybridRanker, Weights, fit_weights, score_users
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.student.model import LLMSRec

PartName = Literal["teacher", "student", "content"]


@dataclass(frozen=True)
class RecommenderConfig:
    """`content_last`: number of last purchases whose texts count."""

    parts: list[PartName]
    content_last: Count
    seed: int

    def __post_init__(self) -> None:
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts must name at least one part, each once, not {self.parts}")


@dataclass(frozen=True)
class Parts:
    """The rankers whose scores are summed."""

    teacher: SequentialRanker
    student: RetrievalRanker
    content: ContentRanker

    def by_name(self) -> dict[str, Ranker]:
        return {"teacher": self.teacher, "student": self.student, "content": self.content}


@dataclass(frozen=True)
class FittedRecommender:
    """Weights of the parts, the student's item vectors, and what serving knows about the training data.

    `without_student` are the weights of the other parts when the student is left out; empty if it is the only part or
    none.
    `purchases` counts training interactions by item_index, for users with an empty history; `latest` is the last
    timestamp (ms), for histories without timestamps."""

    weights: Weights
    without_student: Weights
    content_last: int
    item_vectors: Float[np.ndarray, "indices shared"]
    purchases: Int[np.ndarray, "indices"]
    latest: int
    student: str  # sha256 of its weights

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors, replacing the folder atomically."""
        with atomic_directory(folder) as staging:
            tensors = {"item_vectors": self.item_vectors, "purchases": self.purchases}
            save_file(tensors, staging / "model.safetensors")
            document = {
                "weights": self.weights,
                "without_student": self.without_student,
                "content_last": self.content_last,
                "latest": self.latest,
                "student": self.student,
                "sha256": sha256(staging / "model.safetensors"),
            }
            (staging / "config.json").write_text(json.dumps(document, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "FittedRecommender":
        """Raises ArtifactError if the vectors do not match the hash in config.json."""
        document = read_json(folder / "config.json")
        if sha256(folder / "model.safetensors") != document.pop("sha256"):
            raise ArtifactError(
                f"{folder / 'model.safetensors'} does not match config.json: rerun the recommender step"
            )
        return cls(**document, **load_file(folder / "model.safetensors"))

    def parts(
        self, student: RetrievalModel, catalog: Catalog, represent: RepresentUsers | None = None
    ) -> Parts:
        """The parts, of weight 0 or not; `represent` as in RetrievalRanker."""
        return Parts(
            SequentialRanker(student.teacher),
            RetrievalRanker(student, self.item_vectors, represent),
            ContentRanker.fit(catalog, self.content_last),
        )

    def hybrids(self, parts: Mapping[str, Ranker]) -> dict[str, Ranker]:
        """The recommender, and the same without the student; neither if it would be a single part."""
        weights = {"recommender": self.weights, "recommender_without_student": self.without_student}
        return {
            name: HybridRanker(parts, each)
            for name, each in weights.items()
            if len(self.weights) > 1 and each
        }


def fit_recommender(
    student: LLMSRec, splits: Splits, config: RecommenderConfig, student_digest: str
) -> FittedRecommender:
    """Encode the items with the student and fit the weights of the parts to the validation targets."""
    fitted = FittedRecommender(
        weights={},
        without_student={},
        content_last=config.content_last,
        item_vectors=encode_items(student, splits.num_items),
        purchases=np.bincount(splits.train.items, minlength=splits.num_items + 1),
        latest=int(splits.sequences.timestamps.max()),
        student=student_digest,
    )
    rankers = fitted.parts(student, splits.catalog).by_name()
    scored = score_users(
        {name: rankers[name] for name in config.parts}, splits, "valid", config.seed
    )
    others: list[str] = [name for name in config.parts if name != "student"]
    compared = others and len(others) < len(config.parts)
    return replace(
        fitted,
        weights=fit_weights(scored),
        without_student=fit_weights(scored.only(others)) if compared else {},
    )
