"""A disk of our own that can be filled to the brim, without harm to anybody else's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

MOUNTED = "RELIABILITY_DISK"  # the folder, for the process that was started on it
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def on_own_disk(folder: Path, megabytes: int) -> Path:
    """Start this program anew where `folder` is a disk in memory that nobody else sees; there, return it.

    SystemExit where Linux does not let us."""
    if MOUNTED in os.environ:
        return Path(os.environ[MOUNTED])
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"]).returncode:
        raise SystemExit(
            "error: no disk of its own can be made (unshare --user --mount of util-linux does not work here); "
            "--folder names a folder to work in, and nothing will be done about full disks"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mount = f'mount -t tmpfs -o size={megabytes}m none "$0" && exec "$@"'
    again = [str(folder), sys.executable, *sys.orig_argv[1:]]
    os.environ[MOUNTED] = str(folder)
    os.execvp(UNSHARE[0], [*UNSHARE, "sh", "-c", mount, *again])
    raise AssertionError("exec does not return")


def filled(folder: Path) -> Callable[[], None]:
    """No byte is free until the call that is returned."""
    ballast = folder / ".ballast"
    free = shutil.disk_usage(folder).free
    with ballast.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, free))
        except OSError:  # somebody was faster: then what is left
            while True:
                try:
                    os.write(file.fileno(), bytes(4096))
                except OSError:
                    break
    return lambda: ballast.unlink(missing_ok=True)
