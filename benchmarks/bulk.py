"""The best items of every user: BulkRanker against scoring and selecting as the evaluation does.

    python -m benchmarks.bulk                                      # about a minute
    OMP_NUM_THREADS=2 python -m benchmarks.bulk --users 100000 --items 100000

Teacher and student have random vectors, `content` has TF-IDF of titles whose words follow Zipf's law. The reference
scores chunks of users with HybridRanker and takes the first items of each, on one thread; it is timed on a part of the
users and extrapolated. The figures are of core seconds, which hardly depend on the machine's load. Encoding users with
a language model is not included: the stage `recommendations` prints its rate.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch

from benchmarks.figures import Figure, in_own_process, run_benchmark, timed
from llmsrec.bulk.ranker import BulkRanker
from llmsrec.bulk.recommendations import SHARD
from llmsrec.core.progress import Progress
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.llm.ranker import RetrievalRanker
from llmsrec.ranking.protocol import SCORES_BYTES, top_items
from llmsrec.recommender.content import ContentRanker
from llmsrec.recommender.fitted import Parts
from llmsrec.recommender.hybrid import HybridRanker
from llmsrec.sequential.ranker import DotProductRanker, SequentialRanker

SIZES = {"teacher": 64, "student": 128}
WEIGHTS = {"teacher": 1.0, "student": 1.0, "content": 8.0}
HISTORY, LAST, K = 8, 5, 10
VOCABULARY = 100_000
GOAL = 360 / 1e10  # core seconds for each pair: three minutes on two cores
PART = 200  # users of the reference


class RandomVectors(SequentialRanker, RetrievalRanker):
    """Random item vectors; a user's vector is the mean of other random vectors of the purchases."""

    def __init__(self, items: int, size: int) -> None:
        draws = np.random.default_rng(size)
        self.table = draws.standard_normal((items + 1, size), dtype=np.float32)
        vectors = draws.standard_normal((items + 1, size), dtype=np.float32)
        DotProductRanker.__init__(self, torch.from_numpy(vectors / np.float32(size**0.5)))

    def user_vectors(self, histories: Sequences) -> np.ndarray:
        return self.table[histories.items].reshape(len(histories), HISTORY, -1).mean(axis=1)

    def represent_users(self, histories: Sequences) -> torch.Tensor:
        return torch.from_numpy(self.user_vectors(histories))


def random_parts(items: int, words: int) -> Parts:
    """Parts for a catalog whose titles have `words` words; the r-th is drawn with probability proportional to 1 / r."""
    chances = 1 / np.arange(1, VOCABULARY + 1)
    drawn = np.random.default_rng(0).choice(VOCABULARY, (items, words), p=chances / chances.sum())
    titles = [" ".join(f"w{word}" for word in row) for row in drawn.tolist()]
    frame = pd.DataFrame({"item_index": np.arange(1, items + 1), "title": titles})
    catalog = Catalog(frame.reindex(columns=COLUMNS, fill_value=""))
    teacher, student = (RandomVectors(items, size) for size in SIZES.values())
    return Parts(teacher, student, ContentRanker.fit(catalog, LAST))


def random_histories(users: int, items: int) -> Sequences:
    """HISTORY purchases of each user."""
    bought = np.random.default_rng(1).integers(1, items + 1, users * HISTORY)
    return Sequences(np.arange(users + 1) * HISTORY, bought, np.zeros_like(bought))


def reference_lists(parts: Parts, histories: Sequences) -> np.ndarray:
    """Scores of all items for a chunk of users, then the first items of each."""
    ranker, columns = HybridRanker(parts.by_name(), WEIGHTS), len(parts.teacher.item_vectors)
    size, lists = max(1, SCORES_BYTES // (4 * columns)), []
    for start in range(0, len(histories), size):
        chunk = histories.take(np.arange(start, min(start + size, len(histories))))
        nobody = np.zeros(len(chunk), dtype=np.int64)
        lists.append(top_items(ranker.score(chunk), nobody, chunk, K))
    return np.concatenate(lists)


def our_lists(parts: Parts, histories: Sequences) -> np.ndarray:
    """The same by BulkRanker, in the shards of the stage."""
    ranker, lists = BulkRanker(parts, WEIGHTS), []
    progress = Progress("ranking", len(histories), "users", interval=10.0)
    for start in range(0, len(histories), SHARD):
        shard = histories.take(np.arange(start, min(start + SHARD, len(histories))))
        lists.append(ranker.top(ranker.represent(shard), shard, K)[0])
        progress.advance(len(shard))
    return np.concatenate(lists)


def timed_lists(
    make: Callable[[Parts, Sequences], np.ndarray], users: int, items: int, words: int
) -> tuple[np.ndarray, float, float]:
    """The lists of `make`, its seconds and its core seconds; making up the data is not counted."""
    parts, histories = random_parts(items, words), random_histories(users, items)
    before = time.process_time()
    lists, seconds = timed(lambda: make(parts, histories))
    return lists, seconds, time.process_time() - before


def figures(users: int = 10_000, items: int = 50_000, words: int = 20) -> Iterator[Figure]:
    part = min(users, PART)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other would count
    reference, _, cost = timed_lists(reference_lists, part, items, words)
    torch.set_num_threads(threads)
    ours, _, _ = timed_lists(our_lists, part, items, words)
    differ = int((reference != ours).sum())
    if differ > reference.size // 1000:  # scores that differ by rounding change places
        raise SystemExit(f"{differ} of {reference.size} recommendations differ")
    plain = cost / part * users
    measured = in_own_process(timed_lists, our_lists, users, items, words)
    _, seconds, core_seconds = measured.result
    print(
        f"{users:,} users x {items:,} items, titles of {words} words, {threads} threads: "
        f"{core_seconds:.0f} core seconds in {seconds:.0f} s, {users / seconds:,.0f} users/s, peak "
        f"{measured.peak_bytes / 1e6:,.0f} MB; reference {plain:.0f} core seconds; {differ} of its items differ"
    )
    yield Figure("recommendations of all users, core seconds", plain / core_seconds, 4)
    yield Figure("100,000 x 100,000 in 360 core seconds", GOAL * users * items / core_seconds, 1)


if __name__ == "__main__":
    run_benchmark(figures)
