"""Training examples written out for two users."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.core.errors import DataError
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.finetuning.examples import Examples, training_examples

TRAIN = from_rows([[1, 2, 3], [9], [4, 5, 6, 7, 8]], [[1, 2, 3], [1], [1, 2, 3, 4, 5]])


def rows_of(examples: Examples) -> list[tuple[int, list[int], list[int]]]:
    """User, purchases of the prompt, and targets of its read-outs."""
    targets = examples.targets()
    return [
        (
            int(examples.users[row]),
            examples.histories(np.array([row]))[0].tolist(),
            targets[examples.read_outs(np.array([row]))].tolist(),
        )
        for row in range(len(examples))
    ]


def test_last_item_has_one_read_out_per_user_with_two_purchases() -> None:
    examples = training_examples(TRAIN, "last_item", 3, stride=1, one_read_out_per_row=False)
    assert rows_of(examples) == [(0, [1, 2], [3]), (2, [5, 6, 7], [8])]


def test_every_position_shares_a_row_up_to_the_window_and_slides_beyond() -> None:
    examples = training_examples(TRAIN, "auto_regressive", 3, stride=1, one_read_out_per_row=False)
    assert rows_of(examples) == [
        (0, [1, 2], [2, 3]),
        (2, [4, 5, 6], [5, 6, 7]),
        (2, [5, 6, 7], [8]),
    ]


def test_a_stride_reads_a_long_history_by_whole_windows() -> None:
    train = from_rows([[1, 2, 3, 4, 5, 6, 7, 8, 9]])
    examples = training_examples(train, "auto_regressive", 3, stride=2, one_read_out_per_row=False)
    assert rows_of(examples) == [
        (0, [1, 2, 3], [2, 3, 4]),
        (0, [3, 4, 5], [5, 6]),
        (0, [5, 6, 7], [7, 8]),
        (0, [6, 7, 8], [9]),
    ]


def test_one_read_out_per_row() -> None:
    examples = training_examples(TRAIN, "auto_regressive", 3, stride=1, one_read_out_per_row=True)
    assert rows_of(examples) == [
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
def test_every_position_has_exactly_one_read_out(
    lengths: list[int], window: int, stride: int, separate: bool
) -> None:
    train, stride = (
        from_rows([list(range(1, length + 1)) for length in lengths]),
        min(stride, window),
    )
    if max(lengths) < 2:
        with pytest.raises(DataError, match="two training purchases"):
            training_examples(
                train, "auto_regressive", window, stride=stride, one_read_out_per_row=separate
            )
        return
    examples = training_examples(
        train, "auto_regressive", window, stride=stride, one_read_out_per_row=separate
    )
    ends = examples.history_lengths()
    pairs = sorted(zip(examples.read_out_users().tolist(), ends.tolist(), strict=True))
    expected = [(user, end) for user, length in enumerate(lengths) for end in range(1, length)]
    assert pairs == expected
    assert (examples.stops - examples.starts <= window).all()
    seen = ends - np.repeat(examples.starts, examples.num_read_outs)
    assert (seen >= np.minimum(ends, window - (0 if separate else stride - 1))).all()


def test_timestamps_belong_to_the_items() -> None:
    examples = training_examples(TRAIN, "last_item", 2, stride=1, one_read_out_per_row=False)
    histories: Sequences = examples.histories(np.array([1]))
    assert histories.times(0).tolist() == [3, 4]
