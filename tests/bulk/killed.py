"""Usage: ARTIFACTS FOLDER. For every n: write recommendations, get killed at the n-th disk change, write them again.

Prints the number of kills; fails where the file then differs from that of a run without a kill, or is there in part."""

import sys
from pathlib import Path

from llmsrec.bulk import recommendations
from llmsrec.bulk.ranker import BulkRanker
from llmsrec.data.splits import Splits
from llmsrec.serving.recommender import Recommender
from tests.killing import killed_at

recommendations.SHARD, recommendations.ROW_GROUP = 48, 1


def work(ranker: BulkRanker, splits: Splits, folder: Path, kill_at: int | None) -> int:
    """Write `out` in `folder` in a child process; returns its exit status."""
    return killed_at(
        kill_at,
        lambda: recommendations.write_recommendations(
            ranker, splits, 5, folder / "out", folder / "scratch"
        ),
    )


def main(artifacts: Path, folder: Path) -> None:
    splits, parts = Splits.load(artifacts / "splits"), Recommender.load(artifacts).parts
    ranker = BulkRanker(parts, {"teacher": 0.5, "content": 2.0})  # the student takes longer
    (folder / "0").mkdir()
    assert work(ranker, splits, folder / "0", None) == 0
    expected = (folder / "0" / "out").read_bytes()
    kills, status = 0, 9
    while status:
        attempt = folder / str(kills + 1)
        attempt.mkdir()
        status = work(ranker, splits, attempt, kills + 1)
        assert status in (0, 9)
        assert not (attempt / "out").exists() or (attempt / "out").read_bytes() == expected
        assert work(ranker, splits, attempt, None) == 0
        assert (attempt / "out").read_bytes() == expected
        kills += status == 9
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
