"""Sections of params.yaml: as they are, with odd keys and values, and damaged; and what must become of them.

The rules once more: YAML (read here by its C parser), all keys of the dataclass and no other, each value of its type.
"""

import types
import typing
from datetime import date
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, Union

import yaml

from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.llm.backbone import BackboneConfig
from llmsrec.parsing.ingest import InteractionsConfig
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.relational.sql_engine import RelationalConfig
from llmsrec.report.gates import GatesConfig
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.serving.promotion import PromotionConfig
from llmsrec.stages.export_embeddings import EmbeddingsConfig
from llmsrec.stages.pack_bundle import ServingConfig
from llmsrec.student.config import StudentConfig
from reliability.fuzzing.inputs import Made
from reliability.fuzzing.mutations import mutate

SECTIONS: dict[str, type[Any]] = {
    "interactions": InteractionsConfig,
    "relational": RelationalConfig,
    "splits": SplitsConfig,
    "teacher": TeacherConfig,
    "backbone": BackboneConfig,
    "student": StudentConfig,
    "embeddings": EmbeddingsConfig,
    "evaluation": EvaluationConfig,
    "gates": GatesConfig,
    "promotion": PromotionConfig,
    "serving": ServingConfig,
}
# They differ over tabs, byte order marks, half pairs and `[p?]`: there either outcome will do.
READERS = (yaml.CSafeLoader, yaml.SafeLoader)
PARAMS = Path(__file__).parents[2] / "params.yaml"
ODD_SETTINGS = {
    "nothing": "", "null": "null", "yes": "yes", "one": "1", "zero": "0", "negative": "-1", "decimal": "1.0",
    "text": "x", "quoted number": "'1'", "exponent": "1e-4", "NaN": ".nan", "NaN as text": "nan",
    "infinite": ".inf", "-infinite": "-.inf", "400 digits": "9" * 400, "5000 digits": "9" * 5000,
    "5000 hex digits": "0x" + "F" * 5000, "octal": "017", "sexagesimal": "1:30", "binary without digits": "0b_",
    "hex without digits": "0x_", "a point": "._", "date": "2001-02-03", "no date": "2001-99-99",
    "quoted date": "'2001-02-03'", "week date": "2001-W05-1", "moment": "2001-02-03 04:05:06",
    "no moment": "2001-02-03 99:05:06", "tag int": "!!int x", "tag empty int": "!!int ''",
    "tag float": "!!float x", "tag bool": "!!bool x", "tag timestamp": "!!timestamp x",
    "tag binary": "!!binary a", "tag set": "!!set {a, b}", "tag omap": "!!omap [a: 1]",
    "tag pairs": "!!pairs [a: 1]", "tag python": "!!python/object/apply:os.getcwd []", "unknown tag": "!x y",
    "anchor to itself": "&a [*a]", "no anchor": "*a", "mapping to itself": "&a {a: *a}",
    "merged with itself": "&a {<<: *a}", "merged with a list": "{<<: [1]}", "list": "[1, 2]",
    "list of lists": "[[1]]", "list of nulls": "[null]", "empty list": "[]", "mapping": "{a: 1}",
    "list as key": "{[a]: 1}", "mapping as key": "{{a: 1}: 1}", "deep": "[" * 100 + "]" * 100,
    "very deep": "[" * 500 + "]" * 500, "unclosed": "[1", "tab": "\tx", "unclosed quote": "'x",
    "letters": '"Zoë \\u2028 \\ud800"', "NUL": '"\\0"', "long": "x" * 5000, "block": "|\n    a\n    b",
    "doubled, and so on": "[&a [x, x, x, x], &b [*a, *a, *a, *a], &c [*b, *b, *b, *b], &d [*c, *c, *c], [*d, *d]]",
}  # fmt: skip


def _sections() -> dict[str, list[tuple[str, str]]]:
    document = yaml.load(PARAMS.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return {
        section: [(key, _flow(value)) for key, value in document[section].items()]
        for section in SECTIONS
    }


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=yaml.CSafeDumper, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


TEXTS = _sections()


def settings_file(draws: Random, spice: float) -> Made:
    """A params.yaml of one section."""
    section = draws.choice(list(SECTIONS))
    pairs = list(TEXTS[section])
    kinds: list[str] = []
    if draws.random() < 0.7:
        for _ in range(draws.choice([1, 1, 2])):
            kinds.append(_change(draws, pairs))
    lines = [f"{section}:", *(f"  {key}: {value}" for key, value in pairs)]
    text = "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")
    if draws.random() < 0.25:
        text, names = mutate(text, draws)
        kinds += names
    return text, kinds


def _change(draws: Random, pairs: list[tuple[str, str]]) -> str:
    what = draws.choice(
        ["value"] * 6 + ["missing", "unknown", "twice", "shuffled", "value of another"]
    )
    place = draws.randrange(len(pairs)) if pairs else 0
    odd = draws.choice(list(ODD_SETTINGS))
    if not pairs or what == "unknown":
        key = draws.choice(
            ["seeds", "5", "null", "true", "''", "[a]", "? x", "&a b", "<<", "2001-99-99"]
        )
        pairs.insert(place, (key, draws.choice(["1", ODD_SETTINGS[odd]])))
    elif what == "value":
        pairs[place] = (pairs[place][0], ODD_SETTINGS[odd])
        return odd
    elif what == "missing":
        del pairs[place]
    elif what == "twice":
        pairs.append((pairs[place][0], ODD_SETTINGS[odd]))
    elif what == "shuffled":
        draws.shuffle(pairs)
    else:
        pairs[place] = (pairs[place][0], draws.choice(pairs)[1])
    return what


def allowed(content: bytes, section: str, reader: Any) -> bool:
    """Whether this section may be taken; its own __post_init__ may still refuse."""
    try:
        document = yaml.load(content.decode("utf-8"), reader)
        values = document[section] if isinstance(document, dict) else None
    except Exception:  # whatever it is, it is no file of settings
        return False
    hints = typing.get_type_hints(SECTIONS[section], include_extras=True)
    if not isinstance(values, dict) or set(values) != set(hints):
        return False
    return all(fits(values[name], hint) for name, hint in hints.items())


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of YAML can stand for this type."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in options)
    if origin is tuple:
        return type(value) is list and all(fits(part, options[0]) for part in value)
    if origin is Annotated:
        low, high = options[1].low, options[1].high
        number = value if options[0] is int else _float(value)
        return fits(value, options[0]) and low <= number <= high
    if hint is float:
        return _float(value) is not None
    if hint is date:
        return type(value) is date or (type(value) is str and _is_date(value))
    return value is None if hint is type(None) else type(value) is hint


def _float(value: Any) -> Any:
    """None for what is none."""
    try:
        return float(value) if type(value) in (int, float, str) else None
    except (ValueError, OverflowError):
        return None


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
