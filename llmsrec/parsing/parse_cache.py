"""What was parsed of a raw file, kept: raw files never change, so a retraining parses only those that are new.

A file's parse is found again by its content, its name, the period and the parser's own code; what no run asks for
any more is removed. Rows come back block by block, as they were parsed: the result is that of parsing anew.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llmsrec.core.files import atomic_directory, read_json, sha256, write_json
from llmsrec.parsing.metadata import ITEMS
from llmsrec.parsing.reviews import REJECTS, Parsed

PARSERS = (
    "parse_cache",
    "line_reader",
    "metadata",
    "reviews",
    "csv_reviews",
)  # modules that decide what is kept


class ParseCache:
    """A folder of parses; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.asked: set[str] = set()
        code = hashlib.sha256()
        for name in PARSERS:
            code.update(Path(__file__).with_name(f"{name}.py").read_bytes())
        self._code = code.hexdigest()

    def blocks(
        self, file: Path, rule: str, schema: pa.Schema, parse: Callable[[], Iterator[Parsed]]
    ) -> Iterator[Parsed]:
        """The blocks of `file` by `parse`; `rule` says what else decides them."""
        if self.folder is None:
            yield from parse()
            return
        key = hashlib.sha256(
            f"{sha256(file)} {file.name} {rule} {self._code}".encode()
        ).hexdigest()[:32]
        self.asked.add(key)
        kept = self.folder / key
        if kept.exists():
            print(f"kept {file.name}: parsed before", flush=True)
            yield from _read(kept)
            return
        with (
            atomic_directory(kept) as aside,
            pq.ParquetWriter(aside / "rows.parquet", schema) as rows,
            pq.ParquetWriter(aside / "rejects.parquet", REJECTS) as rejects,
            pq.ParquetWriter(aside / "texts.parquet", ITEMS) as texts,
        ):
            sizes = []
            for block in parse():
                found = [{"item_id": item, **text} for item, text in block.texts.items()]
                parts = (block.rows, block.rejects, pa.Table.from_pylist(found, ITEMS))
                for writer, part in zip((rows, rejects, texts), parts, strict=True):
                    if part.num_rows:
                        writer.write_table(part, row_group_size=part.num_rows)
                sizes.append([*(part.num_rows for part in parts), block.num_lines, block.num_blank])
                yield block
            write_json(aside / "blocks.json", sizes)

    def remove_unused(self) -> None:
        """Remove what this run did not ask for."""
        if self.folder is not None:
            for kept in self.folder.iterdir():
                if kept.name not in self.asked:
                    shutil.rmtree(kept)


def _read(kept: Path) -> Iterator[Parsed]:
    files = [pq.ParquetFile(kept / f"{name}.parquet") for name in ("rows", "rejects", "texts")]
    place = [0, 0, 0]
    for *sizes, num_lines, num_blank in read_json(kept / "blocks.json"):
        parts = []
        for number, (file, size) in enumerate(zip(files, sizes, strict=True)):
            group = [place[number]] if size else []
            parts.append(file.read_row_groups(group))
            place[number] += len(group)
        texts = {text.pop("item_id"): text for text in parts[2].to_pylist()}
        yield Parsed(parts[0], parts[1], num_lines, num_blank, texts)
