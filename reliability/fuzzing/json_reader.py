"""A JSON reader without recursion that shares no code with the parsers: RFC 8259, and NaN and Infinity."""

import re
from dataclasses import dataclass, field
from typing import Any

MANY_DIGITS = 4000  # Python converts at most 4,300
HUGE = 10**MANY_DIGITS
_TOKEN = re.compile(
    r"[ \t\n\r]*(?:"
    r'"(?P<text>[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*)"'
    r"|(?P<whole>-?(?:0|[1-9][0-9]*))(?P<rest>(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<word>true|false|null|NaN|-?Infinity)"
    r"|(?P<mark>[\[\]{},:]))"
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {"true": True, "false": False, "null": None}


class NotJson(Exception):
    """The text is not a JSON value."""


@dataclass
class _Open:
    """An open container; `expects` is value, first (a value or the end), key, first_key, colon or more."""

    value: Any
    expects: str
    key: str = ""


@dataclass
class Reader:
    """Reads one text; `depth` is the deepest nesting so far."""

    depth: int = 0
    stack: list[_Open] = field(default_factory=lambda: [_Open([], "value")])

    def read(self, text: str) -> Any:
        """The value of a JSON text; raises NotJson."""
        place, end = 0, len(text.rstrip(" \t\n\r"))
        while place < end:
            token = _TOKEN.match(text, place)
            if token is None:
                raise NotJson
            place = token.end()
            if token["mark"]:
                self._mark(token["mark"])
            elif token["text"] is not None and self.stack[-1].expects in ("key", "first_key"):
                self.stack[-1].key, self.stack[-1].expects = _text(token["text"]), "colon"
            else:
                self._put(_scalar(token))
        (outermost,) = self.stack if len(self.stack) == 1 else [None]
        if outermost is None or len(outermost.value) != 1:
            raise NotJson
        return outermost.value[0]

    def _put(self, value: Any) -> None:
        top = self.stack[-1]
        if top.expects not in ("value", "first"):
            raise NotJson
        if isinstance(top.value, dict):
            top.value[top.key] = value
        else:
            top.value.append(value)
        top.expects = "more"

    def _mark(self, mark: str) -> None:
        top = self.stack[-1]
        if mark in "{[":
            value: Any = {} if mark == "{" else []
            self._put(value)
            self.stack.append(_Open(value, "first_key" if mark == "{" else "first"))
            self.depth = max(self.depth, len(self.stack) - 1)
        elif mark == ":" and top.expects == "colon":
            top.expects = "value"
        elif len(self.stack) > 1 and mark == "," and top.expects == "more":
            top.expects = "key" if isinstance(top.value, dict) else "value"
        elif len(self.stack) > 1 and mark in "]}" and top.expects in ("more", "first", "first_key"):
            if isinstance(top.value, dict) != (mark == "}"):
                raise NotJson
            self.stack.pop()
        else:
            raise NotJson


def _scalar(token: re.Match[str]) -> Any:
    if token["text"] is not None:
        return _text(token["text"])
    if token["word"]:
        word = token["word"]
        return _WORDS[word] if word in _WORDS else float(word)
    if token["rest"]:
        return float(token["whole"] + token["rest"])
    return _integer(token["whole"])


def _integer(digits: str) -> int:
    if len(digits) > MANY_DIGITS:
        return -HUGE if digits.startswith("-") else HUGE
    return int(digits)


def _text(raw: str) -> str:
    """The text without escapes; a pair of surrogates becomes one character."""
    if "\\" not in raw:
        return raw
    plain = _ESCAPE.sub(_unescape, raw)
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    return chr(int(escape[1:], 16)) if escape[0] == "u" else _LETTERS.get(escape, escape)
