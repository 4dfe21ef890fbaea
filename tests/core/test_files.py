"""A path holds the complete old or the complete new content, however the writer ends."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import (
    atomic_directory,
    atomic_write,
    read_json,
    sha256,
    write_json,
)
from llmsrec.core.parquet import read_parquet

OLD = {"a.txt": "old a", "deep/b.txt": "old b", "deep/c.txt": "old c"}
NEW = {"a.txt": "new a", "deep/b.txt": "new b", "d.txt": "new d"}

KILLED_INSIDE = """
import os, signal, sys
from pathlib import Path
from llmsrec.core.files import atomic_directory, atomic_write

path = Path(sys.argv[1])
if sys.argv[2] == "file":
    with atomic_write(path) as temporary:
        temporary.write_text("half of")
        os.kill(os.getpid(), signal.SIGKILL)
with atomic_directory(path) as staging:
    (staging / "a.txt").write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""

# In each folder 0, 1, ... a process of its own writes `out`, until one is not killed; that of folder n is killed at its
# n-th call that changes or flushes a file. The processes are forked: an import for each would take minutes.
KILLED_AT = """
import os, signal, sys
from pathlib import Path
from llmsrec.core.files import atomic_directory

def write(path, remaining):
    def counting(call):
        def counted(*arguments, **keywords):
            nonlocal remaining
            remaining -= 1
            if remaining < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)
        return counted

    with atomic_directory(path) as staging:
        (staging / "deep").mkdir()
        for name, text in {new}.items():
            (staging / name).write_text(text)
        for name in ("fsync", "replace", "rename", "unlink", "rmdir"):
            setattr(os, name, counting(getattr(os, name)))

for calls in range(100):
    if not (child := os.fork()):
        write(Path(sys.argv[1], str(calls), "out"), calls)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != signal.SIGKILL:
        sys.exit(status)
"""


def fill(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in folder.rglob("*")
        if file.is_file()
    }


def python(script: str, *arguments: object) -> int:
    return subprocess.run([sys.executable, "-c", script, *map(str, arguments)]).returncode


def test_a_file_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert contents(tmp_path) == {"new/folder/x.txt": "new"}


def test_a_file_keeps_its_old_content_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half of")
        raise RuntimeError
    assert contents(tmp_path) == {"x.txt": "old"}


def test_a_folder_replaces_the_old_one_completely(tmp_path: Path) -> None:
    path = fill(tmp_path / "out", OLD)
    with atomic_directory(path) as staging:
        fill(staging, NEW)
        assert contents(path) == OLD
    assert contents(path) == NEW
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_keeps_its_old_content_when_the_block_raises(tmp_path: Path) -> None:
    path = fill(tmp_path / "out", OLD)
    with pytest.raises(RuntimeError), atomic_directory(path) as staging:  # noqa: PT012
        fill(staging, NEW)
        raise RuntimeError
    assert contents(path) == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_does_not_appear_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "out") as staging:  # noqa: PT012
        fill(staging, NEW)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_its_old_content_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    assert python(KILLED_INSIDE, path, "file") == -signal.SIGKILL
    assert [file for file in tmp_path.iterdir() if not file.name.startswith(".")] == [path]
    assert path.read_text() == "old"
    living = tmp_path / f".x.txt.{os.getppid()}.partial"
    living.touch()
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == [living, path], "the file of the killed run is removed"


def test_a_folder_keeps_its_old_content_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = fill(tmp_path / "out", OLD)
    assert python(KILLED_INSIDE, path, "folder") == -signal.SIGKILL
    assert [file for file in tmp_path.iterdir() if not file.name.startswith(".")] == [path]
    assert contents(path) == OLD
    with atomic_directory(path) as staging:
        assert contents(staging) == {}  # the files of the killed run are removed
        fill(staging, NEW)
    assert contents(path) == NEW
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_never_partial_whenever_the_writer_is_killed(tmp_path: Path) -> None:
    paths = [fill(tmp_path / str(calls) / "out", OLD) for calls in range(100)]
    assert python(KILLED_AT.replace("{new}", repr(NEW)), tmp_path) == 0
    results = [contents(path) if path.exists() else {} for path in paths]
    assert all(content in ({}, OLD, NEW) for content in results)
    assert results[0] == OLD
    assert NEW in results[5:]
    assert results[-1] == OLD, "the writer of an earlier folder was not killed"


def test_json_round_trip(tmp_path: Path) -> None:
    document = {"name": "Ün", "values": [1, 2.5, None], "deep": {"yes": True}}
    write_json(tmp_path / "x.json", document)
    assert read_json(tmp_path / "x.json") == document


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert read_json(tmp_path / "x.json") == {"loss": 1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_the_error_for_a_missing_json_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"x\.json is missing: run the step that writes it"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\x93\xff\x00 no text"])
def test_the_error_for_a_damaged_json_file_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.json is damaged .*: delete its folder and rerun"):
        read_json(tmp_path / "x.json")


def test_sha256_hashes_the_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 10_000)
    assert sha256(large) == hashlib.sha256(large.read_bytes()).hexdigest()


@pytest.mark.parametrize("cut", [0, 20, -4])
def test_the_error_for_a_damaged_parquet_file_names_it_and_the_remedy(
    tmp_path: Path, cut: int
) -> None:
    file = tmp_path / "users.parquet"
    pd.DataFrame({"user_id": ["a", "b"]}).to_parquet(file)
    assert list(read_parquet(file)["user_id"]) == ["a", "b"]
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"users\.parquet is damaged .*dvc repro"):
        read_parquet(file)


def test_the_error_for_a_missing_parquet_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"users\.parquet is missing: run `dvc repro`"):
        read_parquet(tmp_path / "users.parquet")
