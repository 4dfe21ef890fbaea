"""The asset that takes new files out of a dataset's inbox, the job that runs it alone, and the sensor that asks for it.

The work is `llmsrec.stages.arrivals`; between its two steps DVC learns of the new files. A file leaves the inbox last,
so whatever is killed, the next run finds it there and goes on.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from orchestration.child import run_child
from orchestration.dvc_assets import StageFailed
from orchestration.dvc_project import DvcError, DvcProject, Result
from orchestration.raw_reviews import FOLDER

STAGE = "llmsrec.stages.arrivals"
JOB = "take_arrivals"
LOOK_SECONDS = 50  # Dagster ends a tick after 60

arrivals_job = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets("arrivals"),
    description="Take what has settled in a dataset's inbox",
    tags={
        "dagster/max_retries": "3"
    },  # a run_key is asked for once: a store that is down may be up again
)


def arrivals_asset(
    project: DvcProject, datasets: list[str], inboxes: Mapping[str, Mapping[str, Any]]
) -> dg.AssetsDefinition:
    @dg.asset(
        name="arrivals",
        deps=["raw_reviews"],
        description="New files out of the inbox, judged, under the hash of their content beside the first ones",
        group_name="data",
        pool="cpu",
        partitions_def=dg.StaticPartitionsDefinition(datasets),
        kinds={"dvc"},
    )
    def arrivals(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        dataset = context.partition_key
        inbox = inboxes.get(dataset, {})
        result = Result("unchanged", 0.0, ())
        found: list[dict[str, Any]] = []
        if inbox.get("source") is not None:
            push = bool(inbox.get("push"))
            result, found = take_in(project, dataset, push, context.log.info)
        if result.outcome == "failed":
            raise StageFailed(f"arrivals@{dataset}", result)
        counts = {
            status: sum(row["status"] == status for row in found)
            for status in ("accepted", "known", "rejected", "waiting")
        }
        yield dg.MaterializeResult(
            metadata={
                "outcome": result.outcome,
                "seconds": round(result.seconds, 1),
                "inbox": str(inbox.get("source")),
                **counts,
                "files": dg.MetadataValue.md(files_table(found)),
            },
            data_version=dg.DataVersion(project.tracked_hash(f"{FOLDER}/{dataset}") or "none"),
        )

    return arrivals


def take_in(
    project: DvcProject, dataset: str, push: bool, report: Callable[[str], None]
) -> tuple[Result, list[dict[str, Any]]]:
    """Inbox -> data/ -> DVC -> its remote if wanted -> out of the inbox; what came of each file."""
    start = time.monotonic()
    before = project.tracked_hash(f"{FOLDER}/{dataset}")
    path = f"scratch/{dataset}/arrivals.json"
    arguments = ["--dataset", dataset, "--report", path]

    def step(verb: str) -> tuple[int, list[str]]:
        return run_child([sys.executable, "-m", STAGE, verb, *arguments], project.root, report)

    returncode, tail = step("import")
    found: list[dict[str, Any]] = []
    if not returncode:
        found = json.loads((project.root / path).read_text(encoding="utf-8"))
        targets = [f"{FOLDER}/{dataset}/{row['target']}" for row in found if row["target"]]
        try:
            if targets:
                project.add(FOLDER, sorted(set(targets)), report)
            if targets and push:
                project.push(FOLDER, report)
        except DvcError as error:
            return Result("failed", time.monotonic() - start, tuple(str(error).splitlines())), found
        if targets:
            returncode, tail = step("archive")
    changed = project.tracked_hash(f"{FOLDER}/{dataset}") != before
    outcome = "failed" if returncode else "ran" if changed else "unchanged"
    return Result(outcome, time.monotonic() - start, tuple(tail)), found


def files_table(found: list[dict[str, Any]]) -> str:
    lines = ["| file | | as | lines | broken | why |", "|---|---|---|---|---|---|"]
    for row in found:
        reason = (row["reason"] or "").splitlines()[:1]
        cells = [row["file"]["name"], row["status"], row["target"] or "", row["lines"]]
        cells += [row["rejects"], *reason]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def inbox_sensor(project: DvcProject, datasets: list[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name="inbox",
        job=arrivals_job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,  # an inbox that operations.yaml names is meant to be watched
        description="Asks for a run when files have settled in an inbox of operations.yaml",
    )
    def inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        looked = look(project) if datasets else {}
        requests, said = [], []
        for dataset in datasets:
            found = looked[dataset]
            if "error" in found:
                said.append(f"{dataset}: {found['error']}")
            if found["ready"]:
                state = hashlib.sha256(json.dumps(found["ready"]).encode()).hexdigest()[:16]
                requests.append(dg.RunRequest(f"{dataset}:{state}", partition_key=dataset))
            elif names := [file["name"] for file in found["waiting"]]:
                said.append(f"{dataset}: {', '.join(names)} may still grow")
        reason = "; ".join(said) or "no file in any inbox"
        return dg.SensorResult(requests, skip_reason=None if requests else reason)

    return inbox


def look(project: DvcProject) -> dict[str, Any]:
    """Of each dataset with an inbox: `ready` and `waiting` files, or an `error`."""
    done = subprocess.run(
        [sys.executable, "-m", STAGE, "check"],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=LOOK_SECONDS,
    )
    if done.returncode:
        raise dg.Failure(f"the inboxes cannot be looked at: {done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
