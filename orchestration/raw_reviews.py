"""The hand-written asset `raw_reviews`: fetch the raw files of a dataset and track new ones with DVC."""

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.child import run_child
from orchestration.dvc_assets import StageFailed
from orchestration.dvc_project import DvcProject, Result
from orchestration.mlflow_runs import MlflowRuns, ParentRun

FOLDER = "data"
Listing = dict[str, tuple[int, int]]


def raw_reviews_asset(
    project: DvcProject, datasets: Mapping[str, str], tracker: MlflowRuns | None = None
) -> dg.AssetsDefinition:
    """The asset `raw_reviews`, partitioned by dataset."""

    @dg.asset(
        name="raw_reviews",
        description="Raw review and item files, downloaded or generated, verified and never changed; "
        "`data.dvc` holds their hashes",
        group_name="data",
        pool="cpu",
        partitions_def=dg.StaticPartitionsDefinition(list(datasets)),
        kinds={"dvc"},
    )
    def raw_reviews(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        dataset = context.partition_key
        source = str(datasets[dataset])
        url = None
        start = time.time()
        result = fetch(context, project, dataset)
        if tracker is not None and result.outcome != "unchanged":
            parent = ParentRun(context.run.run_id, dataset)
            with tracker.start_run("raw_reviews", parent, {"source": source}, start) as run:
                run.outcome, url = result.outcome, run.url
                run.metrics["seconds"] = result.seconds
                run.tags["dvc_hash"] = project.tracked_hash(f"{FOLDER}/{dataset}") or "none"
        if result.outcome == "failed":
            raise StageFailed(f"raw_reviews@{dataset}", result)
        yield dg.MaterializeResult(
            metadata=_metadata(result, source, url, project.root / FOLDER / dataset),
            data_version=dg.DataVersion(project.tracked_hash(f"{FOLDER}/{dataset}") or "none"),
        )

    return raw_reviews


def _metadata(result: Result, source: str, url: str | None, folder: Path) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "seconds": round(result.seconds, 1),
        "source": source,
        **({"mlflow_run": dg.MetadataValue.url(url)} if url else {}),
        **{
            Path(name).name: dg.MetadataValue.int(size)
            for name, (size, _) in listing(folder).items()
        },
    }


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
