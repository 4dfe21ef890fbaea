"""Metadata and check results that Dagster shows of a stage: metrics, sizes, links, a picture, reports."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.dvc_project import Result
from orchestration.dvc_stage import Stage
from orchestration.mlflow_runs import flatten

PICTURE_LIMIT = 500_000  # bytes; pictures are stored in the event log
METRIC_LIMIT = 60


def stage_metadata(root: Path, stage: Stage, result: Result, mlflow: str | None) -> dict[str, Any]:
    """Metadata of a materialization; `mlflow` is the URL of the MLflow run."""
    shown: dict[str, Any] = {
        "outcome": result.outcome,
        "seconds": round(result.seconds, 1),
        "outputs": outputs_table(stage),
    }
    metrics = metrics_of(root, stage)
    if values := headline(stage, metrics):
        shown["headline"] = headline_text(values)
    if mlflow is not None:
        shown["mlflow_run"] = dg.MetadataValue.url(mlflow)
    for name, path in stage.meta.get("links", {}).items():
        shown[name] = dg.MetadataValue.path(root / path)
    picture = root / stage.meta.get("picture", "")
    if picture.is_file() and picture.stat().st_size <= PICTURE_LIMIT:
        shown["picture"] = picture_of(picture)
    if sentences := verdict_of(root, stage):
        shown["verdict"] = dg.MetadataValue.md("\n".join(f"- {text}" for text in sentences))
    for name, value in list(metrics.items())[:METRIC_LIMIT]:
        shown.setdefault(name.replace("@", "_at_"), value)
    return shown


def headline(stage: Stage, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that a person looks at first, by the labels of `headline` in the stage's `meta`."""
    names = stage.meta.get("headline", {})
    return {label: metrics[name] for label, name in names.items() if name in metrics}


def headline_text(values: Mapping[str, float]) -> str:
    """`label number` of each, separated by commas."""
    return ", ".join(
        f"{label} {value:,}" if isinstance(value, int) else f"{label} {value:.4f}"
        for label, value in values.items()
    )


def metrics_of(root: Path, stage: Stage) -> dict[str, float]:
    """The numbers of the stage's JSON metrics files, under dotted names."""
    leaves: dict[str, Any] = {}
    for document in _metric_files(root, stage):
        leaves |= flatten(document)
    return {name: leaf for name, leaf in leaves.items() if type(leaf) in (int, float)}


def verdict_of(root: Path, stage: Stage) -> list[str]:
    """The sentences under `verdict` in the stage's JSON metrics files, worst news first as written there."""
    documents = [each for each in _metric_files(root, stage) if isinstance(each, dict)]
    return [str(row["text"]) for each in documents for row in each.get("verdict", [])]


def _metric_files(root: Path, stage: Stage) -> Iterator[Any]:
    """The content of the stage's JSON metrics files that exist."""
    for path in (root / output.path for output in stage.outputs if output.kind == "metric"):
        if path.suffix == ".json" and path.is_file():
            yield json.loads(path.read_text(encoding="utf-8"))


def outputs_table(stage: Stage) -> dg.TableMetadataValue:
    """A row for each output of the stage: path, md5 and bytes."""
    rows = [
        dg.TableRecord({"path": out.path, "md5": out.md5 or "", "bytes": out.size or 0})
        for out in stage.outputs
    ]
    return dg.MetadataValue.table(rows)


def picture_of(path: Path) -> dg.MarkdownMetadataValue:
    """The picture embedded in Markdown as a data URL."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    kind = path.suffix.removeprefix(".").replace("jpg", "jpeg").replace("svg", "svg+xml")
    return dg.MetadataValue.md(f"![{path.stem}](data:image/{kind};base64,{encoded})")


def check_result(report: Path, name: str, asset: str) -> dg.AssetCheckResult:
    """The asset check of a stage's validation report; a missing report fails the check."""
    passed, results = False, []
    description = f"{report.name} was not written: the stage failed before the validation"
    if report.is_file():
        document = json.loads(report.read_text(encoding="utf-8"))
        passed, results = bool(document.get("success")), document.get("results", [])
        failed = [str(result.get("name")) for result in results if not result.get("success")]
        description = f"failed: {', '.join(failed)}" if failed else f"{len(results)} passed"
    return dg.AssetCheckResult(
        passed=passed,
        check_name=name,
        asset_key=asset,
        description=description,
        metadata={"results": dg.MetadataValue.md(results_table(results))},
    )


def gate_results(report: Path, names: list[str], asset: str) -> Iterator[dg.AssetCheckResult]:
    """An asset check for each gate; a gate that the report does not contain passes as `not judged`."""
    document = json.loads(report.read_text(encoding="utf-8"))
    by_name = {str(result["name"]): result for result in document["results"]}
    for name in names:
        result = by_name.get(name, {"success": True, "observed": "not judged in this run"})
        warns = result.get("severity") == "warn"
        yield dg.AssetCheckResult(
            passed=bool(result["success"]),
            check_name=name,
            asset_key=asset,
            severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
            description=f"{result.get('description', name)}: {result['observed']}",
            metadata=dict(result.get("margin", {})),
        )


def results_table(results: list[Mapping[str, Any]]) -> str:
    """A Markdown table with a row for each expectation of a validation report."""
    columns = ["", "expectation", "observed", "unexpected", "examples"]
    rows = [
        [
            "✓" if result.get("success") else "✗",
            result.get("description") or result.get("name"),
            *(result.get(column) for column in columns[2:]),
        ]
        for result in results
    ]
    return markdown_table(columns, rows)


def markdown_table(columns: list[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; None and empty lists are empty cells."""
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Any) -> str:
    if value is None or value == []:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.replace("|", "\\|").replace("\n", " ")[:200]
