"""A comparison in the terminal: tables that fit in 100 columns."""

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from llmsrec.comparison.results import Comparison
from llmsrec.comparison.tables import table_specs


def show(found: Comparison) -> None:
    console = Console(markup=False, highlight=False, emoji=False)
    for exhibit in table_specs(found):
        table = Table(
            title=f"{found.dataset}: {exhibit.title}", caption=exhibit.note, box=SIMPLE,
            title_justify="left", caption_justify="left", min_width=60,
        )  # fmt: skip
        for number, column in enumerate(exhibit.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row in exhibit.rows:
            table.add_row(*row)
        console.print(table)
