"""Training and validation of the student: this project against the released implementation (released.py), one model.

Both give the same loss and the same vectors; this is checked before anything is timed.
"""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import getpagesize
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from benchmarks.figures import Figure, in_own_process, peak_bytes, run_benchmark, timed
from benchmarks.gpu import matrix_rate
from benchmarks.released import WINDOW, Released
from benchmarks.synthetic import Shape, student_trainer, synthetic_splits
from llmsrec.data.splits import Splits
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.student.trainer import StudentTrainer
from llmsrec.training.seeding import generator

BATCH, NEGATIVES = 20, 3
VALIDATED = {"items": 80, "users": 130}  # 1.6 users per item, as in real datasets
SAME_AS_RELEASED = {
    "stride": 1, "item_vector_dropout": 0.0,
    "batch_size": BATCH, "train_negatives": NEGATIVES, "in_batch": False, "catalogue_negatives": 0,
    "window": WINDOW, "user_vector_in_prompt": False, "distill": "mse", "distillation_weight": 1.0,
    "uniformity_weight": 1.0, "distillation_reduction": "mean", "normalize": True, "center_heads_at_init": False,
}  # fmt: skip
GOALS = {  # of read-outs/s, over the released way in float32
    "last_item": {"float32": 3, "bfloat16": 5},
    "auto_regressive": {"float32": 20, "bfloat16": 20},
}


def llama(layers: int, width: int, vocabulary: int) -> Shape:
    """Heads of 64 and inner layers of 8/3 of the width."""
    return Shape(layers, width, width // 64, width // 64, width * 8 // 3, vocabulary, BATCH)


def build(
    shape: Shape, dtype: str = "float32", examples: str = "last_item"
) -> tuple[Released, StudentTrainer, Splits]:
    """Both implementations around one language model of random weights."""
    torch.manual_seed(0)
    splits = synthetic_splits()
    lm = LlamaForCausalLM(shape.config())
    lm.eval().requires_grad_(False).to(getattr(torch, dtype))
    trainer = student_trainer(lm.model, splits, {**SAME_AS_RELEASED, "examples": examples})
    return Released(lm, trainer, splits.catalog.titles), trainer, splits


def check(shape: Shape) -> None:
    """Check that both implementations give the same losses and vectors."""
    for examples in ("last_item", "auto_regressive"):
        released, trainer, splits = build(shape, examples=examples)
        rows = np.arange(4)
        with torch.no_grad():
            ours = trainer.losses(rows, generator(0))["loss"]
            theirs = released.loss(trainer.examples.read_outs(rows), generator(0))
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
            histories, items = splits.sequences.take(rows), np.arange(1, 9)
            for actual, expected in (
                (trainer.model.represent_users(histories), released.users(histories)),
                (trainer.model.represent_items(items), released.items(items)),
            ):
                torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def training(shape: Shape, way: str, dtype: str, examples: str, steps: int) -> dict[str, float]:
    """Read-outs per second. A released step has 20 read-outs; a step of ours has those of 20 users."""
    released, trainer, _ = build(shape, dtype, examples)
    trainer.model.cache_prefixes(4.0)
    order = generator(1).permutation(len(trainer.users))

    def step(number: int) -> int:
        if way == "ours":
            trainer.step(number)
            return len(trainer.examples.read_outs(trainer.epochs.batch(number)))
        read_outs = order[number * BATCH : (number + 1) * BATCH]
        released.step(read_outs, generator(2, number))
        return len(read_outs)

    peak = peak_increase(lambda: step(0))
    with FlopCounterMode(display=False) as counter:
        counted = step(1)
    read_outs, seconds = timed(lambda: sum(step(number) for number in range(2, 2 + steps)))
    rate, flops = read_outs / seconds, counter.get_total_flops() / counted
    share = rate * flops / matrix_rate(torch.device("cpu"), getattr(torch, dtype))
    return {
        "read-outs/s": rate,
        "GFLOP each": flops / 1e9,
        "of the matrix rate": share,
        "MB a step": peak / 1e6,
    }


@torch.no_grad()
def validation(shape: Shape, way: str, dtype: str) -> dict[str, float]:
    """Seconds to encode the first items and users."""
    released, trainer, splits = build(shape, dtype)
    model, num_items, num_users = trainer.model.eval(), VALIDATED["items"], VALIDATED["users"]
    histories = splits.sequences.take(np.arange(num_users))
    model.cache_prefixes(4.0)
    if way == "ours":
        vectors, items = timed(lambda: encode_items(model, num_items))
        _, users = timed(lambda: RetrievalRanker(model, vectors).user_vectors(histories))
    else:
        size = BATCH * (1 + NEGATIVES)
        _, items = timed(lambda: [released.items(1 + rows) for rows in _batches(num_items, size)])
        parts = [histories.take(rows) for rows in _batches(num_users, BATCH)]
        _, users = timed(lambda: [released.users(part) for part in parts])
    return {"items/s": num_items / items, "users/s": num_users / users, "seconds": items + users}


def _batches(count: int, size: int) -> list[np.ndarray]:
    return np.split(np.arange(count), range(size, count, size))


def peak_increase(work: Callable[[], Any]) -> int:
    """The increase of resident memory, in bytes, at the peak of `work`."""
    trim = ctypes.CDLL(None).malloc_trim
    trim(0)  # else `work` would reuse free memory that counts as resident
    before = int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    work()
    return peak_bytes() - before


def side_by_side(
    vocabulary: int, work: Callable[..., dict[str, float]], *arguments: Any
) -> Iterator[tuple[str, dict[str, float], dict[str, float]]]:
    """Per dtype of ours: the dtype, the measurements of the released implementation and ours, in separate processes."""
    measured, shape = {}, llama(8, 512, vocabulary)
    for way, dtype in (("released", "float32"), ("ours", "float32"), ("ours", "bfloat16")):
        measured[way] = in_own_process(work, shape, way, dtype, *arguments).result
        numbers = ", ".join(f"{value:,.4g} {what}" for what, value in measured[way].items())
        print(f"    {f'{way}, {dtype}':20} {numbers}", flush=True)
        if way == "ours":
            yield dtype, measured["released"], measured["ours"]


def compare(vocabulary: int, steps: int) -> Iterator[Figure]:
    name = f"student, {vocabulary // 1000}k words"
    for examples, goals in GOALS.items():
        print(f"  training, {examples}", flush=True)
        for dtype, released, ours in side_by_side(vocabulary, training, examples, steps):
            what = f"{name}, {examples}, {dtype}"
            yield Figure(
                f"{what}: rate", ours["read-outs/s"] / released["read-outs/s"], goals[dtype]
            )
            yield Figure(f"{what}: peak memory", released["MB a step"] / ours["MB a step"], 3)
    print("  validation", flush=True)
    for dtype, released, ours in side_by_side(vocabulary, validation):
        what = f"{name}, {dtype}"
        yield Figure(f"{what}: items/s", ours["items/s"] / released["items/s"], 12)
        yield Figure(f"{what}: validation", released["seconds"] / ours["seconds"], 10)


def figures(vocabularies: tuple[int, ...] = (32_000, 128_000), steps: int = 3) -> Iterator[Figure]:
    """`steps` of each implementation are timed."""
    check(llama(2, 128, 8_000))
    for vocabulary in vocabularies:
        print(f"\n8 layers of 512, {vocabulary:,} words, {torch.get_num_threads()} threads")
        yield from compare(vocabulary, steps)


if __name__ == "__main__":
    run_benchmark(figures)
