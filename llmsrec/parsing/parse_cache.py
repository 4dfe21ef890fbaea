"""Parse cache: raw files never change, so a later run parses only the new ones.

The key of a file's parse covers its content, its name, the options and the code of the parsers. Entries that a run does
not use are removed. Blocks come back as they were parsed: the result equals that of a new parse.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llmsrec.core.files import atomic_directory, read_json, sha256, write_json
from llmsrec.parsing.line_reader import REJECT_SCHEMA, ParsedBlock
from llmsrec.parsing.metadata import ITEM_SCHEMA

# The modules whose code decides the cached content.
PARSERS = (
    "parse_cache",
    "line_reader",
    "metadata",
    "reviews",
    "time_units",
    "csv_records",
    "csv_reader",
    "raw_files",
)


class ParseCache:
    """A folder of parses; without a folder nothing is cached."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.used: set[str] = set()
        code = hashlib.sha256()
        for name in PARSERS:
            code.update(Path(__file__).with_name(f"{name}.py").read_bytes())
        self._code = code.hexdigest()

    def blocks(
        self,
        file: Path,
        options: str,
        schema: pa.Schema,
        parse: Callable[[], Iterator[ParsedBlock]],
    ) -> Iterator[ParsedBlock]:
        """The blocks of `file`, cached or by `parse`; `options` must name all that `parse` depends on."""
        if self.folder is None:
            yield from parse()
            return
        key_text = f"{sha256(file)} {file.name} {options} {self._code}"
        key = hashlib.sha256(key_text.encode()).hexdigest()[:32]
        self.used.add(key)
        entry = self.folder / key
        if entry.exists():
            print(f"{file.name}: read from the parse cache", flush=True)
            yield from _read_blocks(entry)
            return
        with (
            atomic_directory(entry) as staging,
            pq.ParquetWriter(staging / "rows.parquet", schema) as rows,
            pq.ParquetWriter(staging / "rejects.parquet", REJECT_SCHEMA) as rejects,
            pq.ParquetWriter(staging / "texts.parquet", ITEM_SCHEMA) as texts,
        ):
            sizes = []
            for block in parse():
                items = [{"item_id": item, **text} for item, text in block.texts.items()]
                tables = (block.rows, block.rejects, pa.Table.from_pylist(items, ITEM_SCHEMA))
                for writer, table in zip((rows, rejects, texts), tables, strict=True):
                    if table.num_rows:
                        writer.write_table(table, row_group_size=table.num_rows)
                sizes.append([*map(len, tables)])
                yield block
            write_json(staging / "blocks.json", sizes)

    def remove_unused(self) -> None:
        """Remove the entries that this run did not use."""
        if self.folder is not None:
            for entry in self.folder.iterdir():
                if entry.name not in self.used:
                    shutil.rmtree(entry)


def _read_blocks(entry: Path) -> Iterator[ParsedBlock]:
    """Each block is one row group of each table; an empty table of a block has no row group."""
    files = [pq.ParquetFile(entry / f"{name}.parquet") for name in ("rows", "rejects", "texts")]
    groups = [0] * len(files)
    for sizes in read_json(entry / "blocks.json"):
        tables = []
        for number, (file, size) in enumerate(zip(files, sizes, strict=True)):
            tables.append(file.read_row_groups([groups[number]] if size else []))
            groups[number] += bool(size)
        rows, rejects, items = tables
        texts = {text.pop("item_id"): text for text in items.to_pylist()}
        yield ParsedBlock(rows, rejects, texts)
