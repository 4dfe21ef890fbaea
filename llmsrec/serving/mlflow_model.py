"""The model bundle as an MLflow model from code: MLflow runs this file to load the model and unpickles nothing.

Input: a table with a column `history` (parent_asins, oldest first; a list, or a text separated by commas) and
optionally `timestamps` (ms). Output: `items`, `scores` and `titles` of each row, best first; `source` (recommender, or
popularity if no item of the history is known) and `unknown`, the items that were ignored. Parameters: `k`, and
`new_items` with `new_titles` for items that are not in the bundle's catalog.
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

if TYPE_CHECKING:  # loading a model needs torch, saving one does not
    from llmsrec.serving.recommender import Recommendations, Recommender

REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "pandas",
         "pyarrow", "pydantic", "jaxtyping", "pyyaml", "scikit-learn", "scipy")  # fmt: skip
USER_CACHE_MB = "user_cache_mb"
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
    """Answers one request at a time; the server calls `predict` from several threads."""

    def load_context(self, context: PythonModelContext) -> None:
        from llmsrec.serving.recommender import Recommender

        bundle, cache_mb = Path(context.artifacts["bundle"]), context.model_config[USER_CACHE_MB]
        self.recommender = Recommender.load(bundle, user_cache_mb=float(cache_mb))
        self.extended: tuple[dict[str, str], Recommender] = ({}, self.recommender)
        self.lock = threading.Lock()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Recommendations in the row order of `model_input`; a bad request raises MlflowException."""
        options = params or {}
        try:
            with self.lock:
                recommender = self._with_new_items(
                    options.get("new_items", []), options.get("new_titles", [])
                )
                users, k = parse_requests(model_input), int(options.get("k", 10))
                recommendations = recommender.recommend_batch(users, k)
        except LLMSRecError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return to_frame(recommendations)

    def _with_new_items(self, items: Iterable[str], titles: Iterable[str]) -> "Recommender":
        """The same new items are encoded only once."""
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
    """A UserHistory for each row."""
    from llmsrec.serving.recommender import UserHistory

    times = rows["timestamps"] if "timestamps" in rows else [None] * len(rows)
    return [
        UserHistory(_items(history), None if _missing(stamps) else [int(t) for t in stamps])
        for history, stamps in zip(rows["history"], times, strict=True)
    ]


def _items(history: Any) -> list[str]:
    if _missing(history):
        return []
    parts = history.split(",") if isinstance(history, str) else map(str, history)
    return [item.strip() for item in parts if item.strip()]


def _missing(cell: Any) -> bool:
    """None, or the NaN of pandas for a row without this key."""
    return cell is None or isinstance(cell, float)


def to_frame(users: "list[Recommendations]") -> pd.DataFrame:
    """A row for each user."""
    return pd.DataFrame(
        [
            {
                "items": [item.item_id for item in user.items],
                "scores": [item.score for item in user.items],
                "titles": [item.title for item in user.items],
                "source": user.source,
                "unknown": user.unknown,
            }
            for user in users
        ]
    )


def save(bundle: Path, folder: Path, example: list[str], user_cache_mb: float) -> None:
    """Write the model bundle and the code of the library as a folder that MLflow serves."""
    mlflow.pyfunc.save_model(
        path=folder,
        python_model=__file__,
        artifacts={"bundle": str(bundle)},
        code_paths=[str(Path(__file__).parent)],
        signature=SIGNATURE,
        model_config={USER_CACHE_MB: user_cache_mb},
        input_example=(pd.DataFrame({"history": [example, []]}), {"k": 3}),
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
    )


mlflow.models.set_model(ServedModel())
