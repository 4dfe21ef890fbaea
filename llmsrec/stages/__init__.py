"""What `dvc.yaml` runs: each stage parses arguments, loads, makes one call, saves."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from llmsrec.core.errors import LLMSRecError


def run(main: Callable[[], None]) -> None:
    """Run a stage; an error that the user can correct is a line, not a traceback."""
    try:
        main()
    except LLMSRecError as error:
        sys.exit(f"error: {error}")


def paths(text: str | None, argv: Sequence[str] | None, *names: str) -> argparse.Namespace:
    """The options of a stage that `text` describes: each is a required path."""
    parser = argparse.ArgumentParser(description=text)
    for name in names:
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args(argv)
