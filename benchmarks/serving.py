"""Latency of the model bundle behind `mlflow models serve`, over HTTP on this machine, alone and under load.

    python -m benchmarks.serving --dataset sample      # needs what `make run` builds

Requests have the histories of the dataset's test users. Under load `--clients` clients send requests without a pause
for `--seconds`; the server handles one at a time. References of the ratios: the same rows in single requests, and the
same recommendations without HTTP and MLflow.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import torch

from benchmarks.figures import Figure, run_benchmark, timed
from infra.processes import HOST, Processes, Service, free_port, responds
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
    port = free_port()
    url = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model)]
    command += ["--port", str(port), "--host", HOST, "--env-manager", "local"]
    server = Service("server", command, lambda: responds(f"{url}/ping"))
    with tempfile.TemporaryDirectory() as logs:
        processes = Processes(Path.cwd(), Path(logs))
        try:
            processes.start(server, START_TIMEOUT)
            yield url
        finally:
            processes.stop()


def request(client: httpx.Client, url: str, rows: list[list[str]]) -> float:
    """Seconds until the response to one request."""
    document = {"dataframe_records": [{"history": row} for row in rows], "params": {"k": K}}
    response, seconds = timed(
        lambda: client.post(f"{url}/invocations", json=document, timeout=120).raise_for_status()
    )
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
    model = recommender.parts.student.model
    grown = np.flatnonzero(histories.lengths > 1)[:RETURNING_USERS]
    within = histories.lengths[grown] <= model.config.window
    plain, cached, difference = np.zeros(len(grown)), np.zeros(len(grown)), 0.0
    users = UserKVCache(model, 1024.0)
    for place, row in enumerate(grown):
        history = histories.take(np.array([row]))
        users.represent(histories.take(np.array([row]), history.lengths - 1))
        first, plain[place] = timed(partial(model.represent_users, history))
        second, cached[place] = timed(partial(users.represent, history))
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

    def recommend(row: list[str]) -> None:
        recommender.recommend_batch([user_history({"history": row}, "")], K)

    times = [timed(partial(recommend, row))[1] for (row,) in batches(rows, 1, requests)]
    show("without HTTP, 1 row", times)
    return times


def with_server(
    url: str, rows: list[list[str]], requests: int, clients: int, seconds: float
) -> tuple[float, ...]:
    """Median latency of a row alone and of 32 rows, mean latency of a row, requests per second under load."""
    with httpx.Client() as client:
        request(client, url, rows[:32])
        single = [request(client, url, batch) for batch in batches(rows, 1, requests)]
        show("1 row a request", single)
        many = [request(client, url, batch) for batch in batches(rows, 32, requests // 8)]
        show("32 rows a request", many)
    times, seconds = load(url, rows, clients, seconds)
    show(f"1 row a request, {clients} clients for {seconds:.0f} s", times)
    rate, mean = len(times) / seconds, float(np.mean(single))
    print(f"under load {rate:.1f} requests/s; alone {1 / mean:.1f}")
    return float(np.median(single)), float(np.median(many)), mean, rate


@torch.no_grad()
def figures(
    dataset: str = "sample", requests: int = 200, clients: int = 8, seconds: float = 20.0
) -> Iterator[Figure]:
    """`requests` of one row; then `clients` send requests for so many seconds."""
    artifacts = Path("artifacts") / dataset
    if not (artifacts / "recommender").exists():
        raise SystemExit(f"error: {artifacts} is not trained: `make run` builds it")
    splits = Splits.load(artifacts / "splits")
    histories = splits.histories("test")
    rows = [
        [splits.catalog.item_id(int(item)) for item in histories[row]]
        for row in range(min(len(histories), 500))
    ]
    recommender = Recommender.load(artifacts)
    yield from returning_users(recommender, histories)
    bare = float(np.median(without_server(recommender, rows, requests)))
    with tempfile.TemporaryDirectory() as folder:
        pack_bundle.main(["--artifacts", str(artifacts), "--out", f"{folder}/model"])
        with served(Path(folder) / "model") as url:
            single, many, mean, rate = with_server(url, rows, requests, clients, seconds)
    yield Figure("serving: rows/s, 32 a request against 1", 32 * single / many, 2)
    yield Figure("serving: one row, HTTP against none", bare / single, 0.5)
    yield Figure("serving: requests/s under load against alone", rate * mean, 0.9)


if __name__ == "__main__":
    run_benchmark(figures)
