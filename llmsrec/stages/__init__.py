"""What `dvc.yaml` runs: each stage parses arguments, loads, makes one call, saves."""

import sys
from collections.abc import Callable

from llmsrec.core.errors import LLMSRecError


def run(main: Callable[[], None]) -> None:
    """Run a stage; an error that the user can correct is a line, not a traceback."""
    try:
        main()
    except LLMSRecError as error:
        sys.exit(f"error: {error}")
