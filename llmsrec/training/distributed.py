"""Data-parallel training in several processes that torchrun starts; without torchrun the world size is 1.

Each process computes a shard of every batch. Results are gathered, so that losses are over the whole batch; a row has
its gradient only in the process that computed it, and gradients are summed. The numbers equal those of one process up
to the order of sums and the draws of dropout.
"""

import os
from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

Shards = list[Int[np.ndarray, "_"]]  # per process: the indices of its rows


def init_process_group() -> torch.device:
    """Join the process group if torchrun started this process; returns the device of this process."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if cuda:
        _configure_cuda()
        torch.cuda.set_device(local_rank)
    if "RANK" in os.environ and not dist.is_initialized():
        # all attempts of torchrun share a store; the prefix hides the addresses of processes of earlier attempts
        store, rank, world_size = next(rendezvous("env://"))
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        backend = "nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    return torch.device("cuda", local_rank) if cuda else torch.device("cpu")


def _configure_cuda() -> None:
    """To be called before any work on the GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same sums in every run
    # shapes differ from step to step, and cuDNN's attention makes a plan for each shape
    torch.backends.cuda.enable_cudnn_sdp(False)


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this is the process that writes files."""
    return rank() == 0


def shard(count: int) -> Shards:
    """The indices 0..count dealt out in turn, so that each process gets short and long rows of a sorted batch."""
    return [np.arange(process, count, world_size()) for process in range(world_size())]


def all_gather(local: Tensor, shards: Shards) -> Tensor:
    """The rows of all processes in the order of their indices; only `local` rows keep their gradient."""
    if world_size() == 1:
        return local
    longest = max(len(rows) for rows in shards)
    padded = local.new_zeros(longest, *local.shape[1:])
    padded[: len(local)] = local.detach()
    parts = [torch.empty_like(padded) for _ in shards]
    dist.all_gather(parts, padded)
    gathered = [part[: len(rows)] for part, rows in zip(parts, shards, strict=True)]
    gathered[rank()] = local
    inverse = np.argsort(np.concatenate(shards), kind="stable")
    return torch.cat(gathered)[torch.from_numpy(inverse).to(local.device)]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes."""
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    grads = [torch.zeros_like(part) if part.grad is None else part.grad for part in trained]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    sums = torch.split(flat, [grad.numel() for grad in grads])
    for parameter, total in zip(trained, sums, strict=True):
        parameter.grad = total.view_as(parameter)


def all_reduce(value: Tensor) -> float:
    """The sum over all processes."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value.item()


def seed_step(seed: int, step: int) -> None:
    """Seed torch by process and step, so that dropout differs between processes and a resumed run repeats its draws."""
    if world_size() > 1:
        torch.manual_seed((seed + 1_000_003 * (step + 1) + rank()) % (1 << 63))
