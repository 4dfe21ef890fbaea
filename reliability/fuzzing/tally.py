"""The counts of one parser."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmsrec.parsing.line_reader import ParsedBlock


@dataclass
class Tally:
    """The counts of the lines that a parser was given."""

    files: int = 0
    lines: int = 0
    rows: int = 0
    blank: int = 0
    rejects: Counter[str] = field(default_factory=Counter)

    def add(self, blocks: Sequence[ParsedBlock]) -> None:
        self.files += 1
        for block in blocks:
            self.lines += block.num_lines
            self.rows += block.rows.num_rows
            self.blank += block.num_blank
            self.rejects.update(block.rejects["reason"].to_pylist())
