"""A sensor that reports to Dagster what `dvc repro` built outside of Dagster, by the hashes of dvc.lock."""

import hashlib
from collections.abc import Iterable, Iterator

import dagster as dg

from orchestration.asset_metadata import stage_metadata
from orchestration.dvc_project import DvcProject, Result
from orchestration.dvc_stage import Stage
from orchestration.schedules import PARTITION_TAG, UNFINISHED

DATA_VERSION_TAG = "dagster/data_version"


def dvc_lock_sensor(project: DvcProject) -> dg.SensorDefinition:
    """A sensor that compares dvc.lock with the last materializations each time that it changes."""

    @dg.sensor(
        name="dvc_lock",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,  # it starts no run
        description="Reports outputs that `dvc repro` built outside of Dagster, by the hashes of dvc.lock",
    )
    def dvc_lock(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if not project.locks:
            return dg.SensorResult(skip_reason="there is no dvc.lock yet")
        content = b"".join(lock.read_bytes() for lock in project.locks)
        state = hashlib.sha256(content).hexdigest()[:16]
        if state == context.cursor:
            return dg.SensorResult(skip_reason="dvc.lock is unchanged", cursor=state)
        runs = context.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        busy = {run.tags.get(PARTITION_TAG) for run in runs}
        stages = project.stages().values()
        events = [
            materialization(project, stage)
            for stage in unreported(context.instance, stages)
            if stage.item not in busy
        ]
        # An unfinished run reports its own outputs: its dataset is compared after its end.
        names = ", ".join(f"{event.asset_key.path[0]} {event.partition or ''}" for event in events)
        return dg.SensorResult(
            skip_reason=f"reported: {names or 'nothing new'}"
            + "; a run is in progress" * bool(busy),
            asset_events=events,
            cursor=None if busy else state,
        )

    return dvc_lock


def unreported(instance: dg.DagsterInstance, stages: Iterable[Stage]) -> Iterator[Stage]:
    """The built stages whose last materialization in Dagster has other hashes."""
    for stage in stages:
        if any(output.md5 is None for output in stage.outputs):
            continue
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                dg.AssetKey(stage.name),
                asset_partitions=None if stage.item is None else [stage.item],
            ),
            limit=1,
        ).records
        last = records[0].asset_materialization if records else None
        if last is None or (last.tags or {}).get(DATA_VERSION_TAG) != stage.data_version:
            yield stage


def materialization(project: DvcProject, stage: Stage) -> dg.AssetMaterialization:
    """The event that reports a stage built outside of Dagster."""
    metadata = stage_metadata(project.root, stage, Result("outside of Dagster", 0.0, ()), None)
    del metadata["seconds"]  # not measured
    return dg.AssetMaterialization(
        stage.name,
        partition=stage.item,
        metadata=metadata,
        tags={DATA_VERSION_TAG: stage.data_version},
    )
