"""Read one section of params.yaml or operations.yaml into a frozen dataclass: complete, typed, no hidden default."""

import contextlib
import dataclasses
import functools
import reprlib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from llmsrec.core.errors import ConfigError
from llmsrec.core.names import check_document

T = TypeVar("T")

PARAMS, OPERATIONS = Path("params.yaml"), Path("operations.yaml")
# sections that share the top-level `seed`
SEEDED = ("teacher", "backbone", "student", "recommender")

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]

# PyYAML passes on the errors of int(), date() and dict for `!!int x`, `2001-99-99` and `!!bool x`.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
# A limit of length makes pydantic refuse half a pair of surrogates, which no file can hold.
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, str_max_length=10**6)
# YAML 1.1 reads 1e-4 as a text and knows no tuples; dates are quoted, since DVC's templates refuse YAML's own.
_CONVERSIONS: dict[str, tuple[type, Any]] = {
    "float_type": (str, float),
    "date_type": (str, date.fromisoformat),
    "tuple_type": (list, tuple),
}
_MESSAGES = {  # by pydantic's type of error
    "missing": "{path} is missing; see docs/parameters.md",
    "int_type": "{path} is {value}; expected a whole number",
    "float_type": "{path} is {value}; expected a number",
    "string_type": "{path} is {value}; expected a text",
    "string_unicode": "{path} is {value}; expected a text",
    "bool_type": "{path} is {value}; expected true or false",
    "date_type": '{path} is {value}; expected a date such as "1995-07-16"',
    "tuple_type": "{path} is {value}; expected a list",
    "literal_error": "{path} is {value}; choose from {expected}",
    "greater_than_equal": "{path} is {value}; it must be at least {ge:g}",
    "less_than_equal": "{path} is {value}; it must be at most {le:g}",
}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 10, 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


def load_section(cls: type[T], section: str, params: Path = PARAMS) -> T:
    """The section of `params` that configures `cls`; a ConfigError is one line that names file and key."""
    return from_mapping(cls, read_section(section, params), where=f"{params}: {section}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which PyYAML would take the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value:.100}' occurs twice", key.start_mark
                )
            names.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_document(params: Path) -> dict[Any, Any]:
    """All sections of a file of settings, of which only the names of datasets are checked."""
    try:
        document = yaml.load(params.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{params} does not exist: run from the project's root") from None
    except _NOT_YAML as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{params} is not YAML: {reason}") from None
    if not isinstance(document, dict):
        return {}
    check_document(document, str(params))
    return document


def read_section(section: str, params: Path) -> dict[Any, Any]:
    """The mapping below `section`, unchecked; those of the models contain the common `seed`."""
    document = read_document(params)
    values = document.get(section)
    if not isinstance(values, dict):
        raise ConfigError(f"{params} has no section '{section}:'; see docs/parameters.md")
    if section not in SEEDED:
        return values
    if "seed" in values or "seed" not in document:
        raise ConfigError(
            f"{params}: {section}.seed is read from the top-level key 'seed'; set it there"
        )
    return values | {"seed": document["seed"]}


def from_mapping(cls: type[T], values: Any, where: str) -> T:
    """`cls(**values)`; a ConfigError names the key that is unknown, missing, of another type or out of range."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {_shown(values)}; expected {', '.join(names)}")
    for key in values:
        if key not in names:
            path = f"{where}.{key if isinstance(key, str) else _shown(key)}"
            raise ConfigError(f"{path} is unknown; known keys: {', '.join(names)}")
    try:
        return cls(**_checked(_model(cls), values))  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(_message(error, where)) from None
    except ValueError as error:  # raised by a __post_init__
        raise ConfigError(f"{where}: {error}") from None


@functools.cache
def _model(cls: type[Any]) -> type[BaseModel]:
    """The fields of the dataclass `cls` as a strict pydantic model."""
    hints = get_type_hints(cls, include_extras=True)
    fields: Any = {field.name: (hints[field.name], ...) for field in dataclasses.fields(cls)}
    return create_model(cls.__name__, __config__=_STRICT, **fields)


def _checked(model: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(model.model_validate(values))
    except ValidationError as failed:
        converted = dict(values)
        for error in failed.errors():
            source, convert = _CONVERSIONS.get(error["type"], (None, str))
            if type(error["input"]) is source:
                with contextlib.suppress(ValueError):
                    converted[str(error["loc"][0])] = convert(error["input"])
        return dict(model.model_validate(converted))


def _message(failed: ValidationError, where: str) -> str:
    """One line: on the first key that is missing, or else on the first wrong value."""
    error = min(failed.errors(), key=lambda error: error["type"] != "missing")
    key, *places = error["loc"]
    context = {"expected": "", **error.get("ctx", {})}
    context["expected"] = context["expected"].replace("'", "").replace(" or ", ", ")
    return _MESSAGES.get(error["type"], "{path} is {value}; {message}").format(
        path=f"{where}.{key}" + "".join(f"[{place}]" for place in places),
        value=_shown(error["input"]),
        message=error["msg"],
        **context,
    )


def _shown(value: Any) -> str:
    """At most 500 letters; numbers, and lists of the same list, can be endless."""
    try:
        return _SHORT.repr(value)[:500]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
