"""When a retraining is worth it: enough new lines, none under way, and what failed is tried again."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from llmsrec.core.errors import ConfigError
from orchestration.dvc_project import DvcProject
from orchestration.schedules import (
    PARTITION_TAG,
    Schedule,
    evaluate_schedule,
    new_lines,
    retraining_schedules,
)

ROOT = Path(__file__).parents[2]
DAILY = Schedule("0 3 * * *", "Europe/Berlin", 3)


@pytest.fixture
def own() -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """One file is built; what comes beside it is new."""
    folder = tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    (folder / "shop.jsonl").write_bytes(b"{}\n{}\n")
    report = tmp_path / "reports" / "shop" / "interactions.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"reviews": {"files": ["shop.jsonl"], "lines": 2}}))
    return tmp_path


def arrive(root: Path, name: str, lines: int, dataset: str = "shop") -> None:
    text = b"{}\n\n" * lines
    (root / "data" / dataset / name).write_bytes(
        gzip.compress(text) if name.endswith("gz") else text
    )


def told(root: Path, instance: dg.DagsterInstance) -> str:
    found = evaluate_schedule(instance, root, "shop", DAILY)
    assert isinstance(found, dg.SkipReason)
    return str(found.skip_message)


def run(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    dataset: str = "shop",
    job: str = "retrain",
) -> None:
    instance.add_run(dg.DagsterRun(job_name=job, status=status, tags={PARTITION_TAG: dataset}))


def test_only_lines_of_reviews_that_are_not_built_count(shop: Path) -> None:
    assert new_lines(shop, "shop") == (0, 2)
    arrive(shop, "shop.0a.jsonl.gz", 2)
    arrive(shop, "meta_shop.0b.jsonl", 5)
    arrive(shop, ".half.partial", 5)
    assert new_lines(shop, "shop") == (2, 2)
    assert new_lines(shop, "nowhere") == (0, 0)


def test_too_few_new_lines_are_skipped_with_the_counts(shop: Path, own: dg.DagsterInstance) -> None:
    arrive(shop, "shop.0a.jsonl", 2)
    assert told(shop, own) == "shop: 2 new lines, 2 built, 3 new ones needed"
    arrive(shop, "shop.0b.jsonl", 1)
    found = evaluate_schedule(own, shop, "shop", DAILY)
    assert isinstance(found, dg.RunRequest)
    assert found.partition_key == "shop"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
def test_no_two_trainings_of_one_dataset(
    shop: Path, own: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    arrive(shop, "shop.0a.jsonl", 3)
    run(own, status, "another")
    run(own, status, job="take_arrivals")
    assert isinstance(evaluate_schedule(own, shop, "shop", DAILY), dg.RunRequest)
    run(own, status, job="pipeline")
    assert "is in progress" in told(shop, own)


def test_a_failed_run_is_repeated_though_its_lines_are_built(
    shop: Path, own: dg.DagsterInstance
) -> None:
    run(own, dg.DagsterRunStatus.FAILURE)
    assert isinstance(evaluate_schedule(own, shop, "shop", DAILY), dg.RunRequest)
    run(own, dg.DagsterRunStatus.SUCCESS)
    assert told(shop, own).startswith("shop: 0 new lines")


def test_each_scheduled_dataset_has_its_schedule(tmp_path: Path) -> None:
    values = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "min_new_interactions": 3}
    project = DvcProject(tmp_path)
    (found,) = retraining_schedules(project, {"my-shop": values, "other": None})
    assert (found.name, found.cron_schedule) == ("retrain_my_shop", "0 3 * * *")
    assert found.execution_timezone == "Europe/Berlin"
    assert found.job_name == "retrain"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"colour": "blue"},
            "schedules.shop.colour is unknown; known keys: cron, timezone, min_new_interactions",
        ),
        (
            {"min_new_interactions": "many"},
            "min_new_interactions is 'many'; expected a whole number",
        ),
        ({"min_new_interactions": -1}, "min_new_interactions is -1"),
        ({"cron": "often"}, "cron"),
        ({"timezone": "Atlantis"}, "Atlantis"),
    ],
)
def test_the_error_names_a_wrong_schedule(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    values = {"cron": "0 3 * * *", "timezone": "UTC", "min_new_interactions": 3, **changes}
    with pytest.raises((ConfigError, dg.DagsterInvalidDefinitionError), match=said):
        retraining_schedules(DvcProject(tmp_path), {"shop": values})


def test_dagster_runs_one_at_a_time_of_each_partition() -> None:
    """So no two trainings of a dataset, and no file arrives under one that reads."""
    written = yaml.safe_load((ROOT / "infra" / "dagster.yaml").read_text())
    assert written["concurrency"]["runs"]["tag_concurrency_limits"] == [
        {"key": PARTITION_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    ]


def test_the_schedules_of_operations_yaml_can_be_read() -> None:
    scheduled = yaml.safe_load((ROOT / "operations.yaml").read_text())["schedules"]
    assert retraining_schedules(DvcProject(ROOT), scheduled)


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")
def test_a_tick_starts_the_chain_of_that_dataset_without_its_download(
    root: Path, tmp_path: Path
) -> None:
    """Through all definitions, as the daemon evaluates it."""
    from orchestration.definitions import build

    values = {"cron": "0 3 * * *", "timezone": "UTC", "min_new_interactions": 3}
    schedules = {"schedules": {"north": values, "closed": values}}
    (root / "operations.yaml").write_text(yaml.safe_dump(schedules))
    arrive(root, "more.jsonl", 3, "north")
    repository = build(root).get_repository_def()
    (schedule,) = repository.schedule_defs  # `closed` is no dataset now
    assert schedule.name == "retrain_north"
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 1, 1, 3),
            repository_def=repository,
        )
        (request,) = schedule.evaluate_tick(context).run_requests
    assert request.tags[PARTITION_TAG] == "north"
    assert "4 new lines" in request.tags["why"]
    chosen = repository.get_job("retrain").asset_layer.selected_asset_keys
    names = {"arrivals", "words", "counts", "summary"}
    assert names == {key.to_user_string() for key in chosen}
