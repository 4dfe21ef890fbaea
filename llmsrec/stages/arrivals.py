"""Inbox -> data/<dataset>/: list what has settled, take it, and clear the inbox of what was taken.

`clear` runs after what lies in data/ is registered; the report of `take` tells it what may go.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmsrec.arrivals import arrivals
from llmsrec.arrivals.arrivals import Arrival
from llmsrec.arrivals.inbox import InboxFile, inbox_configs, open_inbox, settled
from llmsrec.core.config import OPERATIONS, from_mapping, load_section
from llmsrec.core.errors import ConfigError, LLMSRecError
from llmsrec.core.files import read_json, write_json
from llmsrec.parsing.ingest import InteractionsConfig
from llmsrec.stages import run


def check_inbox(args: argparse.Namespace) -> None:
    """One line of JSON: of each dataset, the settled files, those to wait for, or why its inbox cannot be read."""
    print(json.dumps({name: _look(config) for name, config in inbox_configs(OPERATIONS).items()}))


def take(args: argparse.Namespace) -> None:
    config = _config(args.dataset)
    with open_inbox(str(config.source)) as inbox:
        ready, _ = settled(inbox.files(), config.settled_seconds, time.time())
        raw = Path("data") / args.dataset
        taken = arrivals.take(inbox, ready, raw, load_section(InteractionsConfig, "interactions"))
    for arrival in taken:
        said = f"{arrival.target}, {arrival.lines:,} lines" if arrival.target else arrival.reason
        print(f"{arrival.status} {arrival.file.name}: {said}")
    write_json(args.report, [asdict(arrival) for arrival in taken])


def clear(args: argparse.Namespace) -> None:
    taken = [
        Arrival(**{**row, "file": from_mapping(InboxFile, row["file"], str(args.report))})
        for row in read_json(args.report)
    ]
    with open_inbox(str(_config(args.dataset).source)) as inbox:
        arrivals.clear(inbox, taken, Path("data") / args.dataset)


def _look(config: Any) -> dict[str, Any]:
    if config.source is None:
        return {"ready": [], "waiting": []}
    try:
        with open_inbox(config.source) as inbox:
            found = settled(inbox.files(), config.settled_seconds, time.time())
    except (
        LLMSRecError,
        OSError,
    ) as error:  # one inbox that cannot be read keeps no other from being looked at
        return {"ready": [], "waiting": [], "error": str(error)}
    return dict(zip(("ready", "waiting"), ([asdict(f) for f in fs] for fs in found), strict=True))


def _config(dataset: str) -> Any:
    config = inbox_configs(OPERATIONS).get(dataset)
    if config is None or config.source is None:
        raise ConfigError(f"{OPERATIONS}: inbox has no source for '{dataset}'")
    return config


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verbs.add_parser("look").set_defaults(verb=check_inbox)
    for verb in (take, clear):
        command = verbs.add_parser(verb.__name__)
        command.add_argument("--dataset", required=True)
        command.add_argument("--report", type=Path, required=True)
        command.set_defaults(verb=verb)
    args = parser.parse_args(argv)
    args.verb(args)


if __name__ == "__main__":
    run(main)
