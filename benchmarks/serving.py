"""Latency and throughput of a served model bundle (`mlflow models serve`), over HTTP on this machine.

    python -m benchmarks.serving --dataset sample      # needs what `make run` builds

Histories are those of the store's own test users. Under load, as many clients as `--clients` ask without a pause for
`--seconds`; the server answers one at a time, so they wait for each other. References of the ratios: the same rows
asked for one at a time, and the same answer without HTTP and MLflow.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch

from benchmarks.figures import Figure, print_figures
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.serving.recommender import Recommender, UserHistory
from llmsrec.serving.user_kv_cache import UserKVCache
from llmsrec.stages import pack_bundle

K = 10
KEPT = 300  # shoppers who come again
START = 120  # seconds that a server may take to start


@contextmanager
def served(model: Path | str) -> Iterator[str]:
    """The address of a server of its own; it is stopped when the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--port", port]
    command += ["--env-manager", "local", "--host", "127.0.0.1"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with subprocess.Popen(
        command, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield _answering(f"http://127.0.0.1:{port}", process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _answering(url: str, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/ping", timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return url
    raise RuntimeError(f"no server answers at {url} after {START} s, or it ended")


def ask(client: httpx.Client, url: str, rows: list[list[str]]) -> float:
    """Seconds until the answer is there."""
    document = {"dataframe_records": [{"history": row} for row in rows], "params": {"k": K}}
    start = time.perf_counter()
    response = client.post(f"{url}/invocations", json=document, timeout=120).raise_for_status()
    seconds = time.perf_counter() - start
    assert len(response.json()["predictions"]) == len(rows)
    return seconds


def batches(rows: list[list[str]], size: int, count: int) -> list[list[list[str]]]:
    return [
        [rows[(number * size + at) % len(rows)] for at in range(size)] for number in range(count)
    ]


def show(name: str, times: list[float]) -> None:
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(times)} requests", flush=True)


def load(
    url: str, rows: list[list[str]], clients: int, seconds: float
) -> tuple[list[float], float]:
    """The times of all requests that ended, and how long it took."""

    def one(number: int) -> list[float]:
        times: list[float] = []
        with httpx.Client() as client:
            while time.perf_counter() < end:
                times.append(ask(client, url, [rows[(number + clients * len(times)) % len(rows)]]))
        return times

    start = time.perf_counter()
    end = start + seconds
    with ThreadPoolExecutor(clients) as pool:
        found = [seconds for times in pool.map(one, range(clients)) for seconds in times]
    return found, time.perf_counter() - start


def kept(recommender: Recommender, shown: Sequences) -> Iterator[Figure]:
    """A shopper comes again with one purchase more: read from the last prompt's end, or as for the first time."""
    model = recommender.ranker.model
    grown = np.flatnonzero(shown.lengths > 1)[:KEPT]
    within = shown.lengths[grown] <= model.config.window
    plain, again, apart = np.zeros(len(grown)), np.zeros(len(grown)), 0.0
    users = UserKVCache(model, 1024.0)
    for place, row in enumerate(grown):
        one = shown.take(np.array([row]))
        users.represent(shown.take(np.array([row]), one.lengths - 1))
        start = time.perf_counter()
        first = model.represent_users(one)
        plain[place] = time.perf_counter() - start
        start = time.perf_counter()
        second = users.represent(one)
        again[place] = time.perf_counter() - start
        apart = max(apart, float((first - second).abs().max() / first.abs().max()))
    print(
        f"one purchase more: {np.median(plain) * 1000:.1f} ms as new, {np.median(again) * 1000:.1f} ms from the kept"
        f" ({users.bytes / len(users.entries) / 1e6:.2f} MB each); {within.mean():.0%} of {len(grown)} users fit the "
        f"window; farthest apart {apart:.0e} of the largest value"
    )
    if apart > 1e-5:
        raise SystemExit("what is kept changes the answer")
    yield Figure(
        "kept users, within the window", float(plain[within].sum() / again[within].sum()), 2
    )
    yield Figure("kept users, all", float(plain.sum() / again.sum()), 1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--requests", type=int, default=200, help="of one row")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    store = Path("artifacts") / args.dataset
    if not (store / "item_embeddings").exists():
        sys.exit(f"error: {store} is not trained: `make run` builds it")
    splits = Splits.load(store / "splits")
    shown = splits.histories("test")
    rows = [
        [splits.catalog.item_id(int(item)) for item in shown[row]]
        for row in range(min(len(shown), 500))
    ]
    recommender = Recommender.load(store)
    again = list(kept(recommender, shown))
    bare = []
    for (row,) in batches(rows, 1, args.requests):
        start = time.perf_counter()
        recommender.recommend_batch([UserHistory(row)], K)
        bare.append(time.perf_counter() - start)
    show("without HTTP, 1 row", bare)
    with tempfile.TemporaryDirectory() as aside:
        pack_bundle.main(["--artifacts", str(store), "--out", f"{aside}/model"])
        with served(Path(aside) / "model") as url, httpx.Client() as client:
            ask(client, url, rows[:32])
            one = [ask(client, url, some) for some in batches(rows, 1, args.requests)]
            show("1 row a request", one)
            many = [ask(client, url, some) for some in batches(rows, 32, args.requests // 8)]
            show("32 rows a request", many)
            under, took = load(url, rows, args.clients, args.seconds)
            show(f"1 row a request, {args.clients} clients for {took:.0f} s", under)
    rate = len(under) / took
    print(f"under load {rate:.1f} requests/s; alone {1 / float(np.mean(one)):.1f}")
    print_figures(
        [
            Figure("serving: rows/s, 32 a request against 1", 32 * float(np.median(one) / np.median(many)), 2),
            Figure("serving: one row, HTTP against none", float(np.median(bare) / np.median(one)), 0.5),
            Figure("serving: requests/s under load against alone", rate * float(np.mean(one)), 0.9),
            *again,
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
