"""What the commands of studies share: their parsers, tables in the terminal, and where tidy tables are written."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from llmsrec.core.files import atomic_write

REPORTS = Path("reports/studies")


def parser_of(study: str, text: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m studies STUDY`."""
    return argparse.ArgumentParser(
        prog=f"python -m studies {study}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_seeds_and_changes(parser: argparse.ArgumentParser) -> None:
    """The options --seeds and --set."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--set", nargs="*", default=[], dest="changes", metavar="SECTION.KEY=VALUE",
        help="changes of params.yaml or studies/params.yaml for this call",
    )  # fmt: skip


def save(table: pd.DataFrame, study: str, name: str) -> None:
    """Write reports/studies/<study>/<name>.csv and print its path."""
    path = REPORTS / study / f"{name}.csv"
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False)
    print(f"All numbers: {path}")


def print_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    note: str | None = None,
) -> None:
    """A table whose first column is aligned left, the others right."""
    table = Table(
        title=title, caption=note, box=SIMPLE, title_justify="left", caption_justify="left", min_width=60
    )  # fmt: skip
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False, emoji=False).print(table)


def with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.4f} [{low:{sign}.3f}, {high:{sign}.3f}]"
