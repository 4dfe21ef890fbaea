"""What people type. Libraries that are slow to load are imported where they are needed."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llmsrec.core.errors import LLMSRecError

app = typer.Typer(
    help="LLM-SRec: recommend from the order of purchases. `make run` builds what these commands read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Dataset = Annotated[str, typer.Option(help="A name from params.yaml (datasets).")]


@app.command()
def recommend(
    dataset: Dataset,
    history: Annotated[
        str, typer.Option(help="parent_asins, oldest first, with commas between.")
    ] = "",
    k: Annotated[int, typer.Option("-k", help="How many to recommend.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    artifacts: Annotated[Path, typer.Option(help="Where trained stores lie.")] = Path("artifacts"),
) -> None:
    """What to offer a shopper next; without a history, what is popular."""
    from llmsrec.serving.recommender import Recommender

    bought = [item.strip() for item in history.split(",") if item.strip()]
    found = Recommender.load(artifacts / dataset).recommend(bought, k)
    if as_json:
        source = "student" if bought else "popularity"
        items = [asdict(item) for item in found]
        print(json.dumps({"dataset": dataset, "history": bought, "source": source, "items": items}))
        return
    from rich.table import Table

    table = Table(title=None if bought else "No history: what is popular")
    for name, justify in (
        ("", "right"),
        ("parent_asin", "left"),
        ("title", "left"),
        ("score", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for item in found:
        table.add_row(str(item.rank), item.item_id, item.title, f"{item.score:.3f}")
    _show(table)


@app.command()
def download(
    dataset: Annotated[str, typer.Argument(help="A name from params.yaml (datasets).")],
) -> None:
    """Fetch a store's raw files into data/; `dvc add data` then versions them."""
    from llmsrec.stages.download import main as fetch

    fetch(["--dataset", dataset, "--out", f"data/{dataset}"])


@app.command()
def results(
    dataset: Dataset,
    reports: Annotated[Path, typer.Option(help="Where reports lie.")] = Path("reports"),
) -> None:
    """The result table of a store, with 95% intervals."""
    from rich.table import Table

    from llmsrec.core.files import read_json

    metrics = read_json(reports / dataset / "metrics.json")
    table = Table(title=f"{dataset}: {metrics['users']:,} users, {metrics['items']:,} items")
    table.add_column("system")
    columns = [(ranking, name) for ranking in ("sampled", "full") for name in ("ndcg@10", "hr@10")]
    for ranking, name in columns:
        table.add_column(f"{ranking} {name}", justify="right")
    for system, found in metrics["systems"].items():
        cells = (found[ranking][name] for ranking, name in columns)
        shown = [f"{cell['value']:.4f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in cells]
        table.add_row(system, *shown)
    _show(table)


@app.command()
def preset(
    name: Annotated[
        str | None, typer.Argument(help="A preset; without a name all are listed.")
    ] = None,
) -> None:
    """Write a preset into params.yaml and studies/params.yaml; `default` undoes it."""
    from llmsrec import presets

    if name is None:
        print("\n".join(presets.names()))
        return
    changed = presets.apply(name)
    print("\n".join(changed) if changed else f"the parameters have the values of '{name}' already")


def _show(table: Any) -> None:
    """As it stands: a title may hold what would be markup."""
    from rich.console import Console

    Console(markup=False, emoji=False, highlight=False).print(table)


def main() -> None:
    try:
        app()
    except LLMSRecError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
