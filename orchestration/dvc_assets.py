"""Dagster assets derived from dvc.yaml: a stage is an asset, the items of its matrix are the partitions.

`meta.dagster` of a stage may hold: group, kinds, pool, checks (a validation report), gates (a report and the names of
its results, an asset check for each), links (name: file), picture, headline (label: name of a metric).
This module depends on nothing of this project; it reads any DVC project.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import dagster as dg

from orchestration.asset_metadata import (
    check_result,
    gate_results,
    headline,
    metrics_of,
    stage_metadata,
)
from orchestration.dvc_project import DvcProject, Result
from orchestration.dvc_stage import Stage
from orchestration.mlflow_runs import MlflowRuns, ParentRun, TrackedRun

Assets = list[dg.AssetsDefinition | dg.AssetSpec]
CHECK = "validation"


class StageFailed(dg.Failure):
    """A stage failed; the last lines of its output are the description, which the run's page shows first."""

    def __init__(self, address: str, result: Result) -> None:
        lines = [line for line in result.tail if not line.startswith("ERROR: failed to reproduce")]
        super().__init__(
            description=f"{address} failed\n" + "\n".join(lines[-15:]),
            metadata={"log": dg.MetadataValue.md("```\n" + "\n".join(result.tail) + "\n```")},
            allow_retries=False,  # the same inputs fail the same way
        )


def dvc_assets(
    project: DvcProject, source_keys: Mapping[str, str], tracker: MlflowRuns | None = None
) -> Assets:
    """One asset for each stage name. `source_keys` maps a tracked folder to the asset that fills it; other `.dvc` files
    become external assets.
    """
    by_name: dict[str, list[Stage]] = {}
    stages = project.stages()
    for stage in stages.values():
        by_name.setdefault(stage.name, []).append(stage)
    sources = {source for members in by_name.values() for s in members for source in s.sources}
    keys = {source: source_keys.get(source, source.replace("/", "__")) for source in sources}
    assets: Assets = [
        dg.AssetSpec(keys[source], description=f"{source}, tracked by DVC", kinds={"dvc"})
        for source in sorted(sources - set(source_keys))
    ]
    for members in by_name.values():
        assets.append(_asset(project, members, _deps(members, stages, keys), tracker))
    return assets


def partitions_of(members: list[Stage]) -> dg.StaticPartitionsDefinition | None:
    """The matrix items of a stage as partitions; None without a matrix."""
    items = [stage.item for stage in members if stage.item is not None]
    return dg.StaticPartitionsDefinition(items) if items else None


def _deps(
    members: list[Stage], stages: Mapping[str, Stage], keys: Mapping[str, str]
) -> list[dg.AssetDep]:
    """The dependencies of an asset, with DVC's edges between matrix items as partition mappings."""
    edges: dict[str, list[tuple[str | None, str | None]]] = {}
    for stage in members:
        for other in (stages[address] for address in stage.upstream if address in stages):
            edges.setdefault(other.name, []).append((other.item, stage.item))
    deps = [dg.AssetDep(keys[source]) for source in sorted({s for m in members for s in m.sources})]
    for name, pairs in sorted(edges.items()):
        deps.append(dg.AssetDep(name, partition_mapping=_mapping(pairs)))
    return deps


def _mapping(pairs: list[tuple[str | None, str | None]]) -> dg.PartitionMapping | None:
    if all(upstream in (None, item) for upstream, item in pairs):
        return None
    read_by: dict[str, set[str]] = {}
    for upstream, item in pairs:
        if upstream is None or item is None:
            return dg.AllPartitionMapping()
        read_by.setdefault(upstream, set()).add(item)
    return dg.StaticPartitionMapping(read_by)


def _asset(
    project: DvcProject, members: list[Stage], deps: list[dg.AssetDep], tracker: MlflowRuns | None
) -> dg.AssetsDefinition:
    first = members[0]
    addresses = {stage.item: stage.address for stage in members}
    checks = []
    if "checks" in first.meta:
        checks = [dg.AssetCheckSpec(CHECK, asset=first.name, blocking=True)]
    for gate in first.meta.get("gates", {}).get("names", []):
        checks.append(dg.AssetCheckSpec(gate, asset=first.name))  # not blocking

    @dg.asset(
        name=first.name,
        deps=deps,
        description=first.description,
        group_name=first.meta.get("group"),
        pool=first.meta.get("pool"),
        partitions_def=partitions_of(members),
        code_version=first.code_version(project.root),
        check_specs=checks,
        kinds={"dvc", *first.meta.get("kinds", [])},
    )
    def materialise(context: dg.AssetExecutionContext) -> Iterator[Any]:
        item = context.partition_key if context.has_partition_key else None
        yield from _materialise(context, project, addresses[item], tracker)

    return materialise


def _materialise(
    context: dg.AssetExecutionContext,
    project: DvcProject,
    address: str,
    tracker: MlflowRuns | None,
) -> Iterator[Any]:
    stage = project.stage(address)
    run: TrackedRun | None = None
    if project.is_stale(address, context.log.info):
        parent = ParentRun(context.run.run_id, stage.item)
        tracked = tracker.start_run(stage.name, parent, stage.params) if tracker else nullcontext()
        with tracked as run:
            result = project.run(address, context.log.info, run.env if run else None)
            stage = project.stage(address)
            if run is not None:
                _record(project, run, stage, result)
    else:
        result = Result("unchanged", 0.0, ())
        context.log.info(f"{address} is up to date")
    if "checks" in stage.meta:
        yield check_result(project.root / stage.meta["checks"], CHECK, stage.name)
    if result.outcome != "failed" and "gates" in stage.meta:
        gates = stage.meta["gates"]
        yield from gate_results(project.root / gates["report"], gates["names"], stage.name)
    if result.outcome == "failed":
        raise StageFailed(address, result)
    yield dg.MaterializeResult(
        metadata=stage_metadata(project.root, stage, result, run.url if run else None),
        data_version=dg.DataVersion(stage.data_version),
    )


def _record(project: DvcProject, run: TrackedRun, stage: Stage, result: Result) -> None:
    run.outcome = result.outcome
    run.tags["dvc_stage"] = stage.address
    if result.outcome == "failed":
        return
    run.tags["dvc_hash"] = stage.data_version
    metrics = metrics_of(project.root, stage)
    run.metrics = {"seconds": result.seconds, **metrics}
    values = headline(stage, metrics)
    run.headline = {f"{stage.name} {label}": value for label, value in values.items()}
    paths = [output.path for output in stage.outputs if output.kind != "data"]
    paths += [*stage.meta.get("links", {}).values(), *filter(None, [stage.meta.get("picture")])]
    run.artifacts = [project.root / path for path in dict.fromkeys(paths)]
