"""Candidates: the target and its negatives, drawn once, stored, and ranked by every system (SPEC 2)."""

import numpy as np
from jaxtyping import Bool, Int

from llmsrec.core.errors import DataError
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Targets

QUOTES = "\"'`\u201c\u201d\u2018\u2019"
CHUNK = 20_000  # rows worked on at a time
PATIENCE = 100  # rounds of redrawing; each leaves a small share of the slots, save in tiny stores


def draw_candidates(
    sequences: Sequences,
    targets: Targets,
    rows: Int[np.ndarray, "evaluated"],
    num_negatives: int,
    labels: Int[np.ndarray, "indices"],
    generator: np.random.Generator,
) -> Candidates:
    """For each target of `rows`, negatives uniform without replacement from items the user never bought.

    All labels of a row differ: item indices themselves for retrieval, normalised titles for generation."""
    users = targets.users[rows]
    num_items = len(labels) - 1
    _refuse_small(sequences, users, num_items, num_negatives)
    items = np.zeros((len(rows), 1 + num_negatives), np.int64)  # 0 is yet to be drawn
    items[:, 0] = sequences.items[sequences.offsets[users] + targets.positions[rows]]
    open_rows = np.arange(len(rows) if num_negatives else 0)
    for _ in range(PATIENCE):
        if not len(open_rows):
            break
        still = [
            _draw(sequences, users, labels, items, some, generator) for some in chunks(open_rows)
        ]
        open_rows = open_rows[np.concatenate(still)]
    for left in open_rows:
        empty = items[left] == 0
        kept, bought = items[left, ~empty], sequences[int(users[left])]
        items[left, empty] = _rest(kept, bought, labels, int(empty.sum()), generator)
    columns = np.zeros(len(rows), np.int64)
    for some in chunks(np.arange(len(rows))):
        order = generator.permuted(np.tile(np.arange(num_negatives + 1), (len(some), 1)), axis=1)
        items[some] = np.take_along_axis(items[some], order, axis=1)
        columns[some] = (order == 0).argmax(axis=1)
    return Candidates(rows, items, columns)


def chunks(rows: Int[np.ndarray, "rows"]) -> list[Int[np.ndarray, "some"]]:
    """In order, so that one generator draws what it would draw for all at once."""
    return np.array_split(rows, max(1, -(-len(rows) // CHUNK)))


def _draw(
    sequences: Sequences,
    users: Int[np.ndarray, "evaluated"],
    labels: Int[np.ndarray, "indices"],
    items: Int[np.ndarray, "evaluated candidates"],
    some: Int[np.ndarray, "some"],
    generator: np.random.Generator,
) -> Bool[np.ndarray, "some"]:
    """Draw for all empty places of some rows, in place; true for a row in which a draw was of no use."""
    block, num_items = items[some], len(labels) - 1
    row, column = np.nonzero(block == 0)
    block[row, column] = generator.integers(1, num_items + 1, size=len(row))
    buyers, buyer = np.unique(users[some], return_inverse=True)
    owned = np.sort(_keys(sequences.take(buyers), num_items))
    useless = _repeats(labels[block])
    useless[row, column] |= _contains(owned, buyer[row] * (num_items + 1) + block[row, column])
    block[useless] = 0
    items[some] = block
    return np.asarray(useless.any(axis=1))


def title_labels(catalog: Catalog) -> Int[np.ndarray, "indices"]:
    """Equal for items whose titles a reader would call the same (lower case, no quotes, no white space)."""
    normal = [normalise(title) for title in catalog.titles]
    return np.unique(np.array(normal, dtype=object), return_inverse=True)[1].astype(np.int64)


def normalise(title: str) -> str:
    return "".join(title.lower().translate({ord(quote): None for quote in QUOTES}).split())


def evaluated_rows(
    num_targets: int, cap: int | None, generator: np.random.Generator
) -> Int[np.ndarray, "evaluated"]:
    """All targets, or one sample of `cap` of them."""
    if cap is None or num_targets <= cap:
        return np.arange(num_targets)
    return np.sort(generator.choice(num_targets, cap, replace=False))


def _keys(sequences: Sequences, num_items: int) -> Int[np.ndarray, "n"]:
    return (
        np.repeat(np.arange(len(sequences)), sequences.lengths) * (num_items + 1) + sequences.items
    )


def _contains(sorted_keys: Int[np.ndarray, "n"], keys: Int[np.ndarray, "m"]) -> np.ndarray:
    found = np.searchsorted(sorted_keys, keys)
    return sorted_keys[np.minimum(found, len(sorted_keys) - 1)] == keys


def _rest(
    kept: Int[np.ndarray, "m"],
    bought: Int[np.ndarray, "n"],
    labels: Int[np.ndarray, "indices"],
    count: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, "count"]:
    """`count` more items for one user, by looking at all: where few are left, chance finds the last too late."""
    order = generator.permutation(np.arange(1, len(labels)))
    free = order[~np.isin(order, bought) & ~np.isin(labels[order], labels[kept])]
    first = np.sort(np.unique(labels[free], return_index=True)[1])  # one of each label
    if len(first) < count:
        raise DataError(
            f"a user leaves {len(kept) - 1 + len(first)} items with different titles, but "
            f"{len(kept) - 1 + count} negatives are needed: lower splits.negatives or "
            "splits.generation_negatives"
        )
    return free[first[:count]]


def _repeats(labels: Int[np.ndarray, "rows columns"]) -> np.ndarray:
    """True where the same label stands further left in the row; the target in column 0 never gives way."""
    order = np.argsort(labels, axis=1, kind="stable")
    in_order = np.take_along_axis(labels, order, axis=1)
    again = np.zeros(labels.shape, dtype=bool)
    again[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    repeats = np.zeros(labels.shape, dtype=bool)
    np.put_along_axis(repeats, order, again, axis=1)
    return repeats


def _refuse_small(
    sequences: Sequences, users: Int[np.ndarray, "evaluated"], num_items: int, num_negatives: int
) -> None:
    left = num_items - sequences.lengths[users]
    if len(users) and left.min() < num_negatives:
        raise DataError(
            f"a user has bought all but {left.min()} of {num_items} items; {num_negatives} negatives "
            "are needed: lower splits.negatives, or use a larger store"
        )
