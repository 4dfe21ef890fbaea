"""Training and evaluation of SASRec: this project against the public PyTorch ports, same network and batch size.

The ports sample each user in Python, in worker processes, pad every history to the full width, and
evaluate with one forward pass per user. This file implements both on synthetic histories with lengths like Amazon's.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.figures import Figure, run_benchmark, timed
from benchmarks.synthetic import synthetic_histories
from llmsrec.core.config import load_section
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Targets
from llmsrec.preprocessing.candidates import draw_candidates
from llmsrec.ranking.protocol import rank_candidates
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import CausalTrainer, TeacherConfig

USERS, ITEMS, WORKERS = 20_000, 10_000, 2


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


class PlainSamples(IterableDataset[tuple[np.ndarray, ...]]):
    """Samples of random users without end, each made by a loop."""

    def __init__(self, histories: list[list[int]], width: int) -> None:
        self.histories, self.width = histories, width

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        while True:
            yield plain_sample(random.choice(self.histories), ITEMS, self.width)


def plain_training(model: SASRec, train: Sequences, config: TeacherConfig, steps: int) -> float:
    """Interactions per second."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98))
    histories = [train[row].tolist() for row in range(len(train))]
    samples = PlainSamples(histories, config.max_length)
    batches = iter(DataLoader(samples, config.batch_size, num_workers=WORKERS, prefetch_factor=10))
    model.train()

    def step(inputs: Tensor, positives: Tensor, negatives: Tensor) -> int:
        states, mask, table = model(inputs), positives != 0, model.item_embedding
        positive = (states * table(positives)).sum(-1)[mask]
        negative = (states * table(negatives)).sum(-1)[mask]
        loss = functional.softplus(-positive).mean() + functional.softplus(negative).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return int(mask.sum())

    for _ in range(2):  # warm-up
        step(*next(batches))
    trained, seconds = timed(lambda: sum(step(*next(batches)) for _ in range(steps)))
    return trained / seconds


def our_training(model: SASRec, train: Sequences, config: TeacherConfig, steps: int) -> float:
    """Interactions per second."""
    trainer = CausalTrainer(model, train, ITEMS, config)
    each = trainer.steps_per_epoch
    epochs = max(1, round(steps / each))
    for step in range(each):  # the first epoch is the warm-up
        trainer.step(step)
    _, seconds = timed(lambda: [trainer.step(step) for step in range(each, (1 + epochs) * each)])
    return epochs * int((np.minimum(train.lengths, config.max_length + 1) - 1).sum()) / seconds


@torch.no_grad()
def plain_evaluation(
    model: SASRec, histories: Sequences, candidates: Candidates, width: int
) -> list[int]:
    """The target's rank among its candidates, from 0: one forward pass and one sort per user."""
    model.eval()
    ranks = []
    for row in range(len(histories)):
        inputs = np.zeros((1, width), dtype=np.int64)
        tail = histories[row][-width:]
        inputs[0, width - len(tail) :] = tail
        state = model(torch.from_numpy(inputs))[0, -1]
        scores = model.item_embedding(torch.from_numpy(candidates.items[row])) @ state
        order = (-scores).argsort().argsort()
        ranks.append(int(order[candidates.target_columns[row]]))
    return ranks


def our_evaluation(model: SASRec, histories: Sequences, candidates: Candidates) -> np.ndarray:
    ranker = SequentialRanker(model)
    values = ranker.score_candidates(ranker.user_vectors(histories), candidates.items)
    return rank_candidates(values, candidates).better


def figures(steps: int = 150, users: int = 1_000) -> Iterator[Figure]:
    """`steps` of the ports' training, and `users` evaluated one by one."""
    section = vars(load_section(TeacherConfig, "teacher"))
    config = TeacherConfig(**{**section, "loss": "bce", "norm": "original"})
    histories = synthetic_histories(USERS, ITEMS)
    last = histories.lengths - 1
    train = histories.take(np.arange(USERS), last)
    model = SASRec(config.network(ITEMS))
    plain, ours = (training(model, train, config, steps) for training in (plain_training, our_training))  # fmt: skip
    print(f"training      ports {plain:>10,.0f}   ours {ours:>10,.0f} interactions/s")
    yield Figure("teacher: training interactions/s", ours / plain, 4)

    draws, labels = np.random.default_rng(0), np.arange(ITEMS + 1)
    targets = Targets(np.arange(USERS), last)
    candidates = draw_candidates(histories, targets, np.arange(USERS), 99, labels, draws)
    sample = np.arange(users)
    part = train.take(sample), candidates.take(sample)
    ranks, plain_seconds = timed(lambda: plain_evaluation(model, *part, config.max_length))
    better, our_seconds = timed(lambda: our_evaluation(model, train, candidates))
    if np.mean(np.abs(better[sample] - ranks)) >= 0.05:
        raise SystemExit("the two implementations rank differently")
    plain, ours = users / plain_seconds, USERS / our_seconds
    print(f"evaluation    ports {plain:>10,.0f}   ours {ours:>10,.0f} users/s")
    yield Figure("teacher: evaluated users/s", ours / plain, 50)


if __name__ == "__main__":
    run_benchmark(figures)
