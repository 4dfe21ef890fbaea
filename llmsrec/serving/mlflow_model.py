"""The model bundle as an MLflow model from code: MLflow runs this file to load the model and unpickles nothing.

Input: a table with a column `history` (parent_asins, oldest first: a list, a text separated by commas, or null) and
optionally `timestamps` (a list of ms, or null). Output: `items`, `scores` and `titles` of each row, best first;
`source` (recommender, or popularity if no item of the history is known) and `unknown`, the items that were ignored.
Parameters: `k`, and `new_items` with `new_titles` for items that are not in the bundle's catalog. Everything else is
refused with status 400.
"""

import logging
import threading
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
    from llmsrec.serving.requests import UserHistory

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
        self.extended: tuple[Any, Recommender] = (None, self.recommender)
        self.lock = threading.Lock()
        logging.getLogger("mlflow.models.utils").addFilter(_refuse_what_is_ignored)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Recommendations in the row order of `model_input`; a bad request raises MlflowException."""
        from llmsrec.serving.requests import number_of_items

        options = params or {}
        try:
            with self.lock:
                recommender = self._with_new_items(
                    options.get("new_items", []), options.get("new_titles", [])
                )
                k = number_of_items(options.get("k", 10), recommender.catalog.num_items)
                recommendations = recommender.recommend_batch(parse_requests(model_input), k)
        except LLMSRecError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return to_frame(recommendations)

    def _with_new_items(self, items: Any, titles: Any) -> "Recommender":
        """The same new items are encoded only once."""
        from llmsrec.serving.requests import new_items

        added = new_items(items, titles)
        if added.new_items and added != self.extended[0]:
            self.extended = (added, self.recommender.with_new_items(added))
        return self.extended[1] if added.new_items else self.recommender


def _refuse_what_is_ignored(record: logging.LogRecord) -> bool:
    """MLflow ignores unknown columns and parameters with a warning, which a client does not see."""
    if "ignored" in record.getMessage():
        raise MlflowException.invalid_parameter_value(
            f"{record.getMessage()} The request is refused: remove or rename them."
        )
    return True


def parse_requests(rows: pd.DataFrame) -> "list[UserHistory]":
    """A UserHistory for each row; raises DataError."""
    from llmsrec.serving.requests import user_history

    users = []
    for number, row in enumerate(rows.to_dict("records")):
        known = {str(key): cell for key, cell in row.items() if not _missing(cell)}
        history = known.get("history", [])
        if isinstance(history, str):
            known["history"] = [item.strip() for item in history.split(",") if item.strip()]
        users.append(user_history({"history": [], **known}, f"row {number}"))
    return users


def _missing(cell: Any) -> bool:
    """None, or the NaN of pandas for a row without this key."""
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


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
