"""A private disk in memory that can be filled completely without affecting other programs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

MOUNTED = "RELIABILITY_DISK"  # environment variable: the folder where the disk is mounted
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def on_private_disk(folder: Path, megabytes: int) -> Path:
    """Restart this program in a mount namespace where `folder` is a disk in memory; in there, return the folder.

    Raises SystemExit if Linux does not permit it.
    """
    if MOUNTED in os.environ:
        return Path(os.environ[MOUNTED])
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"]).returncode:
        raise SystemExit(
            "error: no private disk can be created (`unshare --user --mount` of util-linux does not work here); "
            "`--folder` names a folder to work in, and then no disk is filled"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mount = f'mount -t tmpfs -o size={megabytes}m none "$0" && exec "$@"'
    arguments = [str(folder), sys.executable, *sys.orig_argv[1:]]
    os.environ[MOUNTED] = str(folder)
    os.execvp(UNSHARE[0], [*UNSHARE, "sh", "-c", mount, *arguments])
    raise AssertionError("exec does not return")


def fill_disk(folder: Path) -> Callable[[], None]:
    """Fill the disk of `folder`; the returned function frees the space."""
    ballast = folder / ".ballast"
    free = shutil.disk_usage(folder).free
    with ballast.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, free))
        except OSError:  # less space than a moment ago: fill the rest
            while True:
                try:
                    os.write(file.fileno(), bytes(4096))
                except OSError:
                    break
    return lambda: ballast.unlink(missing_ok=True)
