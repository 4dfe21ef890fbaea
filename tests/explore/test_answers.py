"""Scores, shares and ranks of the page, against the recommender and against sorting by hand."""

from pathlib import Path

import numpy as np
import pytest

from llmsrec.core.errors import DataError
from llmsrec.explore.answers import NEW_ITEM, Answer, Explorer, overlap
from llmsrec.serving.requests import UserHistory


@pytest.fixture(scope="module")
def explorer(trained_dataset: Path) -> Explorer:
    return Explorer.load(trained_dataset)


def test_the_list_is_the_one_that_the_server_returns(explorer: Explorer) -> None:
    for user_id in list(explorer.test_rows)[:20]:
        bought = explorer.shopper(user_id).purchases
        answer = explorer.answer(bought)
        user = UserHistory(tuple(one.item_id for one in bought), tuple(one.time for one in bought))
        served = explorer.recommender.recommend_batch([user], 5)[0].items
        best = answer.best("recommender", 5)
        scores = answer.scores["recommender"][best]
        assert scores.tolist() == pytest.approx([item.score for item in served], abs=1e-4)
        assert not {explorer.recommender.catalog.item_id(item) for item in best} & {
            one.item_id for one in bought
        }


def test_shares_add_up_to_the_score_less_its_mean(explorer: Explorer) -> None:
    answer = explorer.answer(explorer.shopper(next(iter(explorer.test_rows))).purchases)
    total = sum(answer.shares.values())
    allowed = np.isfinite(answer.scores["recommender"])
    difference = answer.scores["recommender"][allowed] - total[allowed]
    np.testing.assert_allclose(difference, difference[0], atol=1e-4)
    for share in answer.shares.values():
        assert share[1:].mean() == pytest.approx(0, abs=1e-4)


def test_a_rank_counts_the_items_with_a_higher_score() -> None:
    scores = np.array([-np.inf, 1.0, 3.0, -np.inf, 2.0], np.float32)
    answer = Answer({"teacher": scores}, {})
    assert [answer.rank("teacher", item) for item in (1, 2, 3, 4)] == [3, 1, None, 2]
    assert answer.best("teacher", 10) == [2, 4, 1]


def test_the_overlap_is_a_share_of_the_first_list() -> None:
    assert overlap([1, 2, 3, 4], [9, 4, 2, 8]) == 0.5
    assert overlap([], [1]) == 0


def test_a_new_product_is_ranked_and_changes_no_other_score(explorer: Explorer) -> None:
    bought = explorer.shopper(next(iter(explorer.test_rows))).purchases
    title = explorer.title(bought[-1].item_id)
    more = explorer.with_new_items([title])
    before, after = explorer.answer(bought), more.answer(bought)
    (new,) = more.recommender.catalog.indices([f"{NEW_ITEM}1"]).tolist()
    assert after.rank("content", new) == 1  # it has the words of the last purchase
    for system in ("teacher", "student"):
        np.testing.assert_allclose(
            after.scores[system][:-1], before.scores[system], rtol=1e-4, atol=1e-4
        )


def test_a_search_finds_all_words_in_any_case(explorer: Explorer) -> None:
    titles = explorer.recommender.catalog.titles
    word, *_, last = titles[3].split()
    found = [explorer.title(item) for item in explorer.search(f" {last}  {word.upper()} ", 3)]
    expected = [
        title
        for title in titles[1:]
        if word.casefold() in title.casefold() and last.casefold() in title.casefold()
    ]
    assert found == expected[:3]
    assert not explorer.search("no such word", 3)


def test_an_unknown_shopper_is_told_a_known_one(explorer: Explorer) -> None:
    with pytest.raises(
        DataError, match=f"no test user 'nobody'; .* {next(iter(explorer.test_rows))}"
    ):
        explorer.shopper("nobody")
