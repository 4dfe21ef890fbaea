"""The checks after an iteration of the soak; each returns its findings as sentences."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from reliability.project import outputs
from reliability.soaking.file_watcher import visible_files
from reliability.soaking.synthetic import ExpectedInteractions, InputFile


def check_interactions(root: Path, dataset: str, expected: ExpectedInteractions) -> list[str]:
    """No interaction is lost, duplicated or added, and the counts of lines and broken lines are right."""
    path = root / "artifacts" / dataset / "interactions" / "interactions.parquet"
    rows = pq.read_table(path, columns=["user_id", "item_id", "timestamp"]).to_pylist()
    present = Counter(tuple(row.values()) for row in rows)
    wanted = Counter((*pair, time) for pair, time in expected.first_times.items())
    findings = [f"{path.name}: {n} of {row} too many" for row, n in (present - wanted).items()]
    findings += [f"{path.name}: {n} of {row} lost" for row, n in (wanted - present).items()]
    report = json.loads((root / "reports" / dataset / "interactions.json").read_text())["reviews"]
    for name, number in (("lines", expected.lines), ("rejects", expected.broken)):
        if report[name] != number:
            findings.append(f"interactions.json counts {report[name]} {name} of {number}")
    return findings


def check_inbox(store: Any, bucket: str, delivered: list[InputFile]) -> list[str]:
    """The inbox is empty; valid files are in done/, the others in rejected/ with a reason."""
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="in/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    names = {key.removeprefix("in/") for key in keys}
    findings = [f"{name} stayed in the inbox" for name in names if "/" not in name]
    for file in delivered:
        key = f"{'rejected' if file.rejected else 'done'}/{file.name}"
        if key not in names:
            findings.append(f"{file.name} is not in {key.partition('/')[0]}/")
        elif store.get_object(Bucket=bucket, Key=f"in/{key}")["Body"].read() != file.content:
            findings.append(f"{key} has other bytes")
        if file.rejected and f"{key}.reason.txt" not in names:
            findings.append(f"{key} has no reason file")
    expected = len(delivered) + sum(file.rejected for file in delivered)
    if len(names) > expected:
        findings.append(f"{len(names)} files below the inbox, expected {expected}")
    return findings


def compare_sites(root: Path, reference: Path, dataset: str) -> list[str]:
    """The hashes of dvc.lock and data.dvc, and all visible files, are those of the reference."""
    actual, expected = (_hashes(folder, dataset) for folder in (root, reference))
    paths = sorted(actual | expected)
    return [
        f"{path} differs from the reference"
        for path in paths
        if actual.get(path) != expected.get(path)
    ]


def _hashes(root: Path, dataset: str) -> dict[str, Any]:
    """By what has them. DVC omits the size in data.dvc if its cache of file states was lost."""
    tracked = yaml.safe_load((root / "data.dvc").read_text())["outs"]
    data = [{key: value for key, value in out.items() if key != "size"} for out in tracked]
    locked = {f"dvc.lock: {path}": md5 for path, md5 in outputs(root, dataset).items()}
    files = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in visible_files(root)
    }
    return {"data.dvc": data, **locked, **files}


def leftovers(root: Path) -> list[str]:
    """Unfinished files of atomic writes outside of .dvc/ and scratch/."""
    paths = [*root.rglob(".*.partial"), *root.rglob(".*.old")]
    relative = [path.relative_to(root) for path in paths]
    return [
        f"{path} was left behind" for path in relative if path.parts[0] not in (".dvc", "scratch")
    ]
