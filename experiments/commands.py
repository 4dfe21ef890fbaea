"""What every experiment's command shares: how it says what it does, and where its tidy table goes."""

import argparse
from pathlib import Path

import pandas as pd

from llmsrec.core.files import atomic_write

REPORTS = Path("reports/experiments")


def parser_of(experiment: str, text: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m experiments {experiment}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def save(table: pd.DataFrame, experiment: str, name: str) -> None:
    path = REPORTS / experiment / f"{name}.csv"
    with atomic_write(path) as aside:
        table.to_csv(aside, index=False)
    print(f"All numbers: {path}")
