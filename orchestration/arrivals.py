"""The asset that ingests new files of a dataset's inbox, the job that runs it alone, and the sensor that requests it.

`llmsrec.stages.arrivals` does the work; between its two steps DVC tracks the new files. A file leaves
the inbox last, so that a run can be killed at any point and the next run continues.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from orchestration.asset_metadata import markdown_table
from orchestration.child import run_child
from orchestration.dvc_project import DvcError, DvcProject, Result
from orchestration.raw_reviews import FOLDER, data_asset

STAGE = "llmsrec.stages.arrivals"
JOB = "take_arrivals"
CHECK_TIMEOUT = 50  # seconds; Dagster ends a tick after 60

arrivals_job = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets("arrivals"),
    description="Ingest the settled files of a dataset's inbox",
    # The sensor requests a run_key once; a retry helps if the inbox cannot be reached for a while.
    tags={"dagster/max_retries": "3"},
)


def arrivals_asset(
    project: DvcProject, datasets: list[str], inboxes: Mapping[str, Mapping[str, Any]]
) -> dg.AssetsDefinition:
    """The asset `arrivals`, partitioned by dataset; `inboxes` has the inbox of each dataset that has one."""

    def ingest(context: dg.AssetExecutionContext) -> tuple[Result, dict[str, Any]]:
        inbox = inboxes.get(context.partition_key, {})
        result = Result("unchanged", 0.0, ())
        files: list[dict[str, Any]] = []
        if inbox.get("source") is not None:
            push = bool(inbox.get("push"))
            result, files = ingest_arrivals(project, context.partition_key, push, context.log.info)
        counts = Counter(row["status"] for row in files)
        return result, {
            "inbox": str(inbox.get("source")),
            **{status: counts[status] for status in ("accepted", "known", "rejected", "waiting")},
            "files": dg.MetadataValue.md(files_table(files)),
        }

    description = "New files of the inbox, validated and added to the raw files under the hash of their content"
    return data_asset(project, "arrivals", datasets, description, ingest, ("raw_reviews",))


def ingest_arrivals(
    project: DvcProject, dataset: str, push: bool, log: Callable[[str], None]
) -> tuple[Result, list[dict[str, Any]]]:
    """Copy the settled files of an inbox to data/, track them, push them if `push`, then empty the inbox.

    Returns the result and a row for each file: its status, target, counts and the reason of a rejection.
    """
    start = time.monotonic()
    before = project.tracked_hash(f"{FOLDER}/{dataset}")
    path = f"scratch/{dataset}/arrivals.json"
    arguments = ["--dataset", dataset, "--report", path]

    def step(verb: str) -> tuple[int, list[str]]:
        return run_child([sys.executable, "-m", STAGE, verb, *arguments], project.root, log)

    returncode, tail = step("import")
    files: list[dict[str, Any]] = []
    if not returncode:
        files = json.loads((project.root / path).read_text(encoding="utf-8"))
        targets = [f"{FOLDER}/{dataset}/{row['target']}" for row in files if row["target"]]
        try:
            if targets:
                project.add(FOLDER, sorted(set(targets)), log)
            if targets and push:
                project.push(FOLDER, log)
        except DvcError as error:
            return Result("failed", time.monotonic() - start, tuple(str(error).splitlines())), files
        if targets:
            returncode, tail = step("archive")
    changed = project.tracked_hash(f"{FOLDER}/{dataset}") != before
    outcome = "failed" if returncode else "ran" if changed else "unchanged"
    return Result(outcome, time.monotonic() - start, tuple(tail)), files


def files_table(files: list[dict[str, Any]]) -> str:
    """A Markdown table with a row for each file of the inbox."""
    rows = [
        (row["file"]["name"], row["status"], row["target"], row["lines"], row["rejects"],
         (row["reason"] or "").partition("\n")[0])
        for row in files
    ]  # fmt: skip
    return markdown_table(["file", "status", "stored as", "lines", "broken", "reason"], rows)


def inbox_sensor(project: DvcProject, datasets: list[str]) -> dg.SensorDefinition:
    """A sensor that requests one run of `take_arrivals` for each state of an inbox."""

    @dg.sensor(
        name="inbox",
        job=arrivals_job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,  # a configured inbox should be watched
        description="Requests a run when files of an inbox have settled",
    )
    def inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        inboxes = check_inboxes(project) if datasets else {}
        requests, messages = [], []
        for dataset in datasets:
            inbox_state = inboxes[dataset]
            if "error" in inbox_state:
                messages.append(f"{dataset}: {inbox_state['error']}")
            if inbox_state["ready"]:
                state = hashlib.sha256(json.dumps(inbox_state["ready"]).encode()).hexdigest()[:16]
                requests.append(dg.RunRequest(f"{dataset}:{state}", partition_key=dataset))
            elif names := [file["name"] for file in inbox_state["waiting"]]:
                messages.append(f"{dataset}: {', '.join(names)} may still grow")
        reason = "; ".join(messages) or "no file in any inbox"
        return dg.SensorResult(requests, skip_reason=None if requests else reason)

    return inbox


def check_inboxes(project: DvcProject) -> dict[str, Any]:
    """By dataset with an inbox: its `ready` and `waiting` files, or an `error`; raises dg.Failure."""
    done = subprocess.run(
        [sys.executable, "-m", STAGE, "check"],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=CHECK_TIMEOUT,
    )
    if done.returncode:
        raise dg.Failure(f"the inboxes cannot be checked: {done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
