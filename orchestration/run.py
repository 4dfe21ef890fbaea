"""`make run`: materialise every asset of every dataset of params.yaml in this process, without Dagster's UI."""

import json
import logging
import os
import sys
import textwrap
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import dagster as dg

from llmsrec.core.errors import ConfigError
from orchestration import run_liveness
from orchestration.dvc_project import DvcError
from orchestration.instance import prepare

MARKS = {"bad": "✗", "open": "•", "good": "✓"}  # of the news of a statement, as in the report


def main() -> int:
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # of MLflow's first migration
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    prepare()
    try:
        from orchestration.definitions import JOB, ROOT, datasets, defs
    except (ConfigError, DvcError, dg.DagsterInvalidDefinitionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    job = defs.resolve_job_def(JOB)
    start = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        for dataset, source in datasets().items():
            log = ROOT / "scratch" / dataset / "run.log"
            print(f"\n{dataset} (from {source}); details in {os.path.relpath(log)}", flush=True)
            result = run_job(job, instance, dataset, log)
            if not result.success:
                print_failures(dataset, result, log)
                return 1
    for dataset in datasets():
        print_results(dataset, ROOT / "reports" / dataset)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(
        f"\nDone in {minutes} min {seconds} s. `make explore` opens a page to try it, `make ui` the pages of"
    )
    print("  Dagster http://127.0.0.1:3000 and MLflow http://127.0.0.1:5000")
    return 0


def run_job(
    job: dg.JobDefinition, instance: dg.DagsterInstance, dataset: str, log: Path
) -> dg.ExecuteInProcessResult:
    """Run the job in this process, after other runs of the dataset have ended and dead runs are marked as failed.

    Every message of its steps is written to `log`."""
    release_dataset = run_liveness.lock_dataset(
        dataset, lambda line: print(f"    {line}", flush=True)
    )
    for run in run_liveness.reap_dead_runs(instance):
        print(
            f"    run {run[:8]} was killed: this run continues from its last checkpoints",
            flush=True,
        )
    run_id = str(uuid.uuid4())
    release_run = run_liveness.lock_run(run_id)
    try:
        return job.execute_in_process(
            instance=instance,
            partition_key=dataset,
            run_config={"loggers": {"terminal": {"config": {"file": str(log)}}}},
            raise_on_error=False,
            run_id=run_id,
        )
    finally:
        release_run()
        release_dataset()


def print_failures(dataset: str, result: dg.ExecuteInProcessResult, log: Path) -> None:
    """Print the error of each failed step to stderr."""
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            failure = data.user_failure_data
            text = failure.description if failure else data.error_display_string
            print(f"\nerror: {text}", file=sys.stderr)
    print(
        f"\n{dataset}: stopped; the assets built so far are kept and will not be built again. The log: {log}",
        file=sys.stderr,
    )


def print_results(dataset: str, reports: Path) -> None:
    """Print the metrics, the promotion and the path of the report, as far as they exist."""
    metrics = reports / "metrics.json"
    if metrics.is_file():
        document = json.loads(metrics.read_text(encoding="utf-8"))
        print(f"\n{dataset}\n{results_table(document)}\n\n{verdict_lines(document)}")
    promotion = reports / "promotion.json"
    if promotion.is_file():
        print(f"\nThe champion: {json.loads(promotion.read_text(encoding='utf-8'))['why']}")
    if (reports / "report.html").is_file():
        print(f"\nThe report: {reports / 'report.html'}")


def results_table(document: dict[str, Any]) -> str:
    """A text table of metrics.json: systems as rows; metrics with 95% intervals, sampled and full, as columns."""
    systems = document.get("systems", {})
    columns = [
        (ranking, metric) for ranking in ("sampled", "full") for metric in ("ndcg@10", "hr@10")
    ]
    width = max(map(len, systems), default=0)
    lines = ["  ".join([" " * width, *(f"{f'{r} {m}':>22}" for r, m in columns)])]
    for name, rankings in systems.items():
        cells = [_cell(rankings.get(ranking, {}).get(metric)) for ranking, metric in columns]
        lines.append("  ".join([f"{name:{width}}", *(f"{cell:>22}" for cell in cells)]))
    if "users" in document:
        lines.append(f"{document['users']:,} users; 95% bootstrap intervals in brackets")
    return "\n".join(lines)


def verdict_lines(document: dict[str, Any]) -> str:
    """The verdict of metrics.json, one paragraph a statement, worst news first."""
    return "\n".join(
        textwrap.fill(f"{MARKS[row['news']]} {row['text']}", 110, subsequent_indent="  ")
        for row in document.get("verdict", [])
    )


def _cell(value: dict[str, float] | None) -> str:
    if not value or value.get("value") is None:
        return "-"
    text = f"{value['value']:.4f}"
    if "low" in value and "high" in value:
        text += f" [{value['low']:.3f}, {value['high']:.3f}]"
    return text


if __name__ == "__main__":
    sys.exit(main())
