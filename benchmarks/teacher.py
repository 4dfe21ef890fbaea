"""Training and evaluation of SASRec: this project against the public PyTorch ports, same network and batch size.

The ports sample each user in Python, in worker processes behind a queue, pad every history to the full width, and
evaluate with one forward pass per user. This file implements both on synthetic histories with lengths like Amazon's.
"""

import argparse
import random
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.figures import Figure, print_figures
from llmsrec.core.config import load_section
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Targets
from llmsrec.preprocessing.candidates import draw_candidates
from llmsrec.ranking.protocol import rank_candidates
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import CausalTrainer, TeacherConfig

USERS, ITEMS, WORKERS = 20_000, 10_000, 2


def synthetic_histories(seed: int = 0) -> Sequences:
    """Log-normal lengths: mean about 8, median 6, some beyond 100."""
    draws = np.random.default_rng(seed)
    lengths = np.clip(draws.lognormal(1.8, 0.65, USERS).astype(np.int64), 4, 300)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = 1 + (draws.random(offsets[-1]) ** 2 * ITEMS).astype(np.int64)
    return Sequences(offsets, items, np.zeros_like(items))


def plain_sample(history: list[int], num_items: int, width: int) -> tuple[np.ndarray, ...]:
    """Inputs, next items and one negative each, filled from the right in a Python loop."""
    inputs, positives, negatives = (np.zeros(width, dtype=np.int64) for _ in range(3))
    bought, next_item, column = set(history), history[-1], width - 1
    for item in reversed(history[:-1]):
        inputs[column], positives[column] = item, next_item
        drawn = random.randrange(1, num_items + 1)
        while drawn in bought:
            drawn = random.randrange(1, num_items + 1)
        negatives[column] = drawn
        next_item, column = item, column - 1
        if column < 0:
            break
    return inputs, positives, negatives


def plain_worker(histories: list[list[int]], width: int, batch_size: int, queue: Any) -> None:
    while True:
        chosen = [random.choice(histories) for _ in range(batch_size)]
        samples = [plain_sample(history, ITEMS, width) for history in chosen]
        queue.put([np.stack(column) for column in zip(*samples, strict=True)])


def plain_batches(histories: list[list[int]], width: int, batch_size: int) -> Iterator[list[Any]]:
    context = get_context("spawn")
    queue = context.Queue(maxsize=WORKERS * 10)
    workers = [
        context.Process(
            target=plain_worker, args=(histories, width, batch_size, queue), daemon=True
        )
        for _ in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    try:
        while True:
            yield queue.get()
    finally:
        for worker in workers:
            worker.terminate()


def plain_training(
    model: SASRec, train: Sequences, config: TeacherConfig, steps: int
) -> tuple[int, float]:
    """The number of interactions trained on, and seconds."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98))
    histories = [train[row].tolist() for row in range(len(train))]
    trained, start = 0, 0.0
    model.train()
    batches = plain_batches(histories, config.max_length, config.batch_size)
    for step, (inputs, positives, negatives) in enumerate(batches):
        if step == 2:  # after warm-up
            trained, start = 0, time.perf_counter()
        states = model(torch.from_numpy(inputs))
        table, mask = model.item_embedding, torch.from_numpy(positives != 0)
        positive = (states * table(torch.from_numpy(positives))).sum(-1)[mask]
        negative = (states * table(torch.from_numpy(negatives))).sum(-1)[mask]
        loss = functional.softplus(-positive).mean() + functional.softplus(negative).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trained += int(mask.sum())
        if step == steps + 1:
            break
    seconds = time.perf_counter() - start
    batches.close()
    return trained, seconds


def our_training(
    model: SASRec, train: Sequences, config: TeacherConfig, steps: int
) -> tuple[int, float]:
    trainer = CausalTrainer(model, train, ITEMS, config)
    users = trainer.steps_per_epoch * config.batch_size
    each, epochs = trainer.steps_per_epoch, max(1, round(steps * config.batch_size / users))
    for step in range((1 + epochs) * each):
        if step == each:  # the first epoch is the warm-up
            start = time.perf_counter()
        trainer.step(step)
    trained = epochs * int((np.minimum(train.lengths, config.max_length + 1) - 1).sum())
    return trained, time.perf_counter() - start


@torch.no_grad()
def plain_evaluation(
    model: SASRec, histories: Sequences, candidates: Candidates, width: int
) -> tuple[list[int], float]:
    """The target's rank among its candidates, from 0: one forward pass and one sort per user."""
    model.eval()
    start, ranks = time.perf_counter(), []
    for row in range(len(histories)):
        inputs = np.zeros((1, width), dtype=np.int64)
        tail = histories[row][-width:]
        inputs[0, width - len(tail) :] = tail
        state = model(torch.from_numpy(inputs))[0, -1]
        scores = model.item_embedding(torch.from_numpy(candidates.items[row])) @ state
        order = (-scores).argsort().argsort()
        ranks.append(int(order[candidates.target_columns[row]]))
    return ranks, time.perf_counter() - start


def our_evaluation(
    model: SASRec, histories: Sequences, candidates: Candidates
) -> tuple[np.ndarray, float]:
    ranker, start = SequentialRanker(model), time.perf_counter()
    values = ranker.score_candidates(ranker.user_vectors(histories), candidates.items)
    return rank_candidates(values, candidates).better, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150, help="steps of the ports")
    parser.add_argument("--users", type=int, default=1_000, help="users evaluated one by one")
    args = parser.parse_args()
    section = vars(load_section(TeacherConfig, "teacher"))
    config = TeacherConfig(**{**section, "loss": "bce", "norm": "original"})
    histories = synthetic_histories()
    last = histories.lengths - 1
    train = histories.take(np.arange(USERS), last)
    model = SASRec(config.network(ITEMS))

    trained, seconds = plain_training(model, train, config, args.steps)
    ours, our_seconds = our_training(model, train, config, args.steps)
    plain_rate, our_rate = trained / seconds, ours / our_seconds
    print(f"training      ports {plain_rate:>10,.0f}   ours {our_rate:>10,.0f} interactions/s")

    targets = Targets(np.arange(USERS), last)
    draws = np.random.default_rng(0)
    labels = np.arange(ITEMS + 1)
    candidates = draw_candidates(histories, targets, np.arange(USERS), 99, labels, draws)
    sample = np.arange(args.users)
    subset = train.take(sample), candidates.take(sample)
    ranks, seconds = plain_evaluation(model, *subset, config.max_length)
    better, our_seconds = our_evaluation(model, train, candidates)
    assert np.mean(np.abs(better[sample] - ranks)) < 0.05, (
        "the two implementations rank differently"
    )
    plain_users, our_users = args.users / seconds, USERS / our_seconds
    print(f"evaluation    ports {plain_users:>10,.0f}   ours {our_users:>10,.0f} users/s")
    training = Figure("teacher: training interactions/s", our_rate / plain_rate, 4)
    print_figures([training, Figure("teacher: evaluated users/s", our_users / plain_users, 50)])


if __name__ == "__main__":
    main()
