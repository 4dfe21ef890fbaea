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
    names = {key.removeprefix("in/") for key in list_keys(store, bucket, "in/")}
    findings = [f"{name} stayed in the inbox" for name in names if "/" not in name]
    for file in delivered:
        folder = "rejected" if file.rejected else "done"
        key = f"{folder}/{file.name}"
        if key not in names:
            findings.append(f"{file.name} is not in {folder}/")
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
    findings = []
    actual, expected = outputs(root, dataset), outputs(reference, dataset)
    for path in sorted(actual | expected):
        if actual.get(path) != expected.get(path):
            findings.append(f"dvc.lock: {path} differs from the reference")
    tracked = [_tracked(folder) for folder in (root, reference)]
    if tracked[0] != tracked[1]:
        findings.append(f"data.dvc is {tracked[0]}, in the reference {tracked[1]}")
    actual, expected = checksums(root), checksums(reference)
    for path in sorted(actual | expected):
        if actual.get(path) != expected.get(path):
            findings.append(f"{path} differs from the reference")
    return findings


def _tracked(root: Path) -> Any:
    """The outputs in data.dvc without their size, which DVC omits if its cache of file states was lost."""
    outs = yaml.safe_load((root / "data.dvc").read_text())["outs"]
    return [{key: value for key, value in out.items() if key != "size"} for out in outs]


def checksums(root: Path) -> dict[str, str]:
    """The sha256 of each visible file, by relative path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in visible_files(root)
    }


def leftovers(root: Path) -> list[str]:
    """Unfinished files of atomic writes outside of .dvc/ and scratch/."""
    kinds = ("*.partial", "*.old")
    paths = [path for kind in kinds for path in root.rglob(f".{kind}")]
    ignored = (".dvc", "scratch")
    return [
        f"{path.relative_to(root)} was left behind"
        for path in paths
        if path.relative_to(root).parts[0] not in ignored
    ]


def list_keys(store: Any, bucket: str, prefix: str) -> list[str]:
    """The keys of all objects below a prefix."""
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
