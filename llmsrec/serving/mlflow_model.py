"""The model bundle as an MLflow model, from code: this file is run where the model is loaded, nothing is unpickled.

A table with a column `history` goes in (parent_asins, oldest first: a list, or a text with commas between) and, if
wanted, `timestamps` (ms). Out come `items`, `scores` and `titles` of each row, best first; `source` (student, or
popularity where nothing of the history is known) and `unknown`, the items that were left out. Parameters: `k`, and
`new_items` with `new_titles`, what the store sells since the bundle was made.
"""

import threading
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from llmsrec.core.errors import LLMSRecError

if TYPE_CHECKING:  # loading a model takes torch, saving one does not
    from llmsrec.serving.recommender import Recommendations, Recommender

NEEDS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "pandas",
         "pyarrow", "jaxtyping", "pyyaml")  # fmt: skip
KEPT = "user_cache_mb"
SIGNATURE = ModelSignature(
    inputs=Schema(
        [ColSpec(AnyType(), "history"), ColSpec(AnyType(), "timestamps", required=False)]
    ),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "items"),
            ColSpec(Array(DataType.double), "scores"),
            ColSpec(Array(DataType.string), "titles"),
            ColSpec(DataType.string, "source"),
            ColSpec(Array(DataType.string), "unknown"),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("k", "long", 10),
            ParamSpec("new_items", "string", [], shape=(-1,)),
            ParamSpec("new_titles", "string", [], shape=(-1,)),
        ]
    ),
)


class ServedModel(PythonModel):  # type: ignore[misc]
    """One request at a time: the server calls from several threads."""

    def load_context(self, context: PythonModelContext) -> None:
        from llmsrec.serving.recommender import Recommender

        bundle, kept = Path(context.artifacts["bundle"]), float(context.model_config[KEPT])
        self.recommender = Recommender.load(bundle, user_cache_mb=kept)
        self.extended: tuple[dict[str, str], Recommender] = ({}, self.recommender)
        self.lock = threading.Lock()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        asked = params or {}
        try:
            with self.lock:
                recommender = self._beside(asked.get("new_items", []), asked.get("new_titles", []))
                answers = recommender.answer(parse_requests(model_input), int(asked.get("k", 10)))
        except LLMSRecError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return table(answers)

    def _beside(self, items: Iterable[str], titles: Iterable[str]) -> "Recommender":
        """Encoded once for as long as the same items are new."""
        ids, texts = list(items), list(titles)
        if len(ids) != len(texts):
            raise MlflowException.invalid_parameter_value(
                f"{len(texts)} new_titles for {len(ids)} new_items: give one for each"
            )
        new = dict(zip(ids, texts, strict=True))
        if new and new != self.extended[0]:
            self.extended = (new, self.recommender.with_new_items(new))
        return self.extended[1] if new else self.recommender


def parse_requests(rows: pd.DataFrame) -> list[Any]:
    from llmsrec.serving.recommender import UserHistory

    times = rows["timestamps"] if "timestamps" in rows else [None] * len(rows)
    return [
        UserHistory(_items(history), None if _missing(moments) else [int(m) for m in moments])
        for history, moments in zip(rows["history"], times, strict=True)
    ]


def _items(history: Any) -> list[str]:
    if _missing(history):
        return []
    parts = history.split(",") if isinstance(history, str) else map(str, history)
    return [item.strip() for item in parts if item.strip()]


def _missing(cell: Any) -> bool:
    """None, or what pandas puts where a row has no such key."""
    return cell is None or isinstance(cell, float)


def table(answers: "list[Recommendations]") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "items": [item.item_id for item in answer.items],
                "scores": [item.score for item in answer.items],
                "titles": [item.title for item in answer.items],
                "source": answer.source,
                "unknown": answer.unknown,
            }
            for answer in answers
        ]
    )


def save(bundle: Path, folder: Path, example: list[str], user_cache_mb: float) -> None:
    """The model bundle, and the code that it was made with, as a folder that MLflow serves."""
    mlflow.pyfunc.save_model(
        path=folder,
        python_model=__file__,
        artifacts={"bundle": str(bundle)},
        code_paths=[str(Path(__file__).parent)],
        signature=SIGNATURE,
        model_config={KEPT: user_cache_mb},
        input_example=(pd.DataFrame({"history": [example, []]}), {"k": 3}),
        pip_requirements=[f"{name}=={version(name)}" for name in NEEDS],
    )


mlflow.models.set_model(ServedModel())
