"""The hand-written asset `raw_reviews`: fetch the raw files of a dataset and track new ones with DVC."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.child import run_child
from orchestration.dvc_assets import StageFailed
from orchestration.dvc_project import DvcProject, Result
from orchestration.mlflow_runs import MlflowRuns, ParentRun

FOLDER = "data"
Listing = dict[str, tuple[int, int]]


def data_asset(
    project: DvcProject,
    name: str,
    datasets: list[str],
    description: str,
    ingest: Callable[[dg.AssetExecutionContext], tuple[Result, dict[str, Any]]],
    deps: tuple[str, ...] = (),
) -> dg.AssetsDefinition:
    """An asset that fills the raw files of each dataset; `ingest` returns its result and metadata to show."""

    @dg.asset(
        name=name,
        deps=deps,
        description=description,
        group_name="data",
        pool="cpu",
        partitions_def=dg.StaticPartitionsDefinition(datasets),
        kinds={"dvc"},
    )
    def materialise(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        dataset = context.partition_key
        result, metadata = ingest(context)
        if result.outcome == "failed":
            raise StageFailed(f"{name}@{dataset}", result)
        return dg.MaterializeResult(
            metadata={"outcome": result.outcome, "seconds": round(result.seconds, 1), **metadata},
            data_version=dg.DataVersion(project.tracked_hash(f"{FOLDER}/{dataset}") or "none"),
        )

    return materialise


def raw_reviews_asset(
    project: DvcProject, datasets: Mapping[str, str], tracker: MlflowRuns | None = None
) -> dg.AssetsDefinition:
    """The asset `raw_reviews`, partitioned by dataset."""

    def ingest(context: dg.AssetExecutionContext) -> tuple[Result, dict[str, Any]]:
        dataset, start = context.partition_key, time.time()
        result = fetch(context, project, dataset)
        metadata: dict[str, Any] = {"source": str(datasets[dataset])}
        if tracker is not None and result.outcome != "unchanged":
            parent = ParentRun(context.run.run_id, dataset)
            with tracker.start_run("raw_reviews", parent, dict(metadata), start) as run:
                run.outcome = result.outcome
                run.metrics["seconds"] = result.seconds
                run.tags["dvc_hash"] = project.tracked_hash(f"{FOLDER}/{dataset}") or "none"
                metadata["mlflow_run"] = dg.MetadataValue.url(run.url)
        files = listing(project.root / FOLDER / dataset)
        sizes = {Path(name).name: dg.MetadataValue.int(size) for name, (size, _) in files.items()}
        return result, metadata | sizes

    description = "Raw review and item files, downloaded or generated, verified and never changed; "
    description += "`data.dvc` holds their hashes"
    return data_asset(project, "raw_reviews", list(datasets), description, ingest)


def fetch(context: dg.AssetExecutionContext, project: DvcProject, dataset: str) -> Result:
    """Run the download stage, then `dvc add` if it added files or some are not tracked yet."""
    start = time.monotonic()
    folder = project.root / FOLDER / dataset
    before = listing(folder)
    command = [sys.executable, "-m", "llmsrec.stages.download", "--dataset", dataset]
    command += ["--out", f"{FOLDER}/{dataset}"]
    returncode, tail = run_child(command, project.root, context.log.info)
    if returncode:
        return Result("failed", time.monotonic() - start, tuple(tail))
    new = [name for name, state in listing(folder).items() if before.get(name) != state]
    if new or project.is_stale(f"{FOLDER}.dvc", context.log.info):
        context.log.info(f"dvc add {FOLDER}/{dataset}")
        project.add(FOLDER, [f"{FOLDER}/{dataset}"], context.log.info)
    return Result("ran" if new else "unchanged", time.monotonic() - start, tuple(tail))


def listing(folder: Path) -> Listing:
    """Size in bytes and modification time in ns of each file, by its path relative to the folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
