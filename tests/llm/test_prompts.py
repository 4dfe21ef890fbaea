"""The prompts of specification 3, word for word, with a tokenizer of single letters and with the small backbone's."""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.errors import ConfigError
from llmsrec.data.sequences import from_rows
from llmsrec.llm.backbone import load_backbone
from llmsrec.llm.prompts import HIST, IOUT, UOUT, UREP, PromptBuilder, PromptShape, day_text

DAY = 86_400_000
FIRST = int(datetime(2021, 3, 4, tzinfo=UTC).timestamp()) * 1000
TITLES = ["", "Red mug", 'A 12" rule', "Tea", *(f"Thing {number}" for number in range(4, 31))]
# these stand behind a word, and take the space before them into their vector as a token of text would
SLOTS = {HIST: "<HIST>", UREP: " <UREP>", UOUT: " <UOUT>", IOUT: " <IOUT>"}


class Letters:
    """A token a letter."""

    bos_token_id: int | None = None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens  # one at the start of each piece would be wrong
        return [ord(letter) for letter in text]


def builder(tokenizer: Any = None, titles: list[str] = TITLES, **changes: Any) -> PromptBuilder:
    values = {
        "window": 10,
        "title_tokens": 48,
        "max_prompt_tokens": 1024,
        "user_vector": False,
    }
    return PromptBuilder(tokenizer or Letters(), titles, PromptShape(**{**values, **changes}))


def text_of(tokens: Any) -> str:
    return "".join(SLOTS.get(token) or chr(token) for token in list(map(int, tokens)))


def user_text(prompts: PromptBuilder, items: list[int], times: list[int]) -> str:
    return text_of(prompts.user(np.array(items, np.int64), np.array(times, np.int64)))


def test_a_user_prompt_word_for_word() -> None:
    """Placeholders of the paper's table 2, text of specification 3."""
    assert user_text(builder(), [1, 3], [FIRST, FIRST + 9 * DAY]) == (
        'Purchases of one shopper, oldest first: [1] 2021/03/04 "Red mug" <HIST>; '
        '[2] 2021/03/13 "Tea" <HIST>. Compress this shopper\'s purchases into one vector: <UOUT>'
    )


def test_an_item_prompt_word_for_word() -> None:
    assert text_of(builder().item(2)) == (
        'Product: "A 12" rule" <HIST>. Compress this product into one vector: <IOUT>'
    )


def test_lean_prompts_hold_titles_and_placeholders() -> None:
    lean = builder(lean=True)
    assert user_text(lean, [1, 3], [FIRST, FIRST + 9 * DAY]) == (
        'Purchases of one shopper, oldest first: "Red mug" <HIST>; "Tea" <HIST> <UOUT>'
    )
    assert text_of(lean.item(2)) == 'Product: "A 12" rule" <HIST> <IOUT>'


def test_a_user_prompt_with_the_recommenders_description() -> None:
    assert user_text(builder(user_vector=True), [3], [FIRST]) == (
        "A recommender describes this shopper as <UREP>. Purchases of one shopper, oldest first: "
        '[1] 2021/03/04 "Tea" <HIST>. Compress this shopper\'s purchases into one vector: <UOUT>'
    )


def test_numbers_restart_in_a_window_of_the_last_ten() -> None:
    items, times = list(range(1, 16)), [FIRST + place * DAY for place in range(15)]
    text = user_text(builder(), items, times)
    assert text == user_text(builder(), items[-10:], times[-10:])
    assert '[1] 2021/03/09 "Thing 6" <HIST>; [2] 2021/03/10 "Thing 7"' in text
    assert '[10] 2021/03/18 "Thing 15" <HIST>. Compress' in text
    assert "[11]" not in text
    assert user_text(builder(window=3), items, times).count("<HIST>") == 3


@pytest.fixture(params=["Asia/Tokyo", "America/Los_Angeles"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_dates_are_in_utc_in_any_time_zone() -> None:
    """The last and the first moment of a day; a leap day; a day before 1970."""
    for moment, day in [
        (FIRST - 1, "2021/03/03"),
        (FIRST, "2021/03/04"),
        (FIRST + DAY - 1, "2021/03/04"),
        (951_782_400_000, "2000/02/29"),
        (-1, "1969/12/31"),
    ]:
        assert f'[1] {day} "Tea"' in user_text(builder(), [3], [moment])


@given(st.integers(-10_000, 40_000))
def test_days_are_year_month_and_day(day: int) -> None:
    actual = datetime.strptime(day_text(day), "%Y/%m/%d").replace(tzinfo=UTC)
    assert actual.timestamp() == day * 86_400
    assert len(day_text(day)) == 10


def test_prompts_of_many_users_are_those_of_each() -> None:
    """Ragged: each row its own tokens, and the items of its placeholders in order."""
    rows = [[1, 3], [], list(range(1, 16)), [2, 2]]
    times = [[FIRST + place * DAY for place in range(len(row))] for row in rows]
    prompts = builder()
    actual = prompts.users(from_rows(rows, times))
    assert len(actual) == 4
    for row, (items, moments) in enumerate(zip(rows, times, strict=True)):
        assert text_of(actual.row(row)) == user_text(prompts, items, moments)
        where = slice(actual.item_offsets[row], actual.item_offsets[row + 1])
        assert actual.items[where].tolist() == items[-10:]
        assert (actual.row(row) == HIST).sum() == len(items[-10:])
    assert actual.lengths.sum() == len(actual.tokens)


def test_prompts_of_many_items_are_those_of_each() -> None:
    prompts = builder()
    actual = prompts.items(np.array([3, 1, 2]))
    assert [text_of(actual.row(row)) for row in range(3)] == [
        text_of(prompts.item(item)) for item in (3, 1, 2)
    ]
    assert actual.items.tolist() == [3, 1, 2]
    assert actual.item_offsets.tolist() == [0, 1, 2, 3]


def test_selected_prompts_equal_the_originals() -> None:
    prompts = builder().users(from_rows([[1, 3], [2], [4, 5, 6]]))
    subset = prompts.take(np.array([2, 0]))
    assert [subset.row(row).tolist() for row in range(2)] == [
        prompts.row(row).tolist() for row in (2, 0)
    ]
    assert subset.items.tolist() == [4, 5, 6, 1, 3]
    assert subset.item_offsets.tolist() == [0, 3, 5]


@pytest.mark.parametrize("user_vector", [False, True])
def test_placeholders_are_in_order(user_vector: bool) -> None:
    tokens = builder(user_vector=user_vector).user(np.array([5, 6, 7]), np.array([FIRST] * 3))
    placeholders = [token for token in tokens if token < 0]
    assert placeholders == [UREP] * user_vector + [HIST] * 3 + [UOUT]
    assert [token for token in builder().item(5) if token < 0] == [HIST, IOUT]


titles = st.lists(st.text(max_size=600), min_size=1, max_size=8)


@given(titles, st.booleans(), st.data())
@settings(deadline=None)
def test_long_titles_do_not_truncate_the_read_out(
    texts: list[str], user_vector: bool, data: st.DataObject
) -> None:
    """A prompt ends with its read-out and keeps all placeholders within the limit, whatever the titles (10.2)."""
    prompts = builder(titles=["", *texts], user_vector=user_vector)
    items = data.draw(st.lists(st.integers(1, len(texts)), max_size=14))
    tokens = prompts.user(np.array(items, dtype=np.int64), np.full(len(items), FIRST))
    assert tokens[-1] == UOUT
    assert tokens.count(UOUT) == 1
    assert tokens.count(HIST) == min(10, len(items))
    assert len(tokens) <= 1024
    for item in range(1, len(texts) + 1):
        assert prompts.item(item)[-1] == IOUT
        assert len(prompts.item(item)) <= 1024


def test_a_title_of_500_tokens_is_cut_and_closed() -> None:
    """Its first 48 tokens count the opening quote; the closing one is always there."""
    prompts = builder(titles=["", "x" * 500])
    assert f'Product: "{"x" * 47}" <HIST>. Compress' in text_of(prompts.item(1))
    tokens = prompts.user(np.array([1] * 12), np.array([FIRST] * 12))
    assert tokens.count(HIST) == 10
    assert tokens[-1] == UOUT


def least_limit(**options: Any) -> int:
    """The smallest max_prompt_tokens that is accepted."""
    for limit in range(50, 3000):
        with suppress(ConfigError):
            builder(**options, max_prompt_tokens=limit)
            return limit
    raise AssertionError("no limit is accepted")


@pytest.mark.parametrize("lean", [False, True])
def test_the_limit_is_that_of_the_longest_prompt(lean: bool) -> None:
    """Not a token less; and no stricter than the separator that the last entry has not."""
    options: dict[str, Any] = {"titles": ["", "x" * 500], "user_vector": True, "lean": lean}
    limit = least_limit(**options)
    longest = builder(**options).user(np.array([1] * 10), np.array([FIRST] * 10))
    assert len(longest) <= limit <= len(longest) + 20


def test_too_long_a_window_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"40 purchases .*max_prompt_tokens 1024.*title_tokens"):
        builder(window=40)


def test_a_beginning_of_sequence_token_is_added_once() -> None:
    class Begun(Letters):
        bos_token_id = 7

    prompts = builder(Begun())
    for tokens in (prompts.item(1), prompts.user(np.array([1]), np.array([FIRST]))):
        assert tokens[0] == 7
        assert tokens.count(7) == 1


def test_a_growing_history_is_the_prompts_of_its_prefixes_in_one() -> None:
    """Each read-out, at its positions, with what it sees, is the prompt that ends there; the first are not read."""
    rows, first = [[1, 3, 2], [4], [5, 6]], [1, 0, 0]
    times = [[FIRST + place * DAY for place in range(len(row))] for row in rows]
    prompts = builder()
    actual = prompts.growing_users(from_rows(rows, times), np.array(first))
    for row, items in enumerate(rows):
        here = slice(actual.offsets[row], actual.offsets[row + 1])
        tokens, positions = actual.tokens[here], actual.positions[here]
        segments = actual.segments[here]
        read_outs = np.flatnonzero(tokens == UOUT)
        assert len(read_outs) == len(items) - first[row]
        for end, read_out in enumerate(read_outs, start=first[row] + 1):
            seen = np.arange(read_out + 1)
            seen = seen[(segments[seen] == 0) | (segments[seen] == segments[read_out])]
            assert text_of(tokens[seen]) == user_text(prompts, items[:end], times[row][:end])
            assert positions[seen].tolist() == list(range(len(seen)))


@pytest.fixture(scope="module")
def tokenizer(small_backbone: Path) -> Any:
    return load_backbone(small_backbone).tokenizer


def decoded(tokenizer: Any, tokens: list[int]) -> str:
    """The decoded text between placeholders."""
    text, piece = "", []
    for token in tokens:
        if token >= 0:
            piece.append(token)
            continue
        text += tokenizer.decode(piece) + SLOTS[token]
        piece = []
    return text + tokenizer.decode(piece)


def test_the_small_backbone_reads_the_same_words(tokenizer: Any) -> None:
    prompts = builder(tokenizer, ["", "Red mug", "Tasse à café, ½ l 🍵"])
    actual = decoded(tokenizer, prompts.user(np.array([1, 2]), np.array([FIRST, FIRST + DAY])))
    assert actual == (
        f"{tokenizer.bos_token}Purchases of one shopper, oldest first: "
        '[1] 2021/03/04 "Red mug" <HIST>; [2] 2021/03/05 "Tasse à café, ½ l 🍵" <HIST>. '
        "Compress this shopper's purchases into one vector: <UOUT>"
    )


def test_dates_do_not_exceed_the_checked_prompt_length(tokenizer: Any) -> None:
    """Some days take more tokens than others; the room that is checked must hold for any of them."""
    wild = "".join(chr(200 + place) for place in range(300))
    options: dict[str, Any] = {"titles": ["", wild], "user_vector": True}
    limit = least_limit(tokenizer=tokenizer, **options)
    prompts = builder(tokenizer, **options)
    days = range(9_125, 23_740, 3)  # 1995 to 2034
    costs = {day: len(tokenizer.encode(day_text(day), add_special_tokens=False)) for day in days}
    longest = max(costs, key=costs.__getitem__)
    tokens = prompts.user(np.array([1] * 10), np.full(10, longest * DAY))
    assert len(tokens) <= limit
