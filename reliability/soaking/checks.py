"""What must hold after a round, each finding a sentence; none is what one hopes for."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from reliability.project import outputs
from reliability.soaking.shop import Delivery, Ledger
from reliability.soaking.watch import visible


def against_ledger(root: Path, dataset: str, ledger: Ledger) -> list[str]:
    """No purchase lost, doubled or invented, and broken lines counted."""
    path = root / "artifacts" / dataset / "interactions" / "interactions.parquet"
    rows = pq.read_table(path, columns=["user_id", "item_id", "timestamp"]).to_pylist()
    held = Counter(tuple(row.values()) for row in rows)
    wanted = Counter((*pair, time) for pair, time in ledger.firsts.items())
    found = [f"{path.name}: {n} more of {row} than there are" for row, n in (held - wanted).items()]
    found += [f"{path.name}: {n} of {row} lost" for row, n in (wanted - held).items()]
    report = json.loads((root / "reports" / dataset / "interactions.json").read_text())["reviews"]
    for name, number in (("lines", ledger.lines), ("rejects", ledger.broken)):
        if report[name] != number:
            found.append(f"interactions.json counts {report[name]} {name} of {number}")
    return found


def of_inbox(store: Any, bucket: str, sent: list[Delivery]) -> list[str]:
    """All dealt with; what was good in done/, what was refused in rejected/ with its reason."""
    names = {key.removeprefix("in/") for key in keys(store, bucket, "in/")}
    found = [f"{name} stayed in the inbox" for name in names if "/" not in name]
    for delivery in sent:
        place = "rejected" if delivery.refused else "done"
        key = f"{place}/{delivery.name}"
        if key not in names:
            found.append(f"{delivery.name} is not in {place}/")
        elif store.get_object(Bucket=bucket, Key=f"in/{key}")["Body"].read() != delivery.content:
            found.append(f"{key} has other bytes")
        if delivery.refused and f"{key}.reason.txt" not in names:
            found.append(f"{key} has no reason beside it")
    wanted = len(sent) + sum(delivery.refused for delivery in sent)
    if len(names) > wanted:
        found.append(f"{len(names)} files below the inbox, {wanted} are explained")
    return found


def same(root: Path, other: Path, dataset: str) -> list[str]:
    """As DVC has recorded it, as it lies there, and what serves."""
    found = []
    ours, theirs = outputs(root, dataset), outputs(other, dataset)
    for path in sorted(ours | theirs):
        if ours.get(path) != theirs.get(path):
            found.append(f"dvc.lock: {path} is not what it is without faults")
    tracked = [_tracked(folder) for folder in (root, other)]
    if tracked[0] != tracked[1]:
        found.append(f"data.dvc is {tracked[0]} and without faults {tracked[1]}")
    ours, theirs = contents(root), contents(other)
    for path in sorted(ours | theirs):
        if ours.get(path) != theirs.get(path):
            found.append(f"{path} is not what it is without faults")
    return found


def _tracked(root: Path) -> Any:
    """What data.dvc says but the size: DVC leaves that out where its own notes were lost."""
    outs = yaml.safe_load((root / "data.dvc").read_text())["outs"]
    return [{key: value for key, value in out.items() if key != "size"} for out in outs]


def contents(root: Path) -> dict[str, str]:
    """The bytes of all that a reader sees."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in visible(root)
    }


def left_aside(root: Path) -> list[str]:
    """Of writing that did not end; DVC's own folder and the scratch aside."""
    kinds = ("*.partial", "*.old")
    paths = [path for kind in kinds for path in root.rglob(f".{kind}")]
    held = (".dvc", "scratch")
    return [
        f"{path.relative_to(root)} was left behind"
        for path in paths
        if path.relative_to(root).parts[0] not in held
    ]


def keys(store: Any, bucket: str, prefix: str) -> list[str]:
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]
