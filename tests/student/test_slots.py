"""What f_I writes into a slot arrives where the prompt is read."""

from collections.abc import Callable

import numpy as np
import torch

from llmsrec.data.sequences import from_rows
from llmsrec.student.backbone import Backbone
from llmsrec.student.model import LLMSRec
from llmsrec.student.slots import teach_slots

Build = Callable[..., LLMSRec]


def test_the_teachers_vectors_arrive_and_nothing_frozen_moves(
    student: Build, backbone: Backbone
) -> None:
    model = student(backbone)
    frozen = [*backbone.model.parameters(), *model.teacher.parameters()]
    before = [parameter.clone() for parameter in frozen]
    heads = {name: value.clone() for name, value in model.heads.named_parameters()}
    assert teach_slots(model, 300, seed=0) > 0.5 > teach_slots(student(backbone), 10, seed=0)
    assert all(torch.equal(old, new) for old, new in zip(before, frozen, strict=True))
    moved = {name for name, value in model.heads.named_parameters() if not value.equal(heads[name])}
    assert {name.split(".")[0] for name in moved} == {"item_projector", "soft_tokens"}


def test_the_same_seed_teaches_the_same(student: Build, backbone: Backbone) -> None:
    first, again = student(backbone), student(backbone)
    for model in (first, again):
        torch.manual_seed(5)
        teach_slots(model, 5, seed=1)
    assert torch.equal(first.heads.soft_tokens, again.heads.soft_tokens)


def test_vectors_are_dropped_while_it_learns_and_whole_when_it_recommends(
    student: Build, backbone: Backbone
) -> None:
    model, whole = student(backbone, slot_dropout=0.5), student(backbone)
    items, histories = np.array([1, 2, 3]), from_rows([[1, 2, 3], [4, 5]])
    wanted = whole.eval().represent_items(items), whole.represent_users(histories)
    model.train()
    assert not torch.equal(model.represent_items(items), wanted[0])
    assert not torch.equal(model.represent_users(histories), wanted[1])
    model.eval()
    assert torch.equal(model.represent_items(items), wanted[0])
    assert torch.equal(model.represent_users(histories), wanted[1])
