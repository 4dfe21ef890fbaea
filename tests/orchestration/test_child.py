"""A child process: its lines as they come, its exit status, and its whole group gone when we are stopped."""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from orchestration import child
from orchestration.child import run_child

# It starts a child of its own, as a stage's shell does, and neither goes away by itself.
FAMILY = """
import os, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), grandchild.pid, flush=True)
time.sleep(600)
"""
STUBBORN = (
    """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
    + FAMILY
)

TIDY = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where we run in the background of a shell
try:
    input()  # until the child does as dvc does
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    open("tidy", "w").close()
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def ignore(_line: str) -> None:
    """For children whose output does not matter."""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids: list[int]) -> bool:
    """Within a minute, long before they would end by themselves: the machine may be busy."""
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


# It goes on only after each line was reported.
IN_TURN = """
import time
from pathlib import Path
for n in range(3):
    print("line", n)
    while not Path(f"line {n}").exists():
        time.sleep(0.01)
print()
"""


def test_lines_come_while_the_child_runs(tmp_path: Path) -> None:
    status, tail = run_child(python(IN_TURN), tmp_path, lambda line: (tmp_path / line).touch())
    assert status == 0
    assert tail == ["line 0", "line 1", "line 2"], "and no empty one"


def test_the_status_and_both_streams_are_handed_back(tmp_path: Path) -> None:
    code = "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\nsys.exit(7)"
    assert run_child(python(code), tmp_path, ignore) == (7, ["out", "err"])


def test_a_long_output_is_reported_whole_and_only_its_end_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    _, tail = run_child(python("for n in range(500): print(n)"), tmp_path, lines.append)
    assert lines == [str(n) for n in range(500)]
    assert tail == lines[-200:]


def test_undecodable_bytes_are_replaced(tmp_path: Path) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'caf\xe9\n')"
    assert run_child(python(code), tmp_path, ignore) == (0, ["caf\N{REPLACEMENT CHARACTER}"])


def test_a_child_runs_in_the_root_with_our_python_and_what_we_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("KEPT", "kept")
    code = "import os, sys; print(os.getcwd(), sys.prefix, os.environ['KEPT'], os.environ['MORE'])"
    _, tail = run_child(["sh", "-c", f'python -c "{code}"'], tmp_path, ignore, {"MORE": "more"})
    assert tail == [f"{tmp_path} {sys.prefix} kept more"]


def test_a_child_does_not_inherit_standard_input(tmp_path: Path) -> None:
    assert run_child(python("print(repr(input()))"), tmp_path, ignore)[0] != 0


@pytest.mark.parametrize("code", [FAMILY, STUBBORN], ids=["obedient", "stubborn"])
def test_an_interrupt_ends_the_whole_process_group(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grace = ((signal.SIGINT, 0.5), (signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0))
    monkeypatch.setattr(child, "STOP_SIGNALS", grace)
    family: list[int] = []

    def interrupt(line: str) -> None:
        family.extend(int(pid) for pid in line.split())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(python(code), tmp_path, interrupt)
    assert len(family) == 2
    assert gone(family)


def test_the_process_group_gets_sigterm_before_sigkill(tmp_path: Path) -> None:
    """As dvc does, the child waits for its own child, which tidies up when it is interrupted."""
    code = f"""
import signal, subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", {TIDY!r}], stdin=subprocess.PIPE, text=True)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("go", file=grandchild.stdin, flush=True)
grandchild.wait()
"""

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(python(code), tmp_path, interrupt)
    assert (tmp_path / "tidy").exists()


@pytest.mark.slow
def test_a_grandchild_that_outlives_the_child_is_ended(tmp_path: Path) -> None:
    """The grandchild says when it is deaf to the signal; before that it would obey too."""
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "print(flush=True); time.sleep(600)"
    )
    code = f"""
import os, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", {deaf!r}], stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(os.getpid(), grandchild.pid, flush=True)
time.sleep(600)
"""
    family: list[int] = []

    def interrupt(line: str) -> None:
        family.extend(int(pid) for pid in line.split())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(python(code), tmp_path, interrupt)
    assert gone(family)


def test_a_signal_to_the_parent_does_not_reach_the_child(tmp_path: Path) -> None:
    """Ctrl-C reaches a terminal's whole group; the child has one of its own and is stopped by us, in order."""
    groups: list[str] = []
    run_child(python("import os; print(os.getpgrp())"), tmp_path, groups.append)
    assert groups != [str(os.getpgrp())]


def test_children_run_in_parallel(tmp_path: Path) -> None:
    ends: list[int] = []

    def run(code: str) -> None:
        ends.append(run_child(python(code), tmp_path, ignore)[0])

    threads = [Thread(target=run, args=(f"raise SystemExit({n})",)) for n in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == [3, 4]
