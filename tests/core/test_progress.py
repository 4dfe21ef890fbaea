"""Lines of progress: share, rate and time left, seldom enough to read."""

import pytest

from llmsrec.core import progress
from llmsrec.core.progress import Progress, track


class Clock:
    """Time as the test tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_tells_share_rate_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("reading", 2_000, "lines")
    clock.now += 4
    shown.advance(500, note="loss 0.5")
    assert (
        capsys.readouterr().err
        == "reading   25%  500/2,000 lines  125 lines/s  0:12 left  loss 0.5\n"
    )


def test_without_a_total_a_line_tells_the_time_so_far(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("reading", None, "lines")
    clock.now += 90
    shown.advance(1_800)
    assert capsys.readouterr().err == "reading  1,800 lines  20 lines/s  1:30 so far\n"


def test_lines_come_at_most_once_an_interval(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("ranking", 100, "users", interval=2.0)
    for _ in range(10):
        clock.now += 0.5
        shown.advance(10)
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == [
        "40/100",
        "80/100",
    ]


def test_hours_are_told_as_hours(clock: Clock) -> None:
    shown = Progress("student", 7_323, "steps")
    shown.done = 1
    assert "  2:02:02 left" in shown.line(seconds=1.0)


def test_a_resumed_work_is_timed_by_what_it_did_itself(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("fetching", 1_000, "bytes", done=800)
    clock.now += 10
    shown.advance(100)
    assert capsys.readouterr().err == "fetching   90%  900/1,000 bytes  10 bytes/s  0:10 left\n"


def test_work_that_starts_over_is_timed_from_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("fetching", 1_000, "bytes", done=800)
    shown.restart()
    clock.now += 10
    shown.advance(100)
    assert capsys.readouterr().err == "fetching   10%  100/1,000 bytes  10 bytes/s  1:30 left\n"


def test_more_than_announced_leaves_no_time(clock: Clock) -> None:
    shown = Progress("fetching", 100, "bytes")
    shown.done = 150
    assert shown.line(seconds=1.0).endswith("0:00 left")


def test_track_passes_everything_on(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    passed = []
    for item in track("abc", "walking", total=3, unit="letters"):
        passed.append(item)
        clock.now += 3
    assert passed == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["1/3", "2/3", "3/3"]
