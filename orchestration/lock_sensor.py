"""Dagster's catalogue kept up with dvc.lock: what a `dvc repro` outside of Dagster made is reported, once."""

import hashlib
from collections.abc import Iterable, Iterator

import dagster as dg

from orchestration.asset_metadata import stage_metadata
from orchestration.dvc_project import DvcProject, Result, Stage
from orchestration.schedules import PARTITION, UNDER_WAY

VERSION = "dagster/data_version"  # the tag of an event that holds it


def catalogue_sensor(project: DvcProject) -> dg.SensorDefinition:
    @dg.sensor(
        name="catalogue",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,  # it only writes down what is so
        description="Reports what `dvc repro` built outside of Dagster, by the hashes of dvc.lock",
    )
    def catalogue(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if not project.locks:
            return dg.SensorResult(skip_reason="there is no dvc.lock yet")
        held = b"".join(lock.read_bytes() for lock in project.locks)
        state = hashlib.sha256(held).hexdigest()[:16]
        if state == context.cursor:
            return dg.SensorResult(skip_reason="dvc.lock is as it was", cursor=state)
        runs = context.instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY))
        busy = {run.tags.get(PARTITION) for run in runs}
        stages = project.stages().values()
        events = [
            materialization(project, stage)
            for stage in unreported(context.instance, stages)
            if stage.item not in busy
        ]
        # a run reports what it makes: its dataset is compared when it is over
        found = ", ".join(f"{event.asset_key.path[0]} {event.partition or ''}" for event in events)
        return dg.SensorResult(
            skip_reason=f"reported: {found or 'nothing new'}" + "; a run is under way" * bool(busy),
            asset_events=events,
            cursor=None if busy else state,
        )

    return catalogue


def unreported(instance: dg.DagsterInstance, stages: Iterable[Stage]) -> Iterator[Stage]:
    """Built stages whose last materialization in Dagster has other hashes."""
    for stage in stages:
        if any(output.md5 is None for output in stage.outputs):
            continue
        found = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                dg.AssetKey(stage.name),
                asset_partitions=None if stage.item is None else [stage.item],
            ),
            limit=1,
        ).records
        last = found[0].asset_materialization if found else None
        if last is None or (last.tags or {}).get(VERSION) != stage.data_version:
            yield stage


def materialization(project: DvcProject, stage: Stage) -> dg.AssetMaterialization:
    shown = stage_metadata(project.root, stage, Result("outside of Dagster", 0.0, ()), None)
    del shown["seconds"]  # nobody measured them
    return dg.AssetMaterialization(
        stage.name, partition=stage.item, metadata=shown, tags={VERSION: stage.data_version}
    )
