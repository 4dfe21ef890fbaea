"""The best items of every user in one Parquet table; a run that was killed continues where it stopped."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from scipy import sparse

from llmsrec.bulk.ranker import BulkRanker, UserVectors
from llmsrec.bulk.top_lists import Lists
from llmsrec.core.files import atomic_write
from llmsrec.core.progress import Progress
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.training.checkpoints import Checkpoints, fingerprint

FILE = "recommendations.parquet"
SHARD = 2048  # users whose lists are saved at a time; a kill costs the work on one shard
PROMPTS = 512  # users that are represented between two lines of progress
ROW_GROUP = 32  # shards
SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # from 1
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)


def write_recommendations(
    ranker: BulkRanker, splits: Splits, k: int, file: Path, scratch: Path
) -> None:
    """Write the best `k` items that each user has not bought, by user_id and rank; all purchases are the history.

    A user with fewer than `k` items left has fewer rows. Finished shards are saved in `scratch`; they are used again by
    a run with equal arguments, whose file has the same bytes. The caller removes `scratch`."""
    order = np.array(sorted(range(splits.num_users), key=splits.user_ids.__getitem__), np.int64)
    shards = [order[start : start + SHARD] for start in range(0, len(order), SHARD)]
    key = _key(ranker, splits, k)
    saved = [Checkpoints(scratch / str(number), key) for number in range(len(shards))]
    missing = [number for number, shard in enumerate(saved) if shard.load() is None]
    done = len(order) - sum(len(shards[number]) for number in missing)
    progress = Progress("recommending", len(order), "users", initial=done)
    for number in missing:
        histories = splits.sequences.take(shards[number])
        items, scores = _lists(ranker, histories, k, progress)
        state = {"items": torch.from_numpy(items), "scores": torch.from_numpy(scores)}
        saved[number].save(state)
    with atomic_write(file) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for start in range(0, len(shards), ROW_GROUP):
            group = range(start, min(start + ROW_GROUP, len(shards)))
            tables = [_table(splits, shards[number], saved[number]) for number in group]
            writer.write_table(pa.concat_tables(tables))


def _key(ranker: BulkRanker, splits: Splits, k: int) -> str:
    items, purchases = splits.catalog.items, splits.sequences
    texts = items["item_id"].tolist(), items["title"].tolist(), splits.user_ids
    histories = purchases.offsets, purchases.items, purchases.timestamps
    return fingerprint(k, SHARD, ranker.digest, *texts, *histories)


def _lists(ranker: BulkRanker, histories: Sequences, k: int, progress: Progress) -> Lists:
    """The lists of a shard; the lines of progress name the rate at which users are encoded."""
    vectors: list[UserVectors] = []
    start = time.monotonic()
    for first in range(0, len(histories), PROMPTS):
        rows = np.arange(first, min(first + PROMPTS, len(histories)))
        vectors.append(ranker.represent(histories.take(rows)))
        rate = (first + len(rows)) / max(time.monotonic() - start, 1e-9)
        progress.advance(len(rows), f"encoding {rate:,.0f} users/s")
    users = UserVectors(
        np.concatenate([part.dense for part in vectors]),
        sparse.vstack([part.words for part in vectors]).tocsr(),
    )
    return ranker.top(users, histories, k)


def _table(splits: Splits, users: Int[np.ndarray, "users"], saved: Checkpoints) -> pa.Table:
    state = saved.load()
    assert state is not None, "every shard was saved by this run or an earlier one"
    items, scores = state["items"].numpy(), state["scores"].numpy()
    rows, places = np.nonzero(items)
    names = splits.catalog.items["item_id"].to_numpy()
    columns = [
        pa.array([splits.user_ids[user] for user in users[rows]], pa.string()),
        pa.array(places + 1, pa.int32()),
        pa.array(names[items[rows, places] - 1], pa.string()),
        pa.array(scores[rows, places]),
    ]
    return pa.table(columns, schema=SCHEMA)
