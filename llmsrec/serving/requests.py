"""What a request for recommendations may contain: one check for the server, the command line and the Python API."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from llmsrec.core.config import from_mapping
from llmsrec.core.errors import ConfigError, DataError
from llmsrec.parsing.time_units import unit_of

# 1973-03-03 to 2286-11-20; other units of these years do not overlap with milliseconds
EARLIEST_MS, LATEST_MS = 10**11, 10**13


def wrong_timestamp(value: Any) -> str | None:
    """What was expected in place of `value`, if it is no number of milliseconds."""
    expected = "expected milliseconds since 1970-01-01 UTC as a whole number, such as 1700000000000"
    if not _is_whole(value):
        return expected
    if EARLIEST_MS <= value < LATEST_MS:
        return None
    unit = unit_of(int(value), EARLIEST_MS, LATEST_MS)
    return f"it looks like {unit}; {expected}" if unit else expected


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _timestamp(value: Any) -> int:
    if reason := wrong_timestamp(value):
        raise PydanticCustomError("timestamp", "{reason}", {"reason": reason})
    return int(value)


@dataclass(frozen=True)
class UserHistory:
    """item_ids, oldest first; without `timestamps` (ms) each has the last timestamp of the training data."""

    history: tuple[str, ...]
    timestamps: tuple[Annotated[int, BeforeValidator(_timestamp)], ...] | None

    def __post_init__(self) -> None:
        if self.timestamps is None:
            return
        if len(self.timestamps) != len(self.history):
            raise ValueError(
                f"{len(self.timestamps)} timestamps for a history of {len(self.history)}: give one for each, or none"
            )
        for place, (before, after) in enumerate(pairwise(self.timestamps), start=1):
            if after < before:
                raise ValueError(
                    f"timestamps[{place}] is earlier than the one before; the history must be ordered, oldest first"
                )


@dataclass(frozen=True)
class NewItems:
    """Items that are not in the catalog, and a title for each."""

    new_items: tuple[str, ...]
    new_titles: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.new_titles) != len(self.new_items):
            raise ValueError(
                f"{len(self.new_titles)} new_titles for {len(self.new_items)} new_items: give one for each"
            )
        if len(set(self.new_items)) < len(self.new_items):
            raise ValueError("new_items has an item twice")


def user_history(row: Mapping[str, Any], where: str) -> UserHistory:
    """The history of a mapping with the keys `history` and, optionally, `timestamps`. Raises DataError."""
    return _checked(UserHistory, {"timestamps": None, **row}, where)


def new_items(items: Any, titles: Any) -> NewItems:
    """Raises DataError where these are not two lists of texts of one length."""
    return _checked(NewItems, {"new_items": items, "new_titles": titles}, "the request")


def number_of_items(k: Any, num_items: int) -> int:
    """`k`, if it is a whole number between 1 and the number of items; raises DataError."""
    if not _is_whole(k):
        raise DataError(
            f"k is {k!r:.100}; expected a whole number between 1 and the {num_items} items"
        )
    if not 1 <= k <= num_items:
        raise DataError(f"k is {k}; it must lie between 1 and the {num_items} items")
    return int(k)


def _checked(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    plain = {
        key: value.tolist() if hasattr(value, "tolist") else value for key, value in values.items()
    }
    try:
        return from_mapping(cls, plain, where)
    except ConfigError as error:
        raise DataError(str(error)) from None
