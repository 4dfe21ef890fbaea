"""Which purchases are shown and which are asked for, written out for two users."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.core.errors import DataError
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.finetuning.examples import Examples, training_examples

TRAIN = from_rows([[1, 2, 3], [9], [4, 5, 6, 7, 8]], [[1, 2, 3], [1], [1, 2, 3, 4, 5]])


def shown(examples: Examples) -> list[tuple[int, list[int], list[int]]]:
    """User, what the prompt shows, and what is asked at its read-outs."""
    targets = examples.targets()
    return [
        (
            int(examples.users[row]),
            examples.histories(np.array([row]))[0].tolist(),
            targets[examples.read_outs(np.array([row]))].tolist(),
        )
        for row in range(len(examples))
    ]


def test_last_item_asks_once_a_user_and_needs_two_purchases() -> None:
    examples = training_examples(TRAIN, "last_item", 3, stride=1, one_read_out_per_row=False)
    assert shown(examples) == [(0, [1, 2], [3]), (2, [5, 6, 7], [8])]


def test_every_position_shares_a_row_up_to_the_window_and_slides_beyond() -> None:
    examples = training_examples(TRAIN, "auto_regressive", 3, stride=1, one_read_out_per_row=False)
    assert shown(examples) == [(0, [1, 2], [2, 3]), (2, [4, 5, 6], [5, 6, 7]), (2, [5, 6, 7], [8])]


def test_a_stride_reads_a_long_history_by_whole_windows() -> None:
    train = from_rows([[1, 2, 3, 4, 5, 6, 7, 8, 9]])
    examples = training_examples(train, "auto_regressive", 3, stride=2, one_read_out_per_row=False)
    assert shown(examples) == [
        (0, [1, 2, 3], [2, 3, 4]),
        (0, [3, 4, 5], [5, 6]),
        (0, [5, 6, 7], [7, 8]),
        (0, [6, 7, 8], [9]),
    ]


def test_every_position_alone() -> None:
    examples = training_examples(TRAIN, "auto_regressive", 3, stride=1, one_read_out_per_row=True)
    assert shown(examples) == [
        (0, [1], [2]),
        (0, [1, 2], [3]),
        (2, [4], [5]),
        (2, [4, 5], [6]),
        (2, [4, 5, 6], [7]),
        (2, [5, 6, 7], [8]),
    ]


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
)
def test_every_position_is_asked_exactly_once(
    lengths: list[int], window: int, stride: int, alone: bool
) -> None:
    train, stride = (
        from_rows([list(range(1, length + 1)) for length in lengths]),
        min(stride, window),
    )
    if max(lengths) < 2:
        with pytest.raises(DataError, match="two training purchases"):
            training_examples(
                train, "auto_regressive", window, stride=stride, one_read_out_per_row=alone
            )
        return
    examples = training_examples(
        train, "auto_regressive", window, stride=stride, one_read_out_per_row=alone
    )
    ends = examples.history_lengths()
    asked = sorted(zip(examples.read_out_users().tolist(), ends.tolist(), strict=True))
    wanted = [(user, end) for user, length in enumerate(lengths) for end in range(1, length)]
    assert asked == wanted
    assert (examples.stops - examples.starts <= window).all()
    seen = ends - np.repeat(examples.starts, examples.num_read_outs)
    assert (seen >= np.minimum(ends, window - (0 if alone else stride - 1))).all()


def test_times_come_along() -> None:
    examples = training_examples(TRAIN, "last_item", 2, stride=1, one_read_out_per_row=False)
    histories: Sequences = examples.histories(np.array([1]))
    assert histories.times(0).tolist() == [3, 4]
