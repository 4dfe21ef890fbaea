"""Usage: FOLDER, with inbox/ and data/. For every n: import, get killed at the n-th disk change, import again."""

import json
import os
import shutil
import sys
from pathlib import Path

from llmsrec.arrivals.inbox import FolderInbox
from tests.arrivals.test_importer import import_all

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile", "shutil.rmtree"}


def work(folder: Path, kill_at: int | None) -> int:
    """Import in a child process; returns its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        if event in CHANGES or writes:
            changes += 1
            if changes == kill_at:
                os._exit(9)

    sys.addaudithook(count)
    import_all(FolderInbox(folder / "inbox"), folder / "data" / "shop")
    os._exit(0)


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
