"""The learning rate of every step."""

import pytest

from llmsrec.finetuning.schedule import lr_factor, validation_steps
from tests.student.test_exact import student_config


def test_an_epoch_of_few_steps_is_validated_without_division_by_zero() -> None:
    assert validation_steps(3, 10) == [1, 2, 3]
    assert validation_steps(25, 10) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 25]
    assert validation_steps(7, 1) == [7]


def test_the_rate_decays_after_every_validation() -> None:
    config = student_config(lr_schedule="decay", lr_decay=0.5, validations_per_epoch=2, epochs=9)
    rates = [lr_factor(config, step, 5) for step in range(10)]  # validations after steps 2, 4 and 5
    assert rates == [1, 1, 0.5, 0.5, 0.25, 0.125, 0.125, 0.0625, 0.0625, 0.03125]


def test_a_cosine_warms_up_and_decays_to_zero() -> None:
    config = student_config(lr_schedule="cosine", epochs=4)
    rates = [lr_factor(config, step, 10) for step in range(40)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])  # 5% of 40 steps lead up
    assert rates[2 + 19] == pytest.approx(0.5)  # half of the way down
    assert rates == rates[:2] + sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.01
