"""The published table on a tiny file: its protocol, a training that is interrupted, and the printed ratios."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import published
from benchmarks.published import Reached, figures, main, read_splits, table_line
from llmsrec.core.errors import DataError
from llmsrec.sequential import trainer as training
from llmsrec.sequential.sasrec import SASRec

FILES = Path(__file__).parents[2] / "shared" / "data" / "published"
SIZES = {"Toys": (19_412, 11_924, 167_597), "Sports": (35_598, 18_357, 296_337)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Item i leads to i + 1."""
    starts = np.random.default_rng(0).integers(0, 20, 40)
    rows = [
        (f"U{user}", f"I{(start + step) % 20:02d}", 1_400_000_000_000 + step)
        for user, start in enumerate(starts.tolist())
        for step in range(6)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "parent_asin", "timestamp"])
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "Tiny_published.csv.gz", index=False)
    return tmp_path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs of a small network."""
    small = {"embedding_size": 8, "negatives": 4, "epochs": 3, "learning_rate": 0.01}
    systems = {name: replace(config, **small) for name, config in published.SYSTEMS.items()}
    monkeypatch.setattr(published, "SYSTEMS", systems)


def run(folder: Path, *options: str) -> None:
    scratch = ["--scratch", str(folder / "scratch")]
    main(["--data", str(folder), "--dataset", "Tiny", "--systems", "sasrec", *scratch, *options])


def test_the_last_purchase_is_the_target_and_all_before_it_the_history(folder: Path) -> None:
    splits = read_splits(folder / "Tiny_published.csv.gz")
    assert (splits.num_users, splits.num_items) == (40, 20)
    user = splits.user_ids.index("U3")
    ids = [splits.catalog.item_id(item) for item in splits.sequences[user].tolist()]
    numbers = [int(item_id[1:]) for item_id in ids]
    assert numbers == [(numbers[0] + step) % 20 for step in range(6)]
    for part, seen in (("valid", 4), ("test", 5)):
        assert splits.histories(part)[user].tolist() == splits.sequences[user][:seen].tolist()
        assert splits.candidates[part].targets[user] == splits.sequences[user][seen]
    assert splits.train.lengths.tolist() == [4] * 40


@pytest.mark.usefixtures("short")
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, "--report")
    assert "not trained" in capsys.readouterr().out
    validate, calls = training.validate, []

    def killed(*arguments: object) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    run(folder, "--report")
    assert "unfinished: 2 epochs so far" in capsys.readouterr().out
    run(folder)
    assert "unfinished" not in capsys.readouterr().out
    assert len(calls) == 4  # one epoch was left
    resumed = SASRec.load(folder / "scratch" / "Tiny" / "sasrec" / "model")
    (folder / "scratch").rename(folder / "first")
    run(folder)
    assert SASRec.load(folder / "scratch" / "Tiny" / "sasrec" / "model").digest == resumed.digest
    run(folder)  # a finished training is read
    assert len(calls) == 7


def test_ratios_are_ours_over_the_published_values() -> None:
    found = Reached(9, 7, True, 0.0551, 0.0970)
    line = table_line("Toys", "sasrec", found)
    assert "0.0551 / 0.0970   0.0580 / 0.0970   0.950 / 1.000   epoch 7" in line
    ndcg, recall = figures("Toys", "sasrec", found)
    assert (ndcg.ratio, recall.ratio) == (pytest.approx(0.95), pytest.approx(1))
    assert figures("Toys", "gsasrec", found) == []


def test_a_missing_file_and_a_short_history_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"Toys_published\.csv\.gz does not exist"):
        main(["--data", str(folder), "--dataset", "Toys"])
    file = folder / "Tiny_published.csv.gz"
    pd.read_csv(file).groupby("user_id").head(2).to_csv(file, index=False)
    with pytest.raises(DataError, match="U0 has fewer than 3 purchases"):
        read_splits(file)


@pytest.mark.skipif(not FILES.exists(), reason="the published files are not in the repository")
@pytest.mark.parametrize("dataset", SIZES)
def test_the_files_are_those_that_papers_describe(dataset: str) -> None:
    splits = read_splits(FILES / f"{dataset}_published.csv.gz")
    assert (splits.num_users, splits.num_items, len(splits.sequences.items)) == SIZES[dataset]
