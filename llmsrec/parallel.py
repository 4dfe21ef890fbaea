"""Several processes that train one model together, as torchrun starts them; without it there is one.

Each process computes a share of every batch. What it computed is gathered, so that losses are over the whole batch, and
the gradient is left to whoever computed a row; then gradients are summed. The numbers are those of one process, up to
the order of sums (and to what dropout draws).
"""

import os
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

Places = list[Int[np.ndarray, "_"]]  # of each process: which rows of the whole are its own


def start() -> torch.device:
    """Join the others, if torchrun started this process; where to compute."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if cuda:
        _prepare_cuda()
        torch.cuda.set_device(local)
    if "RANK" in os.environ and not distributed.is_initialized():
        # torchrun keeps one store for all its attempts: without a prefix, addresses of lost processes are found there
        store, number, count = next(rendezvous("env://"))
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        backend = "nccl" if cuda else "gloo"
        distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    return torch.device("cuda", local) if cuda else torch.device("cpu")


def _prepare_cuda() -> None:
    """Before anything runs there. Shapes differ from step to step, and cuDNN's attention plans anew for each shape."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same sums at every run
    torch.backends.cuda.enable_cudnn_sdp(False)
    # all memory would be written twice
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def first() -> bool:
    """Whether this process writes what all of them have made."""
    return rank() == 0


def shares(count: int) -> Places:
    """Rows dealt out in turn, so that long and short ones are with all."""
    return [np.arange(process, count, size()) for process in range(size())]


def gathered(own: Tensor, places: Places) -> Tensor:
    """The rows of all processes, each at its place; those of others come without their gradient."""
    if size() == 1:
        return own
    longest = max(len(rows) for rows in places)
    padded = own.new_zeros(longest, *own.shape[1:])
    padded[: len(own)] = own.detach()
    parts = [torch.empty_like(padded) for _ in places]
    distributed.all_gather(parts, padded)
    rows = [part[: len(at)] for part, at in zip(parts, places, strict=True)]
    rows[rank()] = own
    back = np.argsort(np.concatenate(places), kind="stable")
    return torch.cat(rows)[torch.from_numpy(back).to(own.device)]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Each process has the gradient of its own share: their sum is that of the whole."""
    if size() == 1:
        return
    trained = [part for part in parameters if part.requires_grad]
    grads = [torch.zeros_like(part) if part.grad is None else part.grad for part in trained]
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    for part, summed in zip(
        trained, torch.split(flat, [grad.numel() for grad in grads]), strict=True
    ):
        part.grad = summed.view_as(part)


def summed(value: Tensor) -> float:
    """Of the parts that all processes have."""
    if size() > 1:
        distributed.all_reduce(value)
    return value.item()


def seed_step(base: int, step: int) -> None:
    """What a step's dropout draws differs between processes and does not depend on where a run went on."""
    if size() > 1:
        torch.manual_seed((base + 1_000_003 * (step + 1) + rank()) % (1 << 63))
