"""Progress lines: share, rate and remaining time, at most one per interval."""

import pytest

from llmsrec.core import progress as progress_module
from llmsrec.core.progress import Progress, track


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_has_share_rate_and_remaining_time(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("reading", 2_000, "lines")
    clock.now += 4
    progress.advance(500, note="loss 0.5")
    assert (
        capsys.readouterr().err
        == "reading   25%  500/2,000 lines  125 lines/s  0:12 left  loss 0.5\n"
    )


def test_without_a_total_a_line_has_the_elapsed_time(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("reading", None, "lines")
    clock.now += 90
    progress.advance(1_800)
    assert capsys.readouterr().err == "reading  1,800 lines  20 lines/s  1:30 so far\n"


def test_at_most_one_line_is_printed_per_interval(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("ranking", 100, "users", interval=2.0)
    for _ in range(10):
        clock.now += 0.5
        progress.advance(10)
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == [
        "40/100",
        "80/100",
    ]


def test_long_times_are_printed_with_hours(clock: Clock) -> None:
    progress = Progress("student", 7_323, "steps")
    progress.done = 1
    assert "  2:02:02 left" in progress.line(seconds=1.0)


def test_initial_units_do_not_count_for_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("fetching", 1_000, "bytes", initial=800)
    clock.now += 10
    progress.advance(100)
    assert capsys.readouterr().err == "fetching   90%  900/1,000 bytes  10 bytes/s  0:10 left\n"


def test_restart_counts_from_zero(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("fetching", 1_000, "bytes", initial=800)
    progress.restart()
    clock.now += 10
    progress.advance(100)
    assert capsys.readouterr().err == "fetching   10%  100/1,000 bytes  10 bytes/s  1:30 left\n"


def test_more_units_than_the_total_leave_no_remaining_time(clock: Clock) -> None:
    progress = Progress("fetching", 100, "bytes")
    progress.done = 150
    assert progress.line(seconds=1.0).endswith("0:00 left")


def test_track_yields_every_item(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    passed = []
    for item in track("abc", "walking", total=3, unit="letters"):
        passed.append(item)
        clock.now += 3
    assert passed == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["1/3", "2/3", "3/3"]
