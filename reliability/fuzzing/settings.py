"""Sections of params.yaml and operations.yaml: as they are, with odd keys and values, and damaged.

The rule for a section that is taken: its keys are those of the project's file, its values are those that another
parser of YAML reads, and each has the type of the project's value. A section whose values nobody changed is taken.
"""

from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import yaml

from llmsrec.core.config import OPERATIONS, PARAMS, SEEDED, load_section
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.llm.backbone import BackboneConfig
from llmsrec.parsing.ingest import InteractionsConfig
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.recommender.fitted import RecommenderConfig
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
    "recommender": RecommenderConfig,
    "embeddings": EmbeddingsConfig,
    "evaluation": EvaluationConfig,
    "gates": GatesConfig,
    "promotion": PromotionConfig,
    "serving": ServingConfig,
}
# They differ over tabs, byte order marks, half pairs and `[p?]`: there either outcome will do.
READERS = (yaml.CSafeLoader, yaml.SafeLoader)
ROOT = Path(__file__).parents[2]
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


def file_of(section: str) -> Path:
    """The project's file that holds the section."""
    return ROOT / (OPERATIONS if section in ("promotion", "serving") else PARAMS)


def _pairs(section: str) -> list[tuple[str, str]]:
    document = yaml.load(file_of(section).read_text(encoding="utf-8"), yaml.CSafeLoader)
    return [(key, _flow(value)) for key, value in document[section].items()]


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=yaml.CSafeDumper, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


DEFAULTS = {name: load_section(cls, name, file_of(name)) for name, cls in SECTIONS.items()}
TEXTS = {section: _pairs(section) for section in SECTIONS}


def settings_file(draws: Random, anomaly_rate: float) -> Made:
    """A params.yaml of one section."""
    section = draws.choice(list(SECTIONS))
    pairs = list(TEXTS[section])
    kinds: list[str] = []
    if draws.random() < 0.7:
        for _ in range(draws.choice([1, 1, 2])):
            kinds.append(_change(draws, pairs))
    lines = ["seed: 0"] if section in SEEDED else []
    lines += [f"{section}:", *(f"  {key}: {value}" for key, value in pairs)]
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


def read(content: bytes, section: str, reader: Any) -> dict[str, Any] | None:
    """The values of the section as this YAML reader gives them; None if there are none, or a key occurs twice."""
    try:
        text = content.decode("utf-8")
        if _repeats_a_key(yaml.compose(text, reader)):
            return None
        document = yaml.load(text, reader)
        values = document[section] if isinstance(document, dict) else None
    except Exception:  # any error: the file holds no settings
        return None
    if isinstance(values, dict) and section in SEEDED and "seed" in document:
        values = {**values, "seed": document["seed"]}
    return values if isinstance(values, dict) else None


def _repeats_a_key(root: yaml.Node | None) -> bool:
    """Whether a mapping of the document has a key twice; aliases make a graph of its nodes."""
    waiting, known = [root] if root else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in known or isinstance(node, yaml.ScalarNode):
            continue
        known.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                return True
        waiting += [
            each for pair in node.value for each in (pair if isinstance(pair, tuple) else [pair])
        ]
    return False


def same(value: Any, stated: Any) -> bool:
    """Whether the value of a config is what its file states; there numbers and dates may be texts."""
    try:
        if isinstance(value, tuple):
            return list(value) == stated
        if isinstance(value, date):
            return str(value) == str(stated) or value == date.fromisoformat(stated)
        if isinstance(value, float):
            return repr(value) == repr(float(stated)) and type(stated) is not bool
    except (TypeError, ValueError, OverflowError):
        return False
    return type(value) is type(stated) and value == stated


def unchanged(content: bytes, section: str, reader: Any) -> bool:
    """Whether the file states the project's values, so that the section must be taken."""
    usual, values = vars(DEFAULTS[section]), read(content, section, reader) or {}
    return values.keys() == usual.keys() and all(same(usual[key], values[key]) for key in usual)


def may_be_taken(config: Any, content: bytes, section: str, reader: Any) -> bool:
    """Whether each key of the section, and no other, has the file's value and the type of the project's value."""
    usual, values = vars(DEFAULTS[section]), read(content, section, reader) or {}
    return values.keys() == usual.keys() and all(
        same(value, values[key])
        and (value is None or usual[key] is None or type(value) is type(usual[key]))
        for key, value in vars(config).items()
    )
