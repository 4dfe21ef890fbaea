"""Usage: FOLDER, with inbox/ and data/. For every n: import, get killed at the n-th disk change, import again."""

import json
import shutil
import sys
from pathlib import Path

from llmsrec.arrivals.inbox import FolderInbox
from tests.arrivals.test_importer import import_all
from tests.killing import killed_at


def work(folder: Path, kill_at: int | None) -> int:
    """Import in a child process; returns its exit status."""
    return killed_at(
        kill_at, lambda: import_all(FolderInbox(folder / "inbox"), folder / "data" / "shop")
    )


def main(start: Path) -> None:
    kill_at, status = 0, 9
    while status:
        kill_at += 1
        folder = shutil.copytree(start, start.with_name(f"{start.name}_{kill_at}"))
        status = work(folder, kill_at)
        assert status in (0, 9)
        assert work(folder, None) == 0
        print(json.dumps(str(folder)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
