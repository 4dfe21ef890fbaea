"""What a materialised stage shows in Dagster: metrics, sizes, links, a picture, a validation report."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.dvc_project import Result, Stage
from orchestration.mlflow_runs import flatten

PICTURE_LIMIT = 500_000  # bytes; a larger one would weigh down the event log
METRIC_LIMIT = 60


def stage_metadata(root: Path, stage: Stage, result: Result, mlflow: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "outcome": result.outcome,
        "seconds": round(result.seconds, 1),
        "outputs": outputs_table(stage),
    }
    if mlflow is not None:
        shown["mlflow_run"] = dg.MetadataValue.url(mlflow)
    for name, path in stage.meta.get("links", {}).items():
        shown[name] = dg.MetadataValue.path(root / path)
    picture = root / stage.meta.get("picture", "")
    if picture.is_file() and picture.stat().st_size <= PICTURE_LIMIT:
        shown["picture"] = picture_of(picture)
    for name, value in list(metrics_of(root, stage).items())[:METRIC_LIMIT]:
        shown.setdefault(name.replace("@", "_at_"), value)
    return shown


def metrics_of(root: Path, stage: Stage) -> dict[str, float]:
    """The numbers in the stage's metrics files, under dotted names."""
    numbers: dict[str, float] = {}
    for output in stage.outputs:
        path = root / output.path
        if output.kind == "metric" and path.suffix == ".json" and path.is_file():
            leaves = flatten(json.loads(path.read_text(encoding="utf-8")))
            numbers.update(
                (name, leaf)
                for name, leaf in leaves.items()
                if isinstance(leaf, int | float) and not isinstance(leaf, bool)
            )
    return numbers


def outputs_table(stage: Stage) -> dg.TableMetadataValue:
    rows = [
        dg.TableRecord({"path": out.path, "md5": out.md5 or "", "bytes": out.size or 0})
        for out in stage.outputs
    ]
    schema = dg.TableSchema(
        [
            dg.TableColumn("path", "string"),
            dg.TableColumn("md5", "string"),
            dg.TableColumn("bytes", "int"),
        ]
    )
    return dg.MetadataValue.table(rows, schema)


def picture_of(path: Path) -> dg.MarkdownMetadataValue:
    encoded = base64.b64encode(path.read_bytes()).decode()
    kind = path.suffix.removeprefix(".").replace("jpg", "jpeg").replace("svg", "svg+xml")
    return dg.MetadataValue.md(f"![{path.stem}](data:image/{kind};base64,{encoded})")


def check_result(report: Path, name: str, asset: str) -> dg.AssetCheckResult:
    """The validation report that a stage left, as an asset check; none at all counts as failed."""
    if not report.is_file():
        return dg.AssetCheckResult(
            passed=False,
            check_name=name,
            asset_key=asset,
            description=f"{report.name} was not written: the step failed before it was validated",
        )
    document = json.loads(report.read_text(encoding="utf-8"))
    results = document.get("results", [])
    failed = [str(result.get("name")) for result in results if not result.get("success")]
    return dg.AssetCheckResult(
        passed=bool(document.get("success")),
        check_name=name,
        asset_key=asset,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"failed: {', '.join(failed)}" if failed else f"{len(results)} hold",
        metadata={"results": dg.MetadataValue.md(results_table(results))},
    )


def gate_results(report: Path, names: list[str], asset: str) -> Iterator[dg.AssetCheckResult]:
    """Each result of a report as a check; one that the stage did not judge counts as passed, and says so."""
    document = json.loads(report.read_text(encoding="utf-8"))
    judged = {str(result["name"]): result for result in document["results"]}
    for name in names:
        result = judged.get(name, {"success": True, "observed": "not judged in this run"})
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
    lines = ["| | expectation | observed | unexpected | examples |", "|---|---|---|---|---|"]
    for result in results:
        mark = "✓" if result.get("success") else "✗"
        what = result.get("description") or result.get("name")
        rest = (_cell(result.get(key)) for key in ("observed", "unexpected", "examples"))
        lines.append(f"| {mark} | {_cell(what)} | " + " | ".join(rest) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or value == []:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.replace("|", "\\|").replace("\n", " ")[:200]
