"""A GPU runs larger chunks and another form of masks and gives the same numbers."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from llmsrec.data.sequences import from_rows
from llmsrec.llm import soft_prompts
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.decoder import attention_bias
from llmsrec.llm.padding import length_chunks, segment_mask, token_limit
from llmsrec.student.model import LLMSRec
from tests.student.oracle import assert_close

Build = Callable[..., LLMSRec]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
            ],
        ),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.mark.parametrize("grad", [False, True])
def test_a_gpu_reads_every_row_once_in_fewer_and_larger_passes(grad: bool) -> None:
    lengths = np.random.default_rng(0).integers(30, 650, size=600)
    order = np.argsort(lengths, kind="stable")
    with torch.set_grad_enabled(grad):
        small, large = length_chunks(order, lengths, CPU), length_chunks(order, lengths, CUDA)
        limit = token_limit(CUDA)
    np.testing.assert_array_equal(np.concatenate(large), order)
    padded = [len(chunk) * int(lengths[chunk].max()) for chunk in large]
    assert max(padded) <= limit
    assert sum(padded) < 1.25 * lengths.sum()
    assert len(large) < len(small)


def test_a_step_of_a_few_users_is_one_pass_on_a_gpu() -> None:
    lengths = np.array([40, 90, 200, 350, 500, 640])
    assert len(length_chunks(np.arange(6), lengths, CUDA)) == 1


def test_passes_as_a_gpu_cuts_them_change_no_number(
    student: Build, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = student(backbone)
    histories = from_rows([[1, 2], [3, 4, 5, 6, 7, 8], [9], [10, 11, 12]])
    first = np.zeros(4, dtype=np.int64)
    wanted = model.represent_growing_users(histories, first).detach().double()
    monkeypatch.setattr(
        soft_prompts, "length_chunks", lambda order, lengths, _: length_chunks(order, lengths, CUDA)
    )
    assert_close(model.represent_growing_users(histories, first), wanted)


@pytest.mark.parametrize("width", [8, 11])
def test_an_additive_bias_masks_like_a_boolean_mask(device: torch.device, width: int) -> None:
    torch.manual_seed(0)
    mask = segment_mask(torch.randint(0, 3, (2, width), device=device))
    query, key, value = (torch.randn(2, 4, width, 16, device=device) for _ in range(3))
    bias = attention_bias(mask, torch.float32)
    assert bias.stride(2) % 8 == 0
    wanted = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("cached", [False, True])
def test_a_device_gives_the_states_of_the_cpu(
    student: Build, backbone: Backbone, device: torch.device, cached: bool
) -> None:
    """In float32 on both, so that the tolerance is that of sums in another order."""
    histories = from_rows([[1, 2, 3], [4, 5, 6, 7, 8], [9, 10]])
    first, items = np.zeros(3, dtype=np.int64), np.array([7, 3, 3, 40, 1])

    def vectors(where: torch.device) -> list[torch.Tensor]:
        lm: Any = copy.deepcopy(backbone.model).to(where)
        model = student(replace(backbone, model=lm))
        model.cache_prefixes(1.0 if cached else 0.0)
        found = [
            model.represent_users(histories),
            model.represent_growing_users(histories, first),
            model.represent_items(items),
        ]
        torch.cat(found).square().mean().backward()
        gradient = model.heads.soft_tokens.grad
        assert gradient is not None
        model.teacher.cpu()  # it is the tests' own
        return [*(one.detach().cpu() for one in found), gradient.cpu()]

    for found, wanted in zip(vectors(device), vectors(CPU), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
