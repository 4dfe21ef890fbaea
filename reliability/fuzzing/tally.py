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

    def add(self, blocks: Sequence[ParsedBlock], lines: int) -> None:
        """Count the blocks of a file of so many lines; what is neither row nor reject is blank."""
        self.files += 1
        self.lines += lines
        self.blank += lines
        for block in blocks:
            self.rows += block.rows.num_rows
            self.blank -= block.rows.num_rows + block.rejects.num_rows
            self.rejects.update(block.rejects["reason"].to_pylist())
