"""The history of the page: its order, its times, and the products that were added."""

from llmsrec.explore.answers import NEW_ITEM, Purchase, Shopper
from llmsrec.explore.session import Session


def session() -> Session:
    one = Session()
    one.take(Shopper("u", [Purchase("a", 1), Purchase("b", 2), Purchase("c", 3)], "d"))
    return one


def items(one: Session) -> list[str]:
    return [entry.item_id for entry in one.entries]


def test_times_stay_in_their_places_when_items_move() -> None:
    one = session()
    one.keep([2, 0, 1])
    assert one.purchases(one.entries) == [Purchase("c", 1), Purchase("a", 2), Purchase("b", 3)]
    assert one.moved == [True, True, True]
    one.restore_order()
    assert items(one) == ["a", "b", "c"]
    assert not any(one.moved)


def test_an_item_that_was_removed_takes_the_earliest_time_along() -> None:
    one = session()
    one.keep([0, 2])
    assert one.purchases(one.entries) == [Purchase("a", 2), Purchase("c", 3)]
    assert not any(one.moved)


def test_an_item_may_be_bought_again_and_never_before_the_last() -> None:
    one = session()
    one.add("a", 1)
    assert one.purchases(one.entries)[-1] == Purchase("a", 3)
    one.keep([3, 0, 1, 2])
    assert one.moved == [True] * 4


def test_a_shuffle_keeps_the_items() -> None:
    one = session()
    one.shuffle()
    assert sorted(items(one)) == ["a", "b", "c"]
    assert one.times == [1, 2, 3]


def test_removed_products_leave_the_history() -> None:
    one = session()
    one.add_product("  ")
    one.add_product(" Kite ")
    assert one.added == ["Kite"]
    assert one.followed["Rank of the added product"] == f"{NEW_ITEM}1"
    one.add(f"{NEW_ITEM}1", 9)
    one.remove_products()
    assert items(one) == ["a", "b", "c"]
    assert list(one.followed) == ["Rank of the true next purchase"]


def test_an_empty_history_follows_nobody() -> None:
    one = session()
    one.clear()
    assert not one.entries
    assert not one.followed
    one.add("b", 5)
    assert one.purchases(one.entries) == [Purchase("b", 5)]
