"""What `make run` prints: the result table, failures, and a run as a person follows it."""

import io
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration import instance as home
from orchestration.run import print_failures, print_results, results_table, verdict_lines
from orchestration.terminal import Screen, TerminalHandler, terminal_logger


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


DOCUMENT: dict[str, Any] = {
    "users": 1977,
    "systems": {
        "popularity": {
            "sampled": {"ndcg@10": score(0.1234), "hr@10": score(0.25)},
            "full": {"ndcg@10": score(0.02), "hr@10": score(0.04)},
        },
        "student": {"sampled": {"ndcg@10": {"value": 0.5}, "hr@10": {"value": None}}},
    },
    "verdict": [
        {"news": "bad", "text": f"It is {'far ' * 30}behind."},
        {"news": "good", "text": "It is fast."},
    ],
}


def test_the_table_has_a_row_per_system_and_a_column_per_metric() -> None:
    head, popularity, student, foot = results_table(DOCUMENT).splitlines()
    assert re.split(r"\s{2,}", head.strip()) == [
        "sampled ndcg@10", "sampled hr@10", "full ndcg@10", "full hr@10",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", popularity) == [
        "popularity", "0.1234 [0.113, 0.133]", "0.2500 [0.240, 0.260]",
        "0.0200 [0.010, 0.030]", "0.0400 [0.030, 0.050]",
    ]  # fmt: skip
    assert student.split() == ["student", "0.5000", "-", "-", "-"]
    assert foot == "1,977 users; 95% bootstrap intervals in brackets"
    assert len(head) == len(popularity) == len(student)


def test_the_verdict_is_wrapped_and_marked() -> None:
    first, second, third = verdict_lines(DOCUMENT).splitlines()
    assert first.startswith("✗ It is far far")
    assert second.startswith("  far")
    assert second.endswith("behind.")
    assert third == "✓ It is fast."


def test_results_are_printed_with_the_place_of_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results("shop", tmp_path)
    assert capsys.readouterr().out == ""
    (tmp_path / "metrics.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "report.html").write_text("<p>")
    print_results("shop", tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("\nshop\n")
    assert results_table(DOCUMENT) in printed
    assert verdict_lines(DOCUMENT) in printed
    assert printed.endswith(f"The report: {tmp_path / 'report.html'}\n")


@dg.asset
def first(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    context.log.info("half of it is done")
    context.log.warning("a file is missing")
    return dg.MaterializeResult(
        metadata={"outcome": "ran", "seconds": 1.5, "headline": "NDCG@10 0.4000"}
    )


@dg.asset(deps=[first])
def second() -> None:
    raise dg.Failure(description="second failed\nerror: 3 users, expected 50", allow_retries=False)


@dg.asset(deps=[second])
def third() -> None:
    """Never reached."""


def execute(instance: dg.DagsterInstance, log: Path) -> dg.ExecuteInProcessResult:
    job = dg.Definitions(
        assets=[first, second, third],
        jobs=[dg.define_asset_job("all")],
        loggers={"terminal": terminal_logger},
    ).resolve_job_def("all")
    config = {"loggers": {"terminal": {"config": {"file": str(log)}}}}
    return job.execute_in_process(instance=instance, raise_on_error=False, run_config=config)


def test_a_failure_is_reported_with_its_message_and_remedy(
    instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "run.log"
    print_failures("shop", execute(instance, log), log)
    said = capsys.readouterr().err
    assert said.startswith("\nerror: second failed\nerror: 3 users, expected 50\n")
    assert "shop: stopped; the assets built so far are kept and will not be built again." in said
    assert str(log) in said
    assert "Traceback" not in said
    assert said.count("error: second failed") == 1


def test_a_run_prints_a_line_for_each_asset_and_logs_the_rest(
    instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    execute(instance, tmp_path / "run.log")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "  a file is missing",
        "✓ first               1.5 s  ran        NDCG@10 0.4000",
        "✗ second failed",
        "  Dependencies for step third failed: ['second']. Not executing.",
    ]
    logged = [line.partition(" ")[2] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert logged[:4] == ["▶ first", "half of it is done", "a file is missing", "▶ second"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_state_in_a_line_that_is_replaced() -> None:
    output = Terminal()
    screen = Screen(output)
    screen.change("▶ teacher  10%")
    screen.change("▶ teacher " + "very long " * 100 + "\nand more")
    screen.keep("✓ teacher")
    first, second, last = output.getvalue().split("\r\x1b[2K")[1:]
    assert first == "▶ teacher  10%"
    assert "\n" not in second
    assert len(second) < shutil.get_terminal_size().columns
    assert last == "✓ teacher\n"


def test_the_state_names_the_step_once(tmp_path: Path) -> None:
    output = io.StringIO()
    handler = TerminalHandler(Screen(output, every=0), tmp_path / "run.log")
    handler.step = "teacher"
    for message in ("teacher  10%", "  encoding users"):
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, message, None, None))
    assert output.getvalue() == "▶ teacher  10%\n▶ teacher  encoding users\n"


def test_elsewhere_the_state_is_printed_now_and_then() -> None:
    output = io.StringIO()
    rare, often = Screen(output, every=1e9), Screen(output, every=0)
    rare.change("▶ teacher  10%")
    often.change("▶ teacher  20%")
    assert output.getvalue() == "▶ teacher  20%\n"


def test_dagster_keeps_its_home_in_the_project_and_its_configuration_in_infra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert home.prepare() == tmp_path / "home"
    kept = Path(home.__file__).parents[1] / "infra" / "dagster.yaml"
    assert (tmp_path / "home" / "dagster.yaml").read_text() == kept.read_text()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry: {enabled: true}")
    home.prepare()
    assert (tmp_path / "home" / "dagster.yaml").read_text() == kept.read_text()
