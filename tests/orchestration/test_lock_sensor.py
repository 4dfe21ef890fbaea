"""What `dvc repro` made outside of Dagster is reported to it, each hash once."""

from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.dvc_assets import dvc_assets
from orchestration.dvc_project import DvcProject
from orchestration.lock_sensor import DATA_VERSION_TAG, dvc_lock_sensor
from orchestration.schedules import PARTITION_TAG
from tests.orchestration.small_project import QUIET, dvc

pytestmark = QUIET


def tick(root: Path, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    found = dvc_lock_sensor(DvcProject(root, external=("data",)))(context)
    assert isinstance(found, dg.SensorResult)
    for event in found.asset_events:
        instance.report_runless_asset_event(event)  # as the daemon does
    return found


def reported(result: dg.SensorResult) -> set[tuple[str, str | None]]:
    return {(event.asset_key.to_user_string(), event.partition) for event in result.asset_events}


def test_what_was_built_outside_is_reported_once(root: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(root, instance)
        assert reported(first) == {
            ("words", "north"), ("words", "south"), ("counts", "north"), ("counts", "south"), ("summary", None),
        }  # fmt: skip
        shown: dict[str, Any] = {
            event.asset_key.to_user_string(): event
            for event in first.asset_events
            if event.partition in ("north", None)
        }
        stages = DvcProject(root).stages()
        assert shown["counts"].tags == {DATA_VERSION_TAG: stages["counts@north"].data_version}
        assert shown["counts"].metadata["outcome"].value == "outside of Dagster"
        assert shown["counts"].metadata["words"].value == 6
        assert not tick(root, instance).asset_events
        assert "unchanged" in str(tick(root, instance, first.cursor).skip_reason)

        (root / "data/north/text.txt").write_text("rain falls on the low fells")
        dvc(root, "repro", "--quiet", "counts@north")
        assert reported(tick(root, instance, first.cursor)) == {
            ("words", "north"), ("counts", "north"),
        }  # fmt: skip


def test_what_dagster_made_or_is_making_is_not_reported(root: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize(
            dvc_assets(DvcProject(root, external=("data",)), {}),
            selection=dg.AssetSelection.assets("words", "counts"),
            partition_key="north",
            instance=instance,
        )
        tags = {PARTITION_TAG: "south"}
        status = dg.DagsterRunStatus.STARTED
        instance.add_run(dg.DagsterRun(job_name="pipeline", status=status, tags=tags))
        found = tick(root, instance)
        assert reported(found) == {("summary", None)}
        assert found.cursor is None, "the same dvc.lock is looked at again"


def test_before_anything_is_built_there_is_nothing_to_report(root: Path) -> None:
    (root / "dvc.lock").unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        assert "no dvc.lock" in str(tick(root, instance).skip_reason)
