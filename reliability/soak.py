"""Retrain repeatedly while faults are injected, and check that nothing is lost, duplicated or partially written.

Two copies of this project receive the same files of a synthetic dataset. The reference copy runs without faults. In the
other copy processes are killed in every step, the disk is filled, S3 requests fail, and two operators run at once.
After every iteration both copies must hold the same bytes.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reliability.proxy import NO_RESPONSE, RESPONSE_LOST, TRUNCATED, faulty_proxy
from reliability.soaking.checks import check_inbox, check_interactions, compare_sites, leftovers
from reliability.soaking.file_watcher import FileWatcher
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
from reliability.soaking.site import DATASET, Site
from reliability.soaking.synthetic import ExpectedInteractions, InputFile, SyntheticDataset
from reliability.soaking.tally import Tally

S3_FAULTS = (500, 503, NO_RESPONSE, RESPONSE_LOST, TRUNCATED)
S3_FAULT_NAMES = {
    NO_RESPONSE: "no response",
    RESPONSE_LOST: "response lost",
    TRUNCATED: "truncated",
}


class Soak:
    """Both copies of the project, what they were sent, and what was found."""

    def __init__(self, seed: int, folder: Path, store: Any, endpoint: tuple[str, int]) -> None:
        self.draws = random.Random(seed)
        self.dataset, self.expected = SyntheticDataset(seed), ExpectedInteractions()
        self.delivered: list[InputFile] = []
        self.reference = Site("reference", folder / "reference" / "project", store)
        self.faulty = Site("faulty", folder / "faulty" / "project", store)
        self.endpoint = endpoint
        self.tally = Tally()
        self.s3_fault_rate = 0.0
        self.kinds = [KILL_STEP, KILL_ALL, KILL_RUN, FULL_DISK]
        if MOUNTED not in os.environ:
            self.kinds.remove(FULL_DISK)

    def create(self) -> None:
        """Create both copies with the first raw files."""
        files, reviews = self.dataset.raw_files()
        self.checksums = {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
        self.expected.add(reviews)
        for site in (self.reference, self.faulty):
            site.create(files)

    def iterate(self, faults: int) -> None:
        """Deliver new files, make a reference run, `faults` runs with a fault each, and two concurrent runs."""
        self.tally.iterations += 1
        self._deliver()
        reference = run_pipeline(self.reference.root, "http://{}:{}".format(*self.endpoint))
        if reference.returncode:
            raise SystemExit(f"error: the reference run failed:\n{reference.output[-3000:]}")
        seconds = reference.spans[RUN][1]
        print(f"  reference run: {seconds:.0f} s, {len(reference.spans)} steps", flush=True)
        before = len(self.tally.findings)
        with (
            faulty_proxy(self.endpoint, self._s3_fault) as address,
            FileWatcher(self.faulty.root, self.checksums) as watcher,
        ):
            for fault in self._faults(reference, faults):
                if not self._run(address, fault, reference):
                    break  # the run ended: later faults would find nothing to do
            self._run_twice(address)
        self.tally.files_read += watcher.num_read
        self.tally.findings += watcher.broken
        self._check()
        print(self.tally.line(len(self.tally.findings) - before), flush=True)

    def _deliver(self) -> None:
        files = self.dataset.new_files(self.tally.iterations) if self.tally.iterations > 1 else []
        self.delivered += files
        for file in files:
            self.expected.add(file)
        for site in (self.reference, self.faulty):
            site.deliver(files)

    def _faults(self, reference: PipelineRun, number: int) -> list[Fault]:
        """The least injected pairs of step and kind, ordered by time, since a rerun skips finished steps."""
        pairs = [(step, kind) for step in reference.spans for kind in self.kinds]
        pairs = [pair for pair in pairs if pair != (RUN, KILL_STEP)]  # the same as KILL_RUN
        self.draws.shuffle(pairs)
        pairs.sort(key=lambda pair: self.tally.faults[pair])
        faults = [Fault(step, kind, self.draws.random()) for step, kind in pairs[:number]]
        return sorted(faults, key=lambda fault: due_time(fault, reference))

    def _run(self, address: str, fault: Fault, reference: PipelineRun) -> bool:
        """Whether the fault was injected; S3 requests fail too in every other run."""
        first, last = reference.spans[fault.step]
        self.tally.runs += 1
        self.s3_fault_rate = 0.1 if self.tally.runs % 2 else 0.0
        run = run_pipeline(self.faulty.root, address, fault, last - first)
        if run.injected:
            self.tally.faults[fault.step, fault.kind] += 1
        else:
            self.tally.missed += 1
        if run.timed_out:
            self.tally.findings.append(
                f"iteration {self.tally.iterations}: a run timed out ({fault})"
            )
        print(
            f"  {fault.kind} in {fault.step} after {fault.share:.0%}"
            f"{'' if run.injected else ' (missed)'}: exit status {run.returncode}",
            flush=True,
        )
        return run.injected

    def _run_twice(self, address: str) -> None:
        """Two concurrent runs without faults; both must succeed."""
        self.s3_fault_rate = 0.0
        self.tally.runs += 2
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(run_pipeline, self.faulty.root, address) for _ in range(2)]
        for run in runs:
            if run.result().returncode:
                output = run.result().output[-2000:]
                self.tally.findings.append(
                    f"iteration {self.tally.iterations}: one of two runs without faults failed:\n{output}"
                )

    def _check(self) -> None:
        root = self.faulty.root
        findings = check_interactions(root, DATASET, self.expected)
        findings += check_inbox(self.faulty.store, self.faulty.name, self.delivered)
        findings += compare_sites(root, self.reference.root, DATASET)
        findings += leftovers(root)
        self.tally.findings += [f"iteration {self.tally.iterations}: {text}" for text in findings]
        self.tally.interactions = len(self.expected.first_times)

    def _s3_fault(self) -> int | None:
        """The fault of the next request to S3, None for none."""
        self.tally.requests += 1
        if self.draws.random() >= self.s3_fault_rate:
            return None
        fault = self.draws.choice(S3_FAULTS)
        self.tally.s3_faults[S3_FAULT_NAMES.get(fault, str(fault))] += 1
        return fault


def due_time(fault: Fault, reference: PipelineRun) -> float:
    """Seconds from the start of the reference run to the moment of the fault."""
    first, last = reference.spans[fault.step]
    return first + fault.share * (last - first)


def soak(seed: int, minutes: float, faults: int, folder: Path) -> Tally:
    """Iterate until the time is over or something is found; the last iteration is completed."""
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
        while time.monotonic() < deadline and not session.tally.findings:
            session.iterate(faults)
    finally:
        server.stop()
    return session.tally


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=6, help="runs with a fault in each iteration")
    parser.add_argument("--report", type=Path, help="write all counts to this JSON file")
    parser.add_argument("--folder", type=Path, help="work here; default: a disk in memory")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("scratch/soak"),
        help="copy both projects here on findings",
    )
    args = parser.parse_args(argv)
    folder = args.folder or on_private_disk(Path(tempfile.gettempdir()) / "llmsrec-soak", 2000)
    tally = soak(args.seed, args.minutes, args.faults, folder)
    if args.report:
        args.report.write_text(json.dumps(tally.document(), indent=2) + "\n")
    for finding in tally.findings:
        print(f"FOUND: {finding}")
    if tally.findings and not args.folder:  # the disk in memory ends with this process
        shutil.copytree(folder, args.keep, symlinks=True, dirs_exist_ok=True)
        print(f"both copies are in {args.keep}")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
