"""Candidates: the target and its negatives, drawn once, stored, and ranked by every system (specification 2)."""

import numpy as np
from jaxtyping import Bool, Int

from llmsrec.core.errors import DataError
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Targets

QUOTES = "\"'`\u201c\u201d\u2018\u2019"
CHUNK_ROWS = 20_000  # rows processed at a time
MAX_REDRAWS = 100  # rounds; each leaves few slots empty unless the catalog is tiny


def draw_candidates(
    sequences: Sequences,
    targets: Targets,
    rows: Int[np.ndarray, "evaluated"],
    num_negatives: int,
    labels: Int[np.ndarray, "indices"],
    generator: np.random.Generator,
) -> Candidates:
    """For each target of `rows`, negatives drawn uniformly without replacement from items the user never bought.

    The labels of a row's items all differ: item indices for retrieval, normalized titles for generation. DataError if
    there are too few such items."""
    users = targets.users[rows]
    num_items = len(labels) - 1
    _check_num_items(sequences, users, num_items, num_negatives)
    items = np.zeros((len(rows), 1 + num_negatives), np.int64)  # 0 is yet to be drawn
    items[:, 0] = sequences.items[sequences.offsets[users] + targets.positions[rows]]
    incomplete = np.arange(len(rows) if num_negatives else 0)
    for _ in range(MAX_REDRAWS):
        if not len(incomplete):
            break
        has_empty = [
            _draw(sequences, users, labels, items, chunk, generator) for chunk in chunks(incomplete)
        ]
        incomplete = incomplete[np.concatenate(has_empty)]
    for row in incomplete:
        empty = items[row] == 0
        bought = sequences[int(users[row])]
        items[row, empty] = _draw_rest(
            items[row, ~empty], bought, labels, int(empty.sum()), generator
        )
    return Candidates(rows, items, _permute(items, generator))


def chunks(rows: Int[np.ndarray, "rows"]) -> list[Int[np.ndarray, "chunk"]]:
    """Consecutive pieces, so that a generator draws the same numbers as for all rows at once."""
    return np.array_split(rows, max(1, -(-len(rows) // CHUNK_ROWS)))


def _draw(
    sequences: Sequences,
    users: Int[np.ndarray, "evaluated"],
    labels: Int[np.ndarray, "indices"],
    items: Int[np.ndarray, "evaluated candidates"],
    rows: Int[np.ndarray, "chunk"],
    generator: np.random.Generator,
) -> Bool[np.ndarray, "chunk"]:
    """Draw for all empty slots of these rows, in place; true for a row that still has empty slots."""
    drawn, num_items = items[rows], len(labels) - 1
    row, column = np.nonzero(drawn == 0)
    drawn[row, column] = generator.integers(1, num_items + 1, size=len(row))
    buyers, buyer = np.unique(users[rows], return_inverse=True)
    bought = np.sort(pair_keys(sequences.take(buyers), num_items))
    rejected = _repeats(labels[drawn])
    rejected[row, column] |= contains(bought, buyer[row] * (num_items + 1) + drawn[row, column])
    drawn[rejected] = 0
    items[rows] = drawn
    return np.asarray(rejected.any(axis=1))


def _permute(
    items: Int[np.ndarray, "evaluated candidates"], generator: np.random.Generator
) -> Int[np.ndarray, "evaluated"]:
    """Permute each row in place; returns the new column of the target, which was in column 0."""
    columns = np.zeros(len(items), np.int64)
    for chunk in chunks(np.arange(len(items))):
        order = generator.permuted(np.tile(np.arange(items.shape[1]), (len(chunk), 1)), axis=1)
        items[chunk] = np.take_along_axis(items[chunk], order, axis=1)
        columns[chunk] = (order == 0).argmax(axis=1)
    return columns


def title_labels(catalog: Catalog) -> Int[np.ndarray, "indices"]:
    """One label per item_index; equal where the normalized titles are equal."""
    titles = [normalize_title(title) for title in catalog.titles]
    return np.unique(np.array(titles, dtype=object), return_inverse=True)[1].astype(np.int64)


def normalize_title(title: str) -> str:
    """Lower case, without quotes and white space."""
    return "".join(title.lower().translate({ord(quote): None for quote in QUOTES}).split())


def sample_targets(
    num_targets: int, max_targets: int | None, generator: np.random.Generator
) -> Int[np.ndarray, "evaluated"]:
    """The rows of all targets, or of a sorted sample of `max_targets`."""
    if max_targets is None or num_targets <= max_targets:
        return np.arange(num_targets)
    return np.sort(generator.choice(num_targets, max_targets, replace=False))


def pair_keys(sequences: Sequences, num_items: int) -> Int[np.ndarray, "n"]:
    """One number for each (row, item)."""
    return sequences.row_indices * (num_items + 1) + sequences.items


def contains(
    sorted_keys: Int[np.ndarray, "n"], keys: Int[np.ndarray, "*m"]
) -> Bool[np.ndarray, "*m"]:
    """For each of `keys`, whether it is in `sorted_keys`."""
    places = np.searchsorted(sorted_keys, keys)
    return sorted_keys[np.minimum(places, len(sorted_keys) - 1)] == keys


def most_negatives(sequences: Sequences, labels: Int[np.ndarray, "indices"], wanted: int) -> int:
    """How many negatives with different labels every user can have, but at most `wanted`.

    A label is of no use to a user who has bought all its items, and one belongs to the target."""
    sizes = np.bincount(labels[1:])
    num_labels, longest = int((sizes > 0).sum()), int(sequences.lengths.max(initial=0))
    if num_labels - longest - 1 >= wanted:
        return wanted
    keys = sequences.row_indices * len(sizes) + labels[sequences.items]
    bought, counts = np.unique(keys, return_counts=True)
    complete = bought[counts == sizes[bought % len(sizes)]] // len(sizes)
    fewest = num_labels - int(np.bincount(complete).max(initial=0)) - 1
    if fewest < wanted:
        print(
            f"title generation gets {max(0, fewest)} negatives instead of {wanted} (splits.generation_negatives): too "
            "few items have different titles; rankings of items need none",
            flush=True,
        )
    return max(0, min(wanted, fewest))


def _draw_rest(
    drawn: Int[np.ndarray, "m"],
    bought: Int[np.ndarray, "n"],
    labels: Int[np.ndarray, "indices"],
    count: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, "count"]:
    """`count` more items for one user, by listing all items that qualify; redrawing finds the last ones too slowly."""
    order = generator.permutation(np.arange(1, len(labels)))
    free = order[~np.isin(order, bought) & ~np.isin(labels[order], labels[drawn])]
    first = np.sort(np.unique(labels[free], return_index=True)[1])  # one of each label
    if len(first) < count:
        raise DataError(
            f"for one user only {len(drawn) - 1 + len(first)} items with different titles qualify, but "
            f"{len(drawn) - 1 + count} negatives are needed: lower splits.negatives"
        )
    return free[first[:count]]


def _repeats(labels: Int[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """True where the same label occurs further left in the row; never for the target in column 0."""
    order = np.argsort(labels, axis=1, kind="stable")
    in_order = np.take_along_axis(labels, order, axis=1)
    again = np.zeros(labels.shape, dtype=bool)
    again[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    repeats = np.zeros(labels.shape, dtype=bool)
    np.put_along_axis(repeats, order, again, axis=1)
    return repeats


def _check_num_items(
    sequences: Sequences, users: Int[np.ndarray, "evaluated"], num_items: int, num_negatives: int
) -> None:
    available = num_items - sequences.lengths[users]
    if len(users) and available.min() < num_negatives:
        raise DataError(
            f"a user has bought all but {available.min()} of {num_items} items; {num_negatives} negatives "
            "are needed: lower splits.negatives, or use a larger dataset"
        )
