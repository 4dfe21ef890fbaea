"""Repeated retrainings under faults: nothing lost, nothing doubled, nothing half-written, the same bytes in the end.

Two copies of this project get the same files of a made-up shop. One is left in peace. The other is struck while it
retrains: processes killed in every step, its disk filled, its S3 store in trouble, two operators at once. After every
round both must hold the same.
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
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reliability.project import python, write_project
from reliability.proxy import CUT, HANG_UP, LOST, troubled
from reliability.soaking.attempt import (
    FULL_DISK,
    KILL_ALL,
    KILL_RUN,
    KILL_STEP,
    RUN,
    Attempt,
    Fault,
    attempt,
)
from reliability.soaking.checks import against_ledger, left_aside, of_inbox, same
from reliability.soaking.disk import MOUNTED, on_own_disk
from reliability.soaking.shop import Delivery, Ledger, Shop
from reliability.soaking.watch import Watcher

DATASET = "shop"
TROUBLE = (500, 503, HANG_UP, LOST, CUT)


@dataclass
class Site:
    """A copy of the project with a bucket of its own, which has the raw files, the inbox and DVC's remote."""

    name: str
    root: Path
    store: Any

    def open(self, files: dict[str, bytes]) -> None:
        self.store.create_bucket(Bucket=self.name)
        for name, content in files.items():
            self.store.put_object(Bucket=self.name, Key=f"raw/{name}", Body=content)
        inbox = {"source": f"s3://{self.name}/in", "settled_seconds": 0, "push": True}
        changes: dict[str, dict[str, Any]] = {
            "inbox": {DATASET: inbox},
            "promotion": {"gates": "none"},  # models of this size have no sense of order
        }
        write_project(self.root, DATASET, f"s3://{self.name}/raw", changes)
        python(self.root, "dvc", "remote", "add", "--default", "store", f"s3://{self.name}/dvc")

    def deliver(self, deliveries: list[Delivery]) -> None:
        for file in deliveries:
            self.store.put_object(Bucket=self.name, Key=f"in/{file.name}", Body=file.content)


@dataclass
class Tally:
    """What was done, and what came of it."""

    rounds: int = 0
    runs: int = 0
    requests: int = 0  # to S3, through the proxy
    looked: int = 0  # files found whole or not
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)  # by step and strike
    missed: int = 0  # the step was over, or had nothing to do
    trouble: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    purchases: int = 0

    def document(self) -> dict[str, Any]:
        faults = [
            {"step": step, "strike": strike, "times": times}
            for (step, strike), times in sorted(self.faults.items())
        ]
        return {**vars(self), "faults": faults, "trouble": dict(sorted(self.trouble.items()))}


class Soak:
    def __init__(self, seed: int, folder: Path, store: Any, endpoint: tuple[str, int]) -> None:
        self.draws = random.Random(seed)
        self.shop, self.ledger, self.sent = Shop(seed), Ledger(), list[Delivery]()
        self.peaceful = Site("peaceful", folder / "peaceful" / "project", store)
        self.struck = Site("struck", folder / "struck" / "project", store)
        self.endpoint = endpoint
        self.tally = Tally()
        self.rate = 0.0  # of requests to S3 that meet trouble
        self.strikes = [KILL_STEP, KILL_ALL, KILL_RUN, FULL_DISK]
        if MOUNTED not in os.environ:
            self.strikes.remove(FULL_DISK)

    def open(self) -> None:
        files, reviews = self.shop.opening()
        self.known = {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
        self.ledger.enter(reviews)
        for site in (self.peaceful, self.struck):
            site.open(files)

    def round(self, faults: int) -> None:
        """New files, a run in peace, and `faults` runs with one each before two at once that must succeed."""
        self.tally.rounds += 1
        deliveries = self.shop.deliveries(self.tally.rounds) if self.tally.rounds > 1 else []
        self.sent += deliveries
        for delivery in deliveries:
            self.ledger.enter(delivery)
        for site in (self.peaceful, self.struck):
            site.deliver(deliveries)
        peaceful = attempt(self.peaceful.root, "http://{}:{}".format(*self.endpoint))
        if peaceful.returncode:
            raise SystemExit(f"error: without any fault the run fails:\n{peaceful.said[-3000:]}")
        print(
            f"  in peace: {peaceful.spans[RUN][1]:.0f} s, {len(peaceful.spans)} steps", flush=True
        )
        before = len(self.tally.findings)
        with (
            troubled(self.endpoint, self._answer) as address,
            Watcher(self.struck.root, self.known) as watcher,
        ):
            for fault in self._faults(peaceful, faults):
                if not self._run(address, fault, peaceful):
                    break  # it ran to its end: nothing is left to strike
            self._finish(address)
        self.tally.looked += watcher.looked
        self.tally.findings += watcher.broken
        self._check()
        self._tell(len(self.tally.findings) - before)

    def _faults(self, peaceful: Attempt, number: int) -> list[Fault]:
        """Of the steps and strikes that had the fewest, in the order of their moments: what is done is not redone."""
        pairs = [(step, strike) for step in peaceful.spans for strike in self.strikes]
        pairs = [pair for pair in pairs if pair != (RUN, KILL_STEP)]  # the same as to kill the run
        self.draws.shuffle(pairs)
        pairs.sort(key=lambda pair: self.tally.faults[pair])
        chosen = [Fault(step, strike, self.draws.random()) for step, strike in pairs[:number]]
        return sorted(chosen, key=lambda fault: moment(fault, peaceful))

    def _run(self, address: str, fault: Fault, peaceful: Attempt) -> bool:
        """Whether it was struck; every other one is before a store in trouble."""
        first, last = peaceful.spans[fault.step]
        self.tally.runs += 1
        self.rate = 0.1 if self.tally.runs % 2 else 0.0
        ended = attempt(self.struck.root, address, fault, last - first)
        if ended.struck:
            self.tally.faults[fault.step, fault.strike] += 1
        else:
            self.tally.missed += 1
        if ended.hung:
            self.tally.findings.append(f"round {self.tally.rounds}: a run hung ({fault})")
        print(
            f"  {fault.strike} in {fault.step} after {fault.share:.0%}"
            f"{'' if ended.struck else ' (missed)'}: ended with {ended.returncode}",
            flush=True,
        )
        return ended.struck

    def _finish(self, address: str) -> None:
        """Two operators at once, and nothing in their way but what was left; both must come to an end."""
        self.rate = 0.0
        root = self.struck.root
        self.tally.runs += 2
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(attempt, root, address) for _ in range(2)]
        for run in both:
            if run.result().returncode:
                said = run.result().said[-2000:]
                self.tally.findings.append(
                    f"round {self.tally.rounds}: undisturbed, one of two operators failed:\n{said}"
                )

    def _check(self) -> None:
        root = self.struck.root
        found = against_ledger(root, DATASET, self.ledger)
        found += of_inbox(self.struck.store, self.struck.name, self.sent)
        found += same(root, self.peaceful.root, DATASET)
        found += left_aside(root)
        self.tally.findings += [f"round {self.tally.rounds}: {finding}" for finding in found]
        self.tally.purchases = len(self.ledger.firsts)

    def _answer(self) -> int | None:
        """Of the proxy, to the next request."""
        self.tally.requests += 1
        if self.draws.random() >= self.rate:
            return None
        given = self.draws.choice(TROUBLE)
        names = {HANG_UP: "no answer", LOST: "answer lost", CUT: "answer cut"}
        self.tally.trouble[names.get(given, str(given))] += 1
        return given

    def _tell(self, findings: int) -> None:
        print(
            f"round {self.tally.rounds}: {self.tally.purchases:,} purchases, {self.tally.runs} runs, "
            f"{sum(self.tally.faults.values())} strikes, {sum(self.tally.trouble.values())} troubled requests of "
            f"{self.tally.requests:,}; {'all as it should be' if not findings else f'{findings} FINDINGS'}",
            flush=True,
        )


def moment(fault: Fault, peaceful: Attempt) -> float:
    """Seconds after the start of a run in peace."""
    first, last = peaceful.spans[fault.step]
    return first + fault.share * (last - first)


def soak(seed: int, minutes: float, faults: int, folder: Path) -> Tally:
    """Rounds until the time is over; the one that was begun is ended."""
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
        soaked = Soak(seed, folder, store, endpoint)
        soaked.open()
        while time.monotonic() < deadline and not soaked.tally.findings:
            soaked.round(faults)
    finally:
        server.stop()
    return soaked.tally


def keep(folder: Path, place: Path) -> None:
    """Out of the disk in memory, to be looked at."""
    shutil.copytree(folder, place, symlinks=True, dirs_exist_ok=True)
    print(f"both copies are kept in {place}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=6, help="runs of a round that are struck")
    parser.add_argument("--report", type=Path, help="a JSON file for the counts")
    parser.add_argument("--folder", type=Path, help="to work in; without it a disk in memory")
    parser.add_argument(
        "--keep", type=Path, default=Path("scratch/soak"), help="for what was found"
    )
    args = parser.parse_args(argv)
    folder = args.folder or on_own_disk(Path(tempfile.gettempdir()) / "llmsrec-soak", 2000)
    tally = soak(args.seed, args.minutes, args.faults, folder)
    if args.report:
        args.report.write_text(json.dumps(tally.document(), indent=2) + "\n")
    for finding in tally.findings:
        print(f"FOUND: {finding}")
    if tally.findings and not args.folder:
        keep(folder, args.keep)
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
