"""The student on a GPU: training steps and item encoding, at the shapes of SmolLM2-135M and Llama-3.2-3B.

    python -m benchmarks.gpu                      # random weights; on a CPU only a tiny shape

First the results of the device in its dtype are checked against those of the CPU in float32, up to rounding.
Utilisation (MFU) is the rate of useful FLOPs divided by the measured matrix rate in the same dtype. Useful are two
FLOPs per weight of the layers and token that is no padding, and twice as many in training, where frozen layers need no
gradient of their weights. Padding, attention, heads and item texts that are encoded again are not counted.
docs/howto/gpu.md lists the packages that it needs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import LlamaModel

from benchmarks.figures import Figure, run_benchmark, timed
from benchmarks.synthetic import Shape, student_trainer, synthetic_splits
from llmsrec.data.splits import Splits
from llmsrec.llm.ranker import encode
from llmsrec.student.model import LLMSRec
from llmsrec.student.trainer import StudentTrainer
from llmsrec.training.distributed import init_process_group
from llmsrec.training.seeding import generator, seed_torch

GOAL = 0.5  # MFU
WARM_UP, STEPS = 2, 8  # training steps before and during the measurement
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02}  # relative error of all vectors together
GRADIENT_FACTOR = (
    10  # a gradient is a difference of such vectors: on a CPU its error in bfloat16 is 0.07
)


SHAPES = {
    "tiny": Shape(2, 64, 2, 1, 128, 8_000, 4),
    "smollm2": Shape(30, 576, 9, 3, 1536, 49_152, 32),
    "llama_3b": Shape(28, 3072, 24, 8, 8192, 128_256, 20),
}
DEFAULT_SHAPES = ("smollm2", "llama_3b") if torch.cuda.is_available() else ("tiny",)


@dataclass(frozen=True)
class Measurement:
    count: int  # read-outs or items
    useful_flops: float
    seconds: float
    peak_gb: float

    def mfu(self, matrix_rate: float) -> float:
        """Useful FLOPs per second, as a share of `matrix_rate`."""
        return self.useful_flops / self.seconds / matrix_rate

    def line(self, name: str, matrix_rate: float) -> str:
        """All numbers in one line."""
        return (
            f"  {name:26} {self.count / self.seconds:10,.0f}/s  {self.seconds:7.2f} s  "
            f"{self.useful_flops / self.seconds / 1e12:7.2f} TFLOP/s  MFU {self.mfu(matrix_rate):5.1%}  "
            f"peak {self.peak_gb:5.1f} GB"
        )


def build_student(
    shape: Shape, splits: Splits, device: torch.device, dtype: torch.dtype
) -> StudentTrainer:
    """A student with random weights; those of the tiny shape are the same on every device."""
    seed_torch(0)
    # billions of weights are drawn on the device where they are used
    with torch.device(device if shape.layers > 2 else "cpu"):
        lm = LlamaModel(shape.config())
    for parameter in lm.parameters():  # `lm.to` would also round the rotary frequencies
        parameter.data = parameter.data.to(dtype)
    seed_torch(1)
    changes = {"item_vector_dropout": 0.0, "batch_size": shape.batch_size}
    return student_trainer(lm.to(device), splits, changes)


def results(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """User vectors, item vectors and gradients of a tiny student, on the CPU in float32."""
    splits, shape = synthetic_splits(), replace(SHAPES["tiny"], batch_size=16)
    trainer = build_student(shape, splits, device, dtype)
    model = trainer.model
    with torch.no_grad():
        users = model.represent_users(splits.sequences.take(np.arange(16)))
        items = model.represent_items(np.arange(1, 33))
    trainer.losses(trainer.epochs.batch(0), generator(0))["loss"].backward()  # type: ignore[no-untyped-call]
    grads = [part.grad.flatten() for part in model.heads.parameters() if part.grad is not None]
    return [tensor.float().cpu() for tensor in (users, items, torch.cat(grads))]


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Check that the results of `device` in `dtype` are those of the CPU in float32."""
    expected, actual = results(torch.device("cpu"), torch.float32), results(device, dtype)
    for name, reference, values in zip(("users", "items", "gradient"), expected, actual, strict=True):  # fmt: skip
        error = float((values - reference).norm() / reference.norm())
        print(f"  {name:10} relative error {error:.1e}", flush=True)
        tolerance = TOLERANCE[dtype] * (GRADIENT_FACTOR if name == "gradient" else 1)
        assert error < tolerance, f"{name} on {device} in {dtype} differ from those of the CPU"


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second of a large square matrix product."""
    size, repeats = (8192, 20) if device.type == "cuda" else (1024, 3)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    seconds, _ = cost(lambda: [left @ right for _ in range(repeats)], device)
    return 2 * size**3 * repeats / seconds


def cost(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds until the device has finished `work`, and the peak GB of its memory (NaN on a CPU)."""
    if device.type != "cuda":
        return timed(work)[1], float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    _, seconds = timed(lambda: (work(), torch.cuda.synchronize()))
    return seconds, torch.cuda.max_memory_allocated() / 1e9


def training(trainer: StudentTrainer, layer_weights: int) -> Measurement:
    """Whole steps: building prompts, forward and backward pass, optimizer."""
    model = trainer.model
    for step in range(WARM_UP):
        trainer.step(step)
    steps = range(WARM_UP, WARM_UP + STEPS)
    spent = cost(lambda: [trainer.step(step) for step in steps], model.backbone.device)
    count, flops = 0, 0.0
    for step in steps:
        rows = trainer.epochs.batch(step)
        read_outs = trainer.examples.read_outs(rows)
        histories = trainer.examples.histories(rows)
        prompts = model.prompts.growing_users(histories, trainer.examples.skipped[rows])
        items = trainer.pool.count + len(np.unique(trainer.targets[read_outs]))
        tokens = len(prompts.tokens) + items * len(model.prompts.item_suffix)
        count += len(read_outs)
        flops += 4 * layer_weights * tokens
    return Measurement(count, flops, *spent)


def item_encoding(model: LLMSRec, num_items: int, layer_weights: int) -> Measurement:
    """All items, without cached texts."""
    items = np.arange(1, num_items + 1)
    model.eval()
    encode(model, items[:64])
    spent = cost(lambda: encode(model, items), model.backbone.device)
    tokens = model.prefixes.lengths[items].sum() + num_items * len(model.prompts.item_suffix)
    return Measurement(num_items, float(2 * layer_weights * tokens), *spent)


def measure(name: str, device: torch.device, dtype: torch.dtype, rate: float) -> list[Figure]:
    """The MFU of item encoding and of training, at the shape `name`."""
    shape, splits = SHAPES[name], synthetic_splits()
    trainer, weights = build_student(shape, splits, device, dtype), shape.layer_weights
    print(f"{name}: {weights / 1e6:,.0f}M weights in layers, {shape.batch_size} users per step")
    measured = {
        "item encoding": item_encoding(trainer.model, splits.num_items, weights),
        "training": training(trainer, weights),
    }
    if trainer.model.cache_prefixes(trainer.config.prefix_cache_gb):
        measured["training, cached item texts"] = training(trainer, weights)
    for what, measurement in measured.items():
        print(measurement.line(what, rate), flush=True)
    return [
        Figure(f"gpu, {name}: {what}, MFU", measurement.mfu(rate), GOAL)
        for what, measurement in measured.items()
    ]


def figures(shapes: tuple[str, ...] = DEFAULT_SHAPES) -> Iterator[Figure]:
    device = init_process_group()
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {dtype}")
    check(device, dtype)
    rate = matrix_rate(device, dtype)
    print(f"  matrix rate {rate / 1e12:.1f} TFLOP/s", flush=True)
    for shape in shapes:
        yield from measure(shape, device, dtype, rate)


if __name__ == "__main__":
    run_benchmark(figures)
