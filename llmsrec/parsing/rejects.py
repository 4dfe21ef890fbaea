"""Counts of the lines of a raw file, and the rule by which a file with too many malformed lines is refused."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from llmsrec.core.errors import DataError
from llmsrec.parsing.line_reader import ParsedBlock
from llmsrec.parsing.reviews import ITEM_NAMES, USER_NAMES

MAX_SHOWN_CHARS = 100  # of a line in a message
_LINES = "expected one JSON object per line; a file of comma separated values is named .csv"
_ID = "an id is a text that is not empty; in JSON write numbers in quotes"
_TIME = "expected a whole number of milliseconds since 1970 (UTC) such as 1700000000000"
_ADVICE = {
    "broken JSON": _LINES,
    "not an object": _LINES,
    "broken CSV": "a quote at the start of a value must be closed; a quote inside a quoted value is doubled",
    "wrong number of columns": "expected as many values as the header has; a value with the separator is quoted",
    "invalid UTF-8": "save the file as UTF-8 (for example `iconv -f WINDOWS-1252 -t UTF-8`)",
    "NUL byte": "the file is damaged, or no UTF-8 text: write it again",
    "missing user_id": f"expected a field {' or '.join(USER_NAMES)}; {_ID}",
    "missing parent_asin": f"expected a field {' or '.join(ITEM_NAMES)}; {_ID}",
    "mistyped user_id": _ID,
    "mistyped parent_asin": _ID,
    "missing timestamp": f"expected a field timestamp: {_TIME}",
    "mistyped timestamp": f"{_TIME}: convert dates, decimal numbers and numbers in quotes",
    "timestamp in seconds": "timestamps look like seconds; expected milliseconds: multiply them by 1000",
    "timestamp in microseconds": "timestamps look like microseconds; expected milliseconds: divide them by 1000",
    "timestamp in nanoseconds": "timestamps look like nanoseconds; expected milliseconds: divide them by 1000000",
    "absurd timestamp": f"{_TIME}, from interactions.earliest to interactions.latest",
}


class LineCounts:
    """Counts what becomes of the lines of one file; blank lines and a CSV's header do not count."""

    def __init__(self, file: str, rejects: pq.ParquetWriter | None = None) -> None:
        """`rejects` receives the rejected lines."""
        self.file, self.writer = file, rejects
        self.accepted = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, dict[str, Any]] = {}  # the first reject of each reason

    @property
    def lines(self) -> int:
        return self.accepted + self.reasons.total()

    def count(self, blocks: Iterator[ParsedBlock]) -> Iterator[ParsedBlock]:
        """Yield the blocks unchanged."""
        for block in blocks:
            self.accepted += block.rows.num_rows
            reasons = block.rejects["reason"].to_pylist()
            self.reasons.update(reasons)
            for reason in {*reasons} - self.first.keys():
                (self.first[reason],) = block.rejects.slice(reasons.index(reason), 1).to_pylist()
            if self.writer is not None:
                self.writer.write_table(block.rejects)
            yield block

    def check(self, max_share: float) -> None:
        """DataError if the file holds no valid line, or if more than `max_share` of its lines are malformed."""
        if not self.lines:
            raise DataError(f"{self.file} holds no line of data: provide a file with content")
        rejects = self.reasons.total()
        share = rejects / self.lines
        if self.accepted and share <= max_share:
            return
        reason, count = self.reasons.most_common(1)[0]
        often = "all as" if count == rejects else f"{count:,} of them as"
        first = self.first[reason]
        remedy = "" if not self.accepted else ", or raise interactions.max_reject_share"
        raise DataError(
            f"{rejects:,} of {self.lines:,} lines of {self.file} are malformed ({share:.1%}; allowed {max_share:.1%}), "
            f"{often} '{reason}', first in line {first['line']}: {first['text'][:MAX_SHOWN_CHARS]!r}. "
            f"Remedy: {_ADVICE[reason]}; correct the file{remedy}"
        )
