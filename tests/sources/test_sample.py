"""The built-in sample: the same bytes everywhere, malformed lines as in real files, and the effects of the paper."""

import json
from collections import Counter
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmsrec.core.files import sha256
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.preprocessing.splitting import split, split_statistics
from llmsrec.ranking.metrics import ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker
from llmsrec.relational.interactions import Interactions
from llmsrec.sources import sample
from tests.conftest import splits_config

# Printed by `sha256sum` after `sample.write_sample(Path("x"))` on CPython 3.11.7, x86-64 Linux. Every published number
# of the sample depends on these bytes: a change of them belongs in CHANGELOG.md.
DIGESTS = {
    "sample.jsonl": "b8056e58293540dbf6ba627385d523611bba4facdf7a04b85283a0e2a3113847",
    "meta_sample.jsonl": "0ff9f1af78e43a99506ce5fe3e4121e83a93516852d97778560c3b6ce5b15a05",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "raw"
    sample.write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def counts(raw: Path) -> dict[str, Any]:
    config = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.05, 0)
    return ingest(raw, raw.parent / "out", config, rejects_file=raw.parent / "rejects.parquet")


@pytest.fixture(scope="module")
def splits(raw: Path, counts: dict[str, Any]) -> Splits:
    config = splits_config(
        user_threshold=5, item_threshold=5, negatives=99, generation_negatives=19
    )
    return split(Interactions.load(raw.parent / "out"), config)


def test_the_bytes_are_the_published_ones(raw: Path) -> None:
    assert {path.name: sha256(path) for path in raw.iterdir()} == DIGESTS


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    paths = sample.write_sample(tmp_path, seed=sample.SEED + 1)
    assert [path.name for path in paths] == list(DIGESTS)
    for path in paths:
        assert sha256(path) != DIGESTS[path.name]


def test_the_size_is_that_of_a_small_dataset(raw: Path, counts: dict[str, Any]) -> None:
    assert counts["users"] == 2000
    assert 1400 <= counts["items"] <= 1500
    assert 1450 <= counts["metadata"]["rows"] <= 1500
    assert 7 <= counts["interactions"] / counts["users"] <= 12
    assert sum(path.stat().st_size for path in raw.iterdir()) < 5_000_000


def test_the_malformed_lines_are_those_of_real_files(counts: dict[str, Any]) -> None:
    reviews = counts["reviews"]
    assert reviews["rejects_by_reason"] == dict.fromkeys(
        [
            "broken JSON", "not an object", "missing user_id", "missing parent_asin",
            "mistyped timestamp", "absurd timestamp",
        ],
        10,
    )  # fmt: skip
    assert reviews["duplicates"] == 30
    assert reviews["lines"] == reviews["rows"] + reviews["duplicates"] + reviews["rejects"]
    assert counts["items_without_metadata"] > 0
    assert 0.2 < counts["tie_share"] < 0.5  # real datasets: 43 to 47 %


def test_titles_differ_and_contain_brand_and_kind(raw: Path) -> None:
    lines = (raw / "meta_sample.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    titles = Counter(record["title"] for record in records)
    assert max(titles.values()) == 1
    for record in records:
        assert record["store"] in record["title"]
        assert record["title"] != record["description"][0]
        assert record["categories"][1] in record["title"]


def test_ids_do_not_reveal_the_domain(raw: Path) -> None:
    """Neighbours by id share a domain in one case of ten, as by chance (standard error 0.008)."""
    lines = (raw / "meta_sample.jsonl").read_text().splitlines()
    records = sorted((json.loads(line) for line in lines), key=lambda record: record["parent_asin"])
    domains = [record["main_category"] for record in records]
    same = np.mean([one == two for one, two in pairwise(domains)])
    assert same == pytest.approx(0.1, abs=0.04)


def test_enough_users_and_items_pass_the_filter(splits: Splits) -> None:
    statistics = split_statistics(splits)
    assert statistics["users"] >= 1900
    assert statistics["items"] >= 1000
    assert statistics["test_evaluated"] == statistics["users"]


def test_order_matters_as_the_paper_says(splits: Splits) -> None:
    """NDCG@10 is 0.45 for the Markov chain, 0.28 for the chain of shuffled histories, 0.13 for popularity; the standard
    error is about 0.01. The gaps required here are half of those."""

    def score(ranker: Ranker) -> float:
        return float(ndcg(evaluate(ranker, splits, "test", full=False).sampled, 10).mean())

    def shuffled(seed: int) -> Sequences:
        return splits.train.shuffled(np.random.default_rng(seed))

    chain, popularity = score(MarkovChain(splits)), score(Popularity(splits))
    without_order = max(score(MarkovChain(splits, shuffled(seed))) for seed in range(3))
    assert chain > without_order + 0.08
    assert without_order > popularity + 0.05
