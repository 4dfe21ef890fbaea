"""Kill a function at a change of the disk, in a child process."""

import os
import sys
from collections.abc import Callable

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile", "shutil.rmtree"}


def killed_at(number: int | None, work: Callable[[], object]) -> int:
    """Call `work` in a forked process that ends with status 9 at its change of this number; returns its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        if event in CHANGES or writes:
            changes += 1
            if changes == number:
                os._exit(9)

    sys.addaudithook(count)
    work()
    os._exit(0)
