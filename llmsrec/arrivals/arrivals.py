"""New files of a dataset: out of the inbox, judged, and into data/<dataset>/ under the hash of their content.

`take` and `clear` are two steps, so that a file leaves the inbox only when all between them (DVC's part) is done. Each
asks the disk what is done already: after a kill anywhere, both again lead to the same files.
"""

import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmsrec.arrivals.inbox import DONE, REJECTED, Inbox, InboxFile
from llmsrec.core.errors import DataError
from llmsrec.core.files import exclusive_lock, fsync_path, sha256
from llmsrec.parsing.csv_reviews import parse_file
from llmsrec.parsing.ingest import InteractionsConfig, is_ready_split
from llmsrec.parsing.metadata import parse_metadata
from llmsrec.parsing.reviews import Period

KIND = re.compile(r"\.(jsonl|csv)(\.gz)?$")
SHOWN = 20  # broken lines in a reason


@dataclass(frozen=True)
class Arrival:
    """`target` is its name in data/<dataset>/; None if it was rejected, with the reason, or still changes."""

    file: InboxFile
    status: Literal["accepted", "known", "rejected", "waiting"]
    digest: str
    target: str | None = None
    lines: int = 0
    rejects: int = 0
    reason: str | None = None


def take(
    inbox: Inbox, files: list[InboxFile], raw: Path, config: InteractionsConfig
) -> list[Arrival]:
    """Each file into `raw`, or to `rejected/` with its reason. Nothing in `raw` is ever changed."""
    raw.mkdir(parents=True, exist_ok=True)
    aside = raw.with_name(f".{raw.name}.arrivals.partial")  # hidden from DVC, on the same disk
    with exclusive_lock(raw):
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
        aside.mkdir()
        taken = [_take(inbox, file, raw, aside, config) for file in files]
        shutil.rmtree(aside)
    return taken


def clear(inbox: Inbox, arrivals: list[Arrival], raw: Path) -> None:
    """What lies in `raw` leaves the inbox for `done/`."""
    for arrival in arrivals:
        if arrival.target is not None and (raw / arrival.target).exists():
            inbox.move_to(arrival.file, arrival.digest, DONE)


def _take(
    inbox: Inbox, file: InboxFile, raw: Path, aside: Path, config: InteractionsConfig
) -> Arrival:
    copy = aside / file.name
    if not inbox.fetch(file, copy):
        return Arrival(file, "waiting", "", reason="it changed while it was read")
    digest = sha256(copy)
    try:
        lines, rejects = _judge(copy, raw, config)
    except DataError as error:
        reason = f"{error}\n".replace(str(copy), file.name)
        inbox.move_to(file, digest, REJECTED, reason)
        return Arrival(file, "rejected", digest, reason=reason.strip())
    found = _same(copy, digest, raw)
    if found is not None:
        return Arrival(file, "known", digest, found.name, lines, rejects)
    target = raw / _name(file.name, raw.name, digest)
    fsync_path(copy)
    os.replace(copy, target)
    return Arrival(file, "accepted", digest, target.name, lines, rejects)


def _same(copy: Path, digest: str, raw: Path) -> Path | None:
    """A raw file of this content, under whatever name."""
    size = copy.stat().st_size
    files = (file for file in sorted(raw.iterdir()) if file.is_file() and file.name[0] != ".")
    return next((f for f in files if f.stat().st_size == size and sha256(f) == digest), None)


def _name(name: str, dataset: str, digest: str) -> str:
    kind = KIND.search(name)
    assert kind is not None
    meta = "meta_" if name.startswith("meta_") else ""
    return f"{meta}{dataset}.{digest[:16]}{kind[0]}"


def _judge(file: Path, raw: Path, config: InteractionsConfig) -> tuple[int, int]:
    """Lines and broken lines, as the interactions stage would count them; an error says why it may not come in."""
    meta, table = file.name.startswith("meta_"), re.search(r"\.csv(\.gz)?$", file.name)
    if not KIND.search(file.name) or (meta and table):
        raise DataError(
            f"{file.name} is of no known kind: reviews are .jsonl or .csv, item texts meta_*.jsonl, gzipped or not"
        )
    if is_ready_split(file.name) or any(is_ready_split(other.name) for other in raw.iterdir()):
        raise DataError(
            f"{file.name}: a ready split (.train.csv ...) cannot grow by arrivals: give the dataset one file of all "
            "interactions as its source"
        )
    period = Period(config.earliest, config.latest)
    blocks = parse_metadata(file) if meta else parse_file(file, period)
    counted: Counter[str] = Counter()
    broken: list[dict[str, Any]] = []
    for block in blocks:
        counted["lines"] += block.num_lines - block.num_blank
        counted["rejects"] += block.rejects.num_rows
        broken += block.rejects.slice(0, SHOWN - len(broken)).to_pylist()
    lines, rejects = counted["lines"], counted["rejects"]
    if lines == 0:
        raise DataError(f"{file.name} holds no line: drop a file with content")
    if rejects == lines or rejects / lines > config.max_reject_share:
        shown = "".join(f"\n{b['file']} line {b['line']}: {b['reason']}" for b in broken)
        raise DataError(
            f"{rejects:,} of {lines:,} lines of {file.name} are broken ({rejects / lines:.1%}; allowed "
            f"{config.max_reject_share:.1%}): mend the file and drop it again. The first of them:{shown}"
        )
    return lines, rejects
