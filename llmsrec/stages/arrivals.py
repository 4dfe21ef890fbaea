"""Inbox -> data/<dataset>/: list the ready files, import them, and move imported files out of the inbox.

`archive` runs after DVC tracks the new files in data/; it reads the report that `import` wrote.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmsrec.arrivals.importer import ImportResult, archive_imported, import_files
from llmsrec.arrivals.inbox import (
    InboxConfig,
    InboxFile,
    inbox_configs,
    open_inbox,
    ready_and_waiting,
)
from llmsrec.core.config import OPERATIONS, from_mapping, load_section
from llmsrec.core.errors import ConfigError, LLMSRecError
from llmsrec.core.files import read_json, write_json
from llmsrec.core.names import name_option
from llmsrec.parsing.ingest import InteractionsConfig
from llmsrec.stages import run


def check(args: argparse.Namespace) -> None:
    """Print one line of JSON: for each dataset its ready and waiting files, or why its inbox cannot be read."""
    print(json.dumps({name: _status(config) for name, config in inbox_configs(OPERATIONS).items()}))


def import_ready(args: argparse.Namespace) -> None:
    config, source = _config(args.dataset)
    with open_inbox(source) as inbox:
        ready, _ = ready_and_waiting(inbox.files(), config.settled_seconds, time.time())
        interactions = load_section(InteractionsConfig, "interactions")
        results = import_files(inbox, ready, Path("data") / args.dataset, interactions)
    for result in results:
        detail = f"{result.target}, {result.lines:,} lines" if result.target else result.reason
        print(f"{result.status} {result.file.name}: {detail}")
    write_json(args.report, [asdict(result) for result in results])


def archive(args: argparse.Namespace) -> None:
    results = [
        ImportResult(**{**row, "file": from_mapping(InboxFile, row["file"], str(args.report))})
        for row in read_json(args.report)
    ]
    with open_inbox(_config(args.dataset)[1]) as inbox:
        archive_imported(inbox, results, Path("data") / args.dataset)


def _status(config: InboxConfig) -> dict[str, Any]:
    status: dict[str, Any] = {"ready": [], "waiting": []}
    if config.source is None:
        return status
    try:
        with open_inbox(config.source) as inbox:
            ready, waiting = ready_and_waiting(inbox.files(), config.settled_seconds, time.time())
    except (LLMSRecError, OSError) as error:  # the other inboxes are still listed
        return {**status, "error": str(error)}
    return {"ready": list(map(asdict, ready)), "waiting": list(map(asdict, waiting))}


def _config(dataset: str) -> tuple[InboxConfig, str]:
    """The inbox of a dataset and its source; ConfigError if it has none."""
    config = inbox_configs(OPERATIONS).get(dataset)
    if config is None or config.source is None:
        raise ConfigError(f"{OPERATIONS}: inbox has no source for '{dataset}'")
    return config, config.source


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("check").set_defaults(function=check)
    for name, function in (("import", import_ready), ("archive", archive)):
        command = commands.add_parser(name)
        command.add_argument("--dataset", type=name_option, required=True)
        command.add_argument("--report", type=Path, required=True)
        command.set_defaults(function=function)
    args = parser.parse_args(argv)
    args.function(args)


if __name__ == "__main__":
    run(main)
