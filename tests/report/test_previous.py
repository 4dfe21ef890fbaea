"""The run before is remembered, whatever happens."""

from pathlib import Path

from llmsrec.core.files import read_json, write_json
from llmsrec.report.previous import previous_run


def test_the_previous_run_is_the_latest_of_another_student(
    tmp_path: Path,
) -> None:
    assert previous_run(tmp_path, "a") is None
    write_json(tmp_path / "metrics.json", {"model": "a", "users": 1})
    assert previous_run(tmp_path, "a") is None  # the same student, ranked again
    for _ in range(2):  # the second time as if the first had been killed
        assert previous_run(tmp_path, "b") == {"model": "a", "users": 1}
    write_json(tmp_path / "metrics.json", {"model": "b", "users": 2})
    assert previous_run(tmp_path, "b") == {"model": "a", "users": 1}
    assert previous_run(tmp_path, "c") == {"model": "b", "users": 2}
    assert read_json(tmp_path / "previous.json") == {"model": "b", "users": 2}
