"""Retrain repeatedly while faults are injected, and check that nothing is lost, duplicated or partially written.

Two copies of this project receive the same files of a synthetic dataset. The reference copy runs without faults. In the
other copy processes are killed in every step, the disk is filled, S3 requests fail, and two operators run at once.
After every iteration both copies must hold the same bytes.
"""

import argparse
import hashlib
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability.project import python, write_project
from reliability.proxy import NO_RESPONSE, RESPONSE_LOST, TRUNCATED, faulty_proxy
from reliability.soaking.checks import check_inbox, check_interactions, compare_sites, leftovers
from reliability.soaking.file_watcher import watched_files
from reliability.soaking.full_disk import MOUNTED, on_private_disk
from reliability.soaking.pipeline_run import (
    FULL_DISK,
    KILL_ALL,
    KILL_RUN,
    KILL_STEP,
    RUN,
    Fault,
    PipelineRun,
    run_pipeline,
)
from reliability.soaking.synthetic import ExpectedInteractions, InputFile, SyntheticDataset

DATASET = "synthetic"
S3_FAULTS = (500, 503, NO_RESPONSE, RESPONSE_LOST, TRUNCATED)
KEPT = Path("scratch/soak")  # both copies, if something was found


@dataclass
class Site:
    """A copy of the project with an S3 bucket, called `name`, for raw files, inbox and DVC's remote."""

    name: str
    root: Path
    store: Any  # a boto3 client

    def create(self, raw_files: dict[str, bytes]) -> None:
        """Create the bucket with the raw files, and the copy of the project."""
        self.store.create_bucket(Bucket=self.name)
        self.put("raw", raw_files)
        changes: dict[str, dict[str, Any]] = {
            "inbox": {DATASET: {"source": f"s3://{self.name}/in", "settled_seconds": 0, "push": True}},
            "promotion": {"gates": "none"},  # models of this size do not pass the gates
        }  # fmt: skip
        write_project(self.root, DATASET, f"s3://{self.name}/raw", changes)
        python(self.root, "dvc", "remote", "add", "--default", "store", f"s3://{self.name}/dvc")

    def put(self, prefix: str, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self.store.put_object(Bucket=self.name, Key=f"{prefix}/{name}", Body=content)


class Soak:
    """Both copies of the project, what they were sent, and what was found."""

    def __init__(self, seed: int, folder: Path, store: Any, endpoint: tuple[str, int]) -> None:
        self.draws = random.Random(seed)
        self.dataset, self.expected = SyntheticDataset(seed), ExpectedInteractions()
        self.delivered: list[InputFile] = []
        self.reference = Site("reference", folder / "reference" / "project", store)
        self.faulty = Site("faulty", folder / "faulty" / "project", store)
        self.endpoint = endpoint
        self.s3_fault_rate = 0.0
        self.kinds = [KILL_STEP, KILL_ALL, KILL_RUN, *[FULL_DISK] * (MOUNTED in os.environ)]
        self.faults: Counter[tuple[str, str]] = Counter()  # injected, by step and kind
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []

    def create(self) -> None:
        """Create both copies with the first raw files."""
        files, reviews = self.dataset.raw_files()
        self.checksums = {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
        self.expected.add(reviews)
        for site in (self.reference, self.faulty):
            site.create(files)

    def iterate(self, faults: int) -> None:
        """Deliver new files, make a reference run, `faults` runs with a fault each, and two concurrent runs."""
        self.counts["iterations"] += 1
        self._deliver()
        reference = run_pipeline(self.reference.root, "http://{}:{}".format(*self.endpoint))
        if reference.returncode:
            raise SystemExit(f"error: the reference run failed:\n{reference.output[-3000:]}")
        seconds = reference.spans[RUN][1]
        print(f"  reference run: {seconds:.0f} s, {len(reference.spans)} steps", flush=True)
        with (
            faulty_proxy(self.endpoint, self._s3_fault) as address,
            watched_files(self.faulty.root, self.checksums) as broken,
        ):
            for fault in self._faults(reference, faults):
                if not self._run(address, fault):
                    break  # the run ended: later faults would find nothing to do
            self._run_twice(address)
        self.findings += broken
        self._check()
        counts = ", ".join(f"{number:,} {what}" for what, number in self.counts.items())
        print(f"{counts}, {self.faults.total()} faults, {len(self.findings)} findings", flush=True)

    def _deliver(self) -> None:
        iteration = self.counts["iterations"]
        files = self.dataset.new_files(iteration) if iteration > 1 else []
        self.delivered += files
        for file in files:
            self.expected.add(file)
        for site in (self.reference, self.faulty):
            site.put("in", {file.name: file.content for file in files})

    def _faults(self, reference: PipelineRun, number: int) -> list[Fault]:
        """The least injected pairs of step and kind, ordered by time, since a rerun skips finished steps."""
        spans = reference.spans
        pairs = [(step, kind) for step in spans for kind in self.kinds]
        pairs = [pair for pair in pairs if pair != (RUN, KILL_STEP)]  # the same as KILL_RUN
        self.draws.shuffle(pairs)
        pairs.sort(key=lambda pair: self.faults[pair])
        faults = []
        for step, kind in pairs[:number]:
            first, last = spans[step]
            faults.append(Fault(step, kind, self.draws.random() * (last - first)))
        return sorted(faults, key=lambda fault: spans[fault.step][0] + fault.delay)

    def _run(self, address: str, fault: Fault) -> bool:
        """Whether the fault was injected; S3 requests fail too in every other run."""
        self.counts["runs"] += 1
        self.s3_fault_rate = 0.1 if self.counts["runs"] % 2 else 0.0
        run = run_pipeline(self.faulty.root, address, fault)
        self.faults[fault.step, fault.kind] += run.injected
        if run.timed_out:
            self.findings.append(f"a run timed out ({fault})")
        print(
            f"  {fault.kind} in {fault.step} after {fault.delay:.1f} s"
            f"{'' if run.injected else ' (missed)'}: exit status {run.returncode}",
            flush=True,
        )
        return run.injected

    def _run_twice(self, address: str) -> None:
        """Two concurrent runs without faults; both must succeed."""
        self.s3_fault_rate = 0.0
        self.counts["runs"] += 2
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(run_pipeline, self.faulty.root, address) for _ in range(2)]
        for run in (run.result() for run in runs):
            if run.returncode:
                output = run.output[-2000:]
                self.findings.append(f"one of two runs without faults failed:\n{output}")

    def _check(self) -> None:
        root = self.faulty.root
        self.findings += check_interactions(root, DATASET, self.expected)
        self.findings += check_inbox(self.faulty.store, self.faulty.name, self.delivered)
        self.findings += compare_sites(root, self.reference.root, DATASET)
        self.findings += leftovers(root)

    def _s3_fault(self) -> int | None:
        """The fault of the next request to S3, None for none."""
        self.counts["S3 requests"] += 1
        if self.draws.random() >= self.s3_fault_rate:
            return None
        self.counts["S3 faults"] += 1
        return self.draws.choice(S3_FAULTS)


def soak(seed: int, minutes: float, faults: int, folder: Path) -> list[str]:
    """Iterate until the time is over or something is found; the last iteration is completed. Returns the findings."""
    import boto3
    from moto.server import ThreadedMotoServer

    os.environ.update(
        AWS_ACCESS_KEY_ID="soak", AWS_SECRET_ACCESS_KEY="soak", AWS_DEFAULT_REGION="us-east-1"
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = server.get_host_and_port()
    deadline = time.monotonic() + 60 * minutes
    try:
        store = boto3.client("s3", endpoint_url="http://{}:{}".format(*endpoint))
        session = Soak(seed, folder, store, endpoint)
        session.create()
        while time.monotonic() < deadline and not session.findings:
            session.iterate(faults)
    finally:
        server.stop()
    for (step, kind), number in sorted(session.faults.items()):
        print(f"{kind} in {step}: {number}")
    return session.findings


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=6, help="runs with a fault in each iteration")
    parser.add_argument("--folder", type=Path, help="work here; default: a disk in memory")
    args = parser.parse_args(argv)
    folder = args.folder or on_private_disk(Path(tempfile.gettempdir()) / "llmsrec-soak", 2000)
    findings = soak(args.seed, args.minutes, args.faults, folder)
    for finding in findings:
        print(f"FOUND: {finding}")
    if findings and not args.folder:  # the disk in memory ends with this process
        shutil.copytree(folder, KEPT, symlinks=True, dirs_exist_ok=True)
        print(f"both copies are in {KEPT}")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
