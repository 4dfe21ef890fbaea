"""The command line. Slow libraries are imported inside the commands that need them."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmsrec.core.errors import ConfigError, LLMSRecError
from llmsrec.core.names import name_option

if TYPE_CHECKING:
    from llmsrec.serving.recommender import Recommendation

app = typer.Typer(
    help="LLM-SRec: sequential recommendation with a frozen language model. Run `make run` first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Dataset = Annotated[str, typer.Option(help="A dataset of params.yaml.", parser=name_option)]


@app.command()
def recommend(
    dataset: Dataset,
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")] = "",
    k: Annotated[int, typer.Option("-k", help="Number of items.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    artifacts: Annotated[Path, typer.Option(help="Folder of the trained datasets.")] = Path(
        "artifacts"
    ),
    all_to: Annotated[
        Path | None, typer.Option("--all", metavar="FILE", help="Write the items of every user.")
    ] = None,
) -> None:
    """Recommend items for a history; without a history, the most popular items; with --all, for every user."""
    if all_to is not None:
        _recommend_all(artifacts / dataset, all_to, k, alone=not (history or as_json))
        return
    from llmsrec.serving.recommender import Recommender

    bought = [item.strip() for item in history.split(",") if item.strip()]
    recommended = Recommender.load(artifacts / dataset).recommend(bought, k)
    if as_json:
        source = "recommender" if bought else "popularity"
        items = [asdict(item) for item in recommended]
        print(json.dumps({"dataset": dataset, "history": bought, "source": source, "items": items}))
    else:
        _show_items(recommended, None if bought else "No history: most popular items")


def _recommend_all(folder: Path, file: Path, k: int, alone: bool) -> None:
    if not alone:
        raise typer.BadParameter("--all writes a Parquet file; leave out --history and --json")
    from llmsrec.api import recommend_all

    recommend_all(folder, file, k)
    print(f"wrote {file}")


def _show_items(recommended: "list[Recommendation]", title: str | None) -> None:
    from rich.table import Table

    table = Table(title=title)
    for name, justify in (
        ("", "right"),
        ("parent_asin", "left"),
        ("title", "left"),
        ("score", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for item in recommended:
        table.add_row(str(item.rank), item.item_id, item.title, f"{item.score:.3f}")
    _show(table)


@app.command()
def download(
    dataset: Annotated[str, typer.Argument(help="A dataset of params.yaml.", parser=name_option)],
) -> None:
    """Download the raw files of a dataset into data/; run `dvc add data` afterwards to version them."""
    from llmsrec.stages.download import main as fetch

    fetch(["--dataset", dataset, "--out", f"data/{dataset}"])


@app.command()
def results(
    dataset: Dataset,
    reports: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("reports"),
) -> None:
    """Print the metrics of a dataset with 95% intervals, and the verdict, worst news first."""
    from rich.table import Table

    from llmsrec.core.files import read_json

    metrics = read_json(reports / dataset / "metrics.json")
    table = Table(title=f"{dataset}: {metrics['users']:,} users, {metrics['items']:,} items")
    table.add_column("system")
    columns = [(ranking, name) for ranking in ("sampled", "full") for name in ("ndcg@10", "hr@10")]
    for ranking, name in columns:
        table.add_column(f"{ranking} {name}", justify="right")
    for system, values in metrics["systems"].items():
        cells = (values[ranking][name] for ranking, name in columns)
        shown = [f"{cell['value']:.4f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in cells]
        table.add_row(system, *shown)
    _show(table)
    for statement in metrics["verdict"]:
        _show(f"{statement['news']:>5}: {statement['text']}")


@app.command()
def explore(
    artifacts: Annotated[Path, typer.Option(help="Folder of the trained datasets.")] = Path(
        "artifacts"
    ),
    port: Annotated[int, typer.Option(help="Of the page, on 127.0.0.1.")] = 8501,
) -> None:
    """Open a page to try the trained datasets: histories, their order, new products."""
    from importlib.util import find_spec

    from llmsrec.explore import PAGE

    if find_spec("streamlit") is None:
        raise ConfigError("Streamlit is not installed: pip install 'llmsrec[explore]'")
    options = {
        "server.address": "127.0.0.1",
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(PAGE), *given, "--", str(artifacts)]
    os.execv(sys.executable, command)


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
    """Print without markup: item titles may contain its characters."""
    from rich.console import Console

    Console(markup=False, emoji=False, highlight=False).print(table)


def main() -> None:
    try:
        app()
    except LLMSRecError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
