"""Latency of the model bundle behind `mlflow models serve`, over HTTP on this machine, alone and under load.

    python -m benchmarks.serving --dataset sample      # needs what `make run` builds

Requests have the histories of the dataset's test users. Under load `--clients` clients send requests without a pause
for `--seconds`; the server handles one at a time. References of the ratios: the same rows in single requests, and the
same recommendations without HTTP and MLflow.
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
from llmsrec.serving.recommender import Recommender
from llmsrec.serving.requests import user_history
from llmsrec.serving.user_kv_cache import UserKVCache
from llmsrec.stages import pack_bundle

K = 10
RETURNING_USERS = 300
START_TIMEOUT = 600  # seconds; the machine may be busy


@contextmanager
def served(model: Path | str) -> Iterator[str]:
    """The address of a new server, which is stopped at the end of the block."""
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
            yield _wait_until_ready(f"http://127.0.0.1:{port}", process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/ping", timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return url
    raise RuntimeError(f"no server responds at {url} after {START_TIMEOUT} s, or it has ended")


def request(client: httpx.Client, url: str, rows: list[list[str]]) -> float:
    """Seconds until the response to one request."""
    document = {"dataframe_records": [{"history": row} for row in rows], "params": {"k": K}}
    start = time.perf_counter()
    response = client.post(f"{url}/invocations", json=document, timeout=120).raise_for_status()
    seconds = time.perf_counter() - start
    assert len(response.json()["predictions"]) == len(rows)
    return seconds


def batches(rows: list[list[str]], size: int, count: int) -> list[list[list[str]]]:
    """`count` batches of `size` rows, cyclically."""
    return [
        [rows[(number * size + offset) % len(rows)] for offset in range(size)]
        for number in range(count)
    ]


def show(name: str, times: list[float]) -> None:
    """Print percentiles of latencies in seconds."""
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(times)} requests", flush=True)


def load(
    url: str, rows: list[list[str]], clients: int, seconds: float
) -> tuple[list[float], float]:
    """The latencies of all completed requests, and the total duration."""

    def send_requests(number: int) -> list[float]:
        times: list[float] = []
        with httpx.Client() as client:
            while time.perf_counter() < end:
                row = rows[(number + clients * len(times)) % len(rows)]
                times.append(request(client, url, [row]))
        return times

    start = time.perf_counter()
    end = start + seconds
    with ThreadPoolExecutor(clients) as pool:
        times = [seconds for batch in pool.map(send_requests, range(clients)) for seconds in batch]
    return times, time.perf_counter() - start


def returning_users(recommender: Recommender, histories: Sequences) -> Iterator[Figure]:
    """A user returns with one more interaction: with the KV cache of the last request, or without."""
    model = recommender.parts["student"].model
    grown = np.flatnonzero(histories.lengths > 1)[:RETURNING_USERS]
    within = histories.lengths[grown] <= model.config.window
    plain, cached, difference = np.zeros(len(grown)), np.zeros(len(grown)), 0.0
    users = UserKVCache(model, 1024.0)
    for place, row in enumerate(grown):
        history = histories.take(np.array([row]))
        users.represent(histories.take(np.array([row]), history.lengths - 1))
        start = time.perf_counter()
        first = model.represent_users(history)
        plain[place] = time.perf_counter() - start
        start = time.perf_counter()
        second = users.represent(history)
        cached[place] = time.perf_counter() - start
        difference = max(difference, float((first - second).abs().max() / first.abs().max()))
    print(
        f"one interaction more: {np.median(plain) * 1000:.1f} ms without, {np.median(cached) * 1000:.1f} ms with the "
        f"cache ({users.bytes / len(users.entries) / 1e6:.2f} MB each); {within.mean():.0%} of {len(grown)} users "
        f"fit the window; largest difference {difference:.0e} of the largest value"
    )
    if difference > 1e-5:
        raise SystemExit("the cache changes the result")
    yield Figure(
        "kept users, within the window", float(plain[within].sum() / cached[within].sum()), 2
    )
    yield Figure("kept users, all", float(plain.sum() / cached.sum()), 1)


def without_server(recommender: Recommender, rows: list[list[str]], requests: int) -> list[float]:
    """Latencies of single rows without HTTP and MLflow."""
    times = []
    for (row,) in batches(rows, 1, requests):
        start = time.perf_counter()
        recommender.recommend_batch([user_history({"history": row}, "")], K)
        times.append(time.perf_counter() - start)
    show("without HTTP, 1 row", times)
    return times


def with_server(url: str, rows: list[list[str]], args: argparse.Namespace) -> tuple[float, ...]:
    """Median latency of a row alone and of 32 rows, mean latency of a row, requests per second under load."""
    with httpx.Client() as client:
        request(client, url, rows[:32])
        single = [request(client, url, batch) for batch in batches(rows, 1, args.requests)]
        show("1 row a request", single)
        many = [request(client, url, batch) for batch in batches(rows, 32, args.requests // 8)]
        show("32 rows a request", many)
    times, seconds = load(url, rows, args.clients, args.seconds)
    show(f"1 row a request, {args.clients} clients for {seconds:.0f} s", times)
    rate, mean = len(times) / seconds, float(np.mean(single))
    print(f"under load {rate:.1f} requests/s; alone {1 / mean:.1f}")
    return float(np.median(single)), float(np.median(many)), mean, rate


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--requests", type=int, default=200, help="of one row")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    artifacts = Path("artifacts") / args.dataset
    if not (artifacts / "recommender").exists():
        sys.exit(f"error: {artifacts} is not trained: `make run` builds it")
    splits = Splits.load(artifacts / "splits")
    histories = splits.histories("test")
    rows = [
        [splits.catalog.item_id(int(item)) for item in histories[row]]
        for row in range(min(len(histories), 500))
    ]
    recommender = Recommender.load(artifacts)
    cache_figures = list(returning_users(recommender, histories))
    bare = float(np.median(without_server(recommender, rows, args.requests)))
    with tempfile.TemporaryDirectory() as folder:
        pack_bundle.main(["--artifacts", str(artifacts), "--out", f"{folder}/model"])
        with served(Path(folder) / "model") as url:
            single, many, mean, rate = with_server(url, rows, args)
    print_figures(
        [
            Figure("serving: rows/s, 32 a request against 1", 32 * single / many, 2),
            Figure("serving: one row, HTTP against none", bare / single, 0.5),
            Figure("serving: requests/s under load against alone", rate * mean, 0.9),
            *cache_figures,
        ]
    )


if __name__ == "__main__":
    main()
