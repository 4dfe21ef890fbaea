"""The cost of the language model, counted by hand."""

from pathlib import Path

import pytest

from llmsrec.data.splits import Splits
from llmsrec.report.cost import reading_cost
from llmsrec.student.model import LLMSRec


def test_tokens_and_operations_of_a_prompt(trained_dataset: Path, markov_splits: Splits) -> None:
    student = LLMSRec.from_pretrained(trained_dataset / "student")
    histories = markov_splits.histories("test")
    cost = reading_cost(student, histories)
    prompts = [
        student.prompts.user(histories[row], histories.times(row)) for row in range(len(histories))
    ]
    tokens = sum(map(len, prompts)) / len(prompts)
    layers = [
        weight.numel() for layer in student.backbone.model.layers for weight in layer.parameters()
    ]
    operations = 2 * tokens * (sum(layers) + student.backbone.hidden_size)  # the last norm
    assert cost["tokens"] == pytest.approx(tokens, abs=0.05)
    assert cost["gflop"] == pytest.approx(operations / 1e9, abs=5e-4)
