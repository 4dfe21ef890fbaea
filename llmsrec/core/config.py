"""Read one section of params.yaml into a frozen dataclass: complete, typed, no hidden default."""

import contextlib
import dataclasses
import math
import re
import reprlib
import types
import typing
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml

from llmsrec.core.errors import ConfigError

T = TypeVar("T")

# PyYAML lets through what int(), date() and a dict say to `!!int x`, `2001-99-99` and `!!bool x`.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
_HALVES = re.compile("[\ud800-\udfff]")  # of a pair: no text, and nothing could write it
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 10, 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


@dataclasses.dataclass(frozen=True)
class Range:
    """What a number may be, both ends included."""

    low: int | float
    high: int | float = math.inf


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Amount = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]

# YAML 1.1 reads 1e-4 as a text; dates are quoted, since DVC's templates refuse YAML's own.
_FROM_TEXT: dict[Any, Any] = {float: float, date: date.fromisoformat}


def load_section(cls: type[T], section: str, params: Path = Path("params.yaml")) -> T:
    """The section of params.yaml that configures `cls`."""
    return from_mapping(cls, read_section(section, params), where=f"{params}: {section}")


def read_section(section: str, params: Path) -> dict[str, Any]:
    """A section as it stands."""
    try:
        document = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{params} does not exist: run from the project's root") from None
    except _NOT_YAML as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{params} is not YAML: {reason}") from None
    if not isinstance(document, dict) or not isinstance(document.get(section), dict):
        raise ConfigError(f"{params} has no section '{section}:'; presets/ shows a complete file")
    return document[section]


def from_mapping(cls: type[T], values: dict[str, Any], where: str) -> T:
    """`cls(**values)`, refusing unknown, missing and mistyped keys by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            shown = key if isinstance(key, str) else _shown(key)
            raise ConfigError(f"{where}.{shown} is unknown; known keys: {', '.join(names)}")
    for name in names:
        if name not in values:
            raise ConfigError(f"{where}.{name} is missing; presets/ shows a complete file")
    checked = {name: _check(values[name], hints[name], f"{where}.{name}") for name in names}
    try:
        return cls(**checked)
    except ValueError as error:  # raised by a __post_init__
        raise ConfigError(f"{where}: {error}") from None


def _check(value: Any, hint: Any, where: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            known = ", ".join(map(str, options))
            raise ConfigError(f"{where} is {_shown(value)}; choose from {known}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        (hint,) = [option for option in options if option is not type(None)]
    if origin is tuple:
        return _each(value, options[0], where)
    if typing.get_origin(hint) is Annotated:
        return _within(hint.__metadata__[0], _check(value, hint.__origin__, where), where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    if hint in _FROM_TEXT and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return _FROM_TEXT[hint](value)
    # `isinstance` would take true for 1, and a moment for a date
    if type(value) is not hint or (hint is str and _HALVES.search(value)):
        raise ConfigError(f"{where} is {_shown(value)}; expected {_name(hint)}")
    return value


def _each(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    """A list, all of one kind."""
    if not isinstance(value, list):
        raise ConfigError(f"{where} is {_shown(value)}; expected a list")
    return tuple(_check(part, hint, f"{where}[{place}]") for place, part in enumerate(value))


def _within(allowed: Range, value: int | float, where: str) -> int | float:
    if allowed.low <= value <= allowed.high:
        return value
    upper = "" if allowed.high == math.inf else f" and at most {allowed.high:g}"
    raise ConfigError(f"{where} is {_shown(value)}; it must be at least {allowed.low:g}{upper}")


def _shown(value: Any) -> str:
    """In an error; not endless, as numbers, and lists of the same list, can be."""
    try:
        return _SHORT.repr(value)[:500]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def _name(hint: Any) -> str:
    return {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        date: 'a date such as "1995-07-16"',
    }.get(hint, str(hint))
