"""The student on a GPU: training steps and item encoding, at the shapes of SmolLM2-135M and Llama-3.2-3B.

    python -m benchmarks.gpu                      # random weights; --shapes tiny where there is no GPU

First a check: the results of the device in its type are those of the CPU in float32, up to rounding. Utilisation is
the share of the measured bfloat16 matrix rate that useful FLOPs make up: two for each weight of the layers and real
token, and twice as many in training, where frozen layers need no gradient of their weights. Padding, attention, heads
and item texts that are encoded again are not counted. It needs only the packages that docs/gpu.md lists.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaModel

from benchmarks.figures import Figure, print_figures
from benchmarks.released import word_tokenizer
from benchmarks.student import made_up_store
from llmsrec import parallel
from llmsrec.config import from_mapping, load_section, read_section
from llmsrec.data.splits import Splits
from llmsrec.student.backbone import Backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import encode
from llmsrec.student.train import Trainer, new_student
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig
from llmsrec.training import generator, seed_torch

PARAMS = Path("params.yaml")
GOAL = 0.5  # of the matrix rate, at 3B (issue: a GPU path)
WARM, STEPS = 2, 8  # training steps, before and while the clock runs
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02}  # relative, of all vectors together
AMPLIFIED = 10  # a gradient is a difference of such vectors: on the CPU, bfloat16 moves it by 0.07


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    batch_size: int  # users of a step

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
            intermediate_size=self.inner, num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads, max_position_embeddings=4096,
        )  # fmt: skip

    @property
    def layer_weights(self) -> int:
        """Of all layers' matrices."""
        head = self.width // self.heads
        attention = 2 * self.width * (self.heads + self.key_heads) * head
        return self.layers * (attention + 3 * self.width * self.inner)


SHAPES = {
    "tiny": Shape(2, 64, 2, 1, 128, 8_000, 4),
    "smollm2": Shape(30, 576, 9, 3, 1536, 49_152, 32),
    "llama_3b": Shape(28, 3072, 24, 8, 8192, 128_256, 20),
}


@dataclass(frozen=True)
class Measured:
    """One piece of work, a number of times."""

    units: int  # read-outs, or items
    seconds: float
    useful_flops: float
    peak_gb: float

    def line(self, what: str, unit: str, matrix_rate: float) -> str:
        rate, share = self.units / self.seconds, self.share(matrix_rate)
        return (
            f"  {what:16} {rate:10,.0f} {unit}/s  {self.seconds:7.2f} s  "
            f"{self.useful_flops / self.seconds / 1e12:7.2f} TFLOP/s useful, {share:5.1%} of the matrix rate  "
            f"peak {self.peak_gb:5.1f} GB"
        )

    def share(self, matrix_rate: float) -> float:
        return self.useful_flops / self.seconds / matrix_rate


def student_of(
    shape: Shape, splits: Splits, device: torch.device, dtype: torch.dtype
) -> tuple[LLMSRec, StudentConfig]:
    """Random weights, the same on every device."""
    seed_torch(0)
    with torch.device(
        device if shape.layers > 2 else "cpu"
    ):  # billions of weights: drawn where they stay
        lm = LlamaModel(shape.config())
    for part in lm.parameters():  # `lm.to` would round the frequencies of the positions, too
        part.data = part.data.to(dtype)
    teacher = SASRec(load_section(TeacherConfig, "teacher", PARAMS).network(splits.num_items))
    values = read_section("student", PARAMS) | {"batch_size": shape.batch_size, "slot_dropout": 0.0}
    config = from_mapping(StudentConfig, values, str(PARAMS))
    seed_torch(1)
    lm = lm.eval().requires_grad_(False).to(device)
    backbone = Backbone(lm, word_tokenizer(), "random")
    return new_student(config, backbone, teacher.eval(), splits.catalog), config


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Representations and gradients of a small student here and on the CPU in float32."""
    splits, found = made_up_store(), []
    shape = replace(SHAPES["tiny"], batch_size=16)
    for where, kind in ((torch.device("cpu"), torch.float32), (device, dtype)):
        model, config = student_of(shape, splits, where, kind)
        trainer = Trainer(model, splits, config)
        histories, items = splits.sequences.take(np.arange(16)), np.arange(1, 33)
        with torch.no_grad():
            read = [model.represent_users(histories), model.represent_items(items)]
        trainer.losses(trainer.epochs.batch(0), generator(0))["loss"].backward()
        parts = [part.grad.flatten() for part in model.heads.parameters() if part.grad is not None]
        found.append([tensor.float().cpu() for tensor in (*read, torch.cat(parts))])
    for name, wanted, ours in zip(("users", "items", "gradient"), *found, strict=True):
        error = float((ours - wanted).norm() / wanted.norm())
        print(f"  {name:10} relative error {error:.1e}", flush=True)
        allowed = TOLERANCE[dtype] * (AMPLIFIED if name == "gradient" else 1)
        assert error < allowed, f"{name} on {device} in {dtype} are not those of the CPU"


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of a large square product."""
    size, repeats = (8192, 20) if device.type == "cuda" else (1024, 3)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    return 2 * size**3 * repeats / seconds(lambda: [left @ right for _ in range(repeats)], device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Until the device is done."""
    waits = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    waits()
    start = time.perf_counter()
    work()
    waits()
    return time.perf_counter() - start


def training(model: LLMSRec, config: StudentConfig, splits: Splits, shape: Shape) -> Measured:
    """Whole steps: the prompts' text, the passes forward and backward, the optimiser."""
    device = model.backbone.device
    trainer = Trainer(model, splits, config)
    for step in range(WARM):
        trainer.step(step)
    _forget_peak(device)
    spent = seconds(lambda: [trainer.step(WARM + step) for step in range(STEPS)], device)
    reads, useful = 0, 0.0
    for step in range(WARM, WARM + STEPS):
        rows = trainer.epochs.batch(step)
        reads += len(trainer.examples.reads(rows))
        prompts = model.prompts.growing_users(
            trainer.examples.histories(rows), trainer.examples.first[rows]
        )
        items = trainer.pool.count + len(np.unique(trainer.targets[trainer.examples.reads(rows)]))
        tokens = len(prompts.tokens) + items * len(model.prompts.item_suffix)
        useful += 4 * shape.layer_weights * tokens
    return Measured(reads, spent, useful, _peak_gb(device))


def encoding(model: LLMSRec, num_items: int, shape: Shape) -> Measured:
    """The catalogue, without kept texts."""
    device, items = model.backbone.device, np.arange(1, num_items + 1)
    model.eval()
    encode(model, items[:64])
    _forget_peak(device)
    spent = seconds(lambda: encode(model, items), device)
    tokens = model.prefixes.lengths[items].sum() + num_items * len(model.prompts.item_suffix)
    return Measured(num_items, spent, float(2 * shape.layer_weights * tokens), _peak_gb(device))


def profile(model: LLMSRec, config: StudentConfig, splits: Splits) -> None:
    """The kernels that a training step spends most on."""
    trainer, cuda = Trainer(model, splits, config), torch.profiler.ProfilerActivity.CUDA
    trainer.step(0)
    with torch.profiler.profile(activities=[cuda]) as found:
        trainer.step(1)
    print(found.key_averages().table("cuda_time_total", row_limit=8, max_name_column_width=60))


def measure(name: str, device: torch.device, dtype: torch.dtype, rate: float) -> list[Figure]:
    shape, splits = SHAPES[name], made_up_store()
    model, config = student_of(shape, splits, device, dtype)
    print(
        f"{name}: {shape.layer_weights / 1e6:,.0f}M weights in layers, {config.batch_size} users a step"
    )
    work = {
        "item encoding": (encoding(model, splits.num_items, shape), "items"),
        "training": (training(model, config, splits, shape), "read-outs"),
    }
    if model.keep_prefixes(config.prefix_cache_gb):
        again = training(model, config, splits, shape)
        work["training, texts kept"] = (again, "read-outs")
    for what, (found, unit) in work.items():
        print(found.line(what, unit, rate), flush=True)
    if device.type == "cuda":
        profile(model, config, splits)
    return [
        Figure(f"gpu, {name}: {what}", found.share(rate), GOAL) for what, (found, _) in work.items()
    ]


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["smollm2", "llama_3b"])
    args = parser.parse_args()
    device = parallel.start()
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {dtype}")
    check(device, dtype)
    rate = matrix_rate(device, dtype)
    print(f"  matrix rate {rate / 1e12:.1f} TFLOP/s", flush=True)
    print_figures(
        [figure for shape in args.shapes for figure in measure(shape, device, dtype, rate)]
    )


if __name__ == "__main__":
    main()
