"""The Python API: what `import llmsrec` offers, without Dagster, DVC or a project folder.

Folders may be given as `str` or `Path`. Settings come from a params.yaml, section by section; keyword arguments
replace single values of it.
"""

import shutil
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd

from llmsrec.backbones.build import read_max_prompt_tokens, write_backbone
from llmsrec.bulk.ranker import BulkRanker
from llmsrec.bulk.recommendations import write_recommendations
from llmsrec.core.config import from_mapping, read_section
from llmsrec.core.errors import ArtifactError, ConfigError, DataError, LLMSRecError, SourceError
from llmsrec.core.files import sha256
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig, evaluate_all, summarise
from llmsrec.llm.backbone import Backbone, BackboneConfig, load_backbone
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.parsing.ingest import order_interactions
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking.ranker import Ranker
from llmsrec.recommender.fitted import RecommenderConfig, fit_recommender
from llmsrec.relational.interactions import Interactions
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.serving.recommender import Recommendation, Recommender
from llmsrec.serving.requests import number_of_items, wrong_timestamp
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.distributed import default_device
from llmsrec.training.loop import MetricLog

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "LLMSRec",
    "LLMSRecError",
    "Ranker",
    "Recommendation",
    "Recommender",
    "SASRec",
    "Sequences",
    "SourceError",
    "Splits",
    "build_backbone",
    "evaluate",
    "load",
    "load_splits",
    "rank_with",
    "recommend_all",
    "save",
    "split_interactions",
    "train_student",
    "train_teacher",
]  # fmt: skip

Folder = str | Path
ITEM_TEXTS = ("title", "description", "brand", "category")


def load(folder: Folder) -> Recommender:
    """The recommender of a trained dataset (`artifacts/<dataset>`) or of a model bundle.

    Raises ArtifactError where the folder lacks a part."""
    return Recommender.load(Path(folder), default_device())


def recommend_all(folder: Folder, file: Folder, k: int = 10) -> None:
    """Write the best `k` items of every user of a trained dataset (`artifacts/<dataset>`) to a Parquet file.

    The columns are user_id, rank, item_id and score, ordered by user_id and rank. All purchases of a user are the
    history, and are not recommended. After a kill, the same call continues from a hidden folder beside `file`.
    Raises ArtifactError where the folder lacks a part and DataError where `k` is not in 1..number of items."""
    recommender, splits = load(folder), load_splits(Path(folder) / "splits")
    k = number_of_items(k, splits.num_items)
    file = Path(file)
    scratch = file.with_name(f".{file.name}.shards")
    ranker = BulkRanker(recommender.parts, recommender.fitted.weights)
    write_recommendations(ranker, splits, k, file, scratch)
    shutil.rmtree(scratch)


def load_splits(folder: Folder) -> Splits:
    """The splits of a dataset, for example `artifacts/<dataset>/splits`."""
    return Splits.load(Path(folder))


def split_interactions(
    interactions: pd.DataFrame,
    items: pd.DataFrame | None = None,
    *,
    params: Folder = "params.yaml",
    tie_seed: int = 0,
    **changes: Any,
) -> Splits:
    """Leave-one-out splits of a data frame with the columns user_id, item_id and timestamp (ms UTC).

    `items` has item_id and any of title, description, brand, category. `changes` replace values of the section
    `splits`. Purchases of one moment are ordered by a hash that `tie_seed` decides (specification 1).
    Raises DataError where a column or a value is missing, a timestamp is not in ms, or nothing is left."""
    config: SplitsConfig = _config(SplitsConfig, "splits", params, changes)
    rows = _columns(interactions, ["user_id", "item_id", "timestamp"], "interactions")
    _check_values(rows)
    count = len(rows)
    rows = rows.astype({"user_id": str, "item_id": str, "timestamp": "int64"}).assign(
        rating=np.full(count, np.nan),
        source_order=np.arange(count),
        part=pd.array([pd.NA] * count, dtype="Int64"),
    )
    texts = (
        pd.DataFrame({"item_id": []}) if items is None else _columns(items, ["item_id"], "items")
    )
    texts = texts.reindex(columns=["item_id", *ITEM_TEXTS]).astype(object)
    connection = ibis.duckdb.connect()
    parsed = connection.create_table("parsed", rows)
    described = connection.create_table("items", ibis.memtable(texts, schema=_TEXT_SCHEMA))
    return split(Interactions(order_interactions(parsed, tie_seed), described), config)


_TEXT_SCHEMA = dict.fromkeys(("item_id", *ITEM_TEXTS), "string")


def train_teacher(splits: Splits, *, params: Folder = "params.yaml", **changes: Any) -> SASRec:
    """SASRec trained on the training histories; `changes` replace values of the section `teacher`."""
    from llmsrec.sequential.trainer import train_teacher as train

    config: TeacherConfig = _config(TeacherConfig, "teacher", params, changes)
    return train(splits, config, MetricLog(), Checkpoints(None, ""), default_device())


def build_backbone(
    splits: Splits, folder: Folder, *, params: Folder = "params.yaml", **changes: Any
) -> Backbone:
    """The frozen language model of the section `backbone`, written into `folder` and loaded.

    `model="small"` trains a small model on the item texts; a folder or hub name is referred to. Raises ConfigError or
    ArtifactError if the model is incomplete or cannot read prompts of `student.max_prompt_tokens`."""
    config: BackboneConfig = _config(BackboneConfig, "backbone", params, changes)
    write_backbone(config, splits.catalog, Path(folder), read_max_prompt_tokens(Path(params)))
    return load_backbone(Path(folder), default_device())


def train_student(
    splits: Splits,
    teacher: SASRec,
    backbone: Backbone,
    *,
    params: Folder = "params.yaml",
    **changes: Any,
) -> LLMSRec:
    """LLM-SRec trained to match the teacher; `changes` replace values of the section `student`."""
    from llmsrec.student.trainer import train_student as train

    config: StudentConfig = _config(StudentConfig, "student", params, changes)
    return train(splits, teacher, backbone, config, MetricLog(), Checkpoints(None, ""))


def rank_with(model: SASRec | LLMSRec, splits: Splits) -> Ranker:
    """A trained teacher or student as a ranker of the items of `splits`."""
    if isinstance(model, SASRec):
        return SequentialRanker(model)
    return RetrievalRanker(model, encode_items(model, splits.num_items))


def evaluate(
    rankers: dict[str, Ranker], splits: Splits, *, params: Folder = "params.yaml", **changes: Any
) -> pd.DataFrame:
    """Ranking metrics on the test users, among the stored candidates and among all items.

    One row for each ranker, protocol and metric: value, and the bounds low and high of its 95% bootstrap interval."""
    config: EvaluationConfig = _config(EvaluationConfig, "evaluation", params, changes)
    found = evaluate_all(rankers, splits, config)
    systems = summarise(found.table, splits, config, "", found.user_indices)["systems"]
    return pd.DataFrame(
        [
            {"system": system, "protocol": protocol, "metric": metric, **interval}
            for system, protocols in systems.items()
            for protocol, metrics in protocols.items()
            for metric, interval in metrics.items()
        ]
    )


def save(
    student: LLMSRec,
    splits: Splits,
    folder: Folder,
    *,
    params: Folder = "params.yaml",
    **changes: Any,
) -> None:
    """Fit the recommender and write all beside the backbone, so that `load(folder)` recommends.

    Written are splits, teacher, student and recommender; `changes` replace values of the section `recommender`.

    Raises ArtifactError where `folder/backbone` is not the student's backbone (`build_backbone` writes it)."""
    folder = Path(folder)
    if load_backbone(folder / "backbone").digest != student.backbone.digest:
        raise ArtifactError(f"{folder / 'backbone'} is not the backbone of this student")
    splits.save(folder / "splits")
    student.teacher.save(folder / "teacher")
    student.save_pretrained(folder / "student")
    config: RecommenderConfig = _config(RecommenderConfig, "recommender", params, changes)
    digest = sha256(folder / "student" / "model.safetensors")
    fit_recommender(student, splits, config, digest).save(folder / "recommender")


def _config(kind: type, section: str, params: Folder, changes: dict[str, Any]) -> Any:
    values = read_section(section, Path(params)) | changes
    return from_mapping(kind, values, where=f"{params}: {section}")


def _check_values(interactions: pd.DataFrame) -> None:
    for column, values in interactions.items():
        if (missing := values.isna().to_numpy()).any():
            raise DataError(f"interactions: {column} is missing in row {missing.argmax()}")
    for row, value in enumerate(interactions["timestamp"].tolist()):
        if reason := wrong_timestamp(value):
            raise DataError(f"interactions: timestamp is {value!r:.100} in row {row}; {reason}")


def _columns(frame: pd.DataFrame, needed: list[str], name: str) -> pd.DataFrame:
    if missing := [column for column in needed if column not in frame]:
        raise DataError(f"{name} lacks the columns {', '.join(missing)}; it has {list(frame)}")
    return frame[needed] if name == "interactions" else frame
