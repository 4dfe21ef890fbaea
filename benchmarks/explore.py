"""The time in which the page of `llmsrec explore` answers a shuffle of the history, without the browser.

A dataset in `artifacts/` must be trained."""

import sys
from collections.abc import Iterator
from statistics import median

from streamlit.testing.v1 import AppTest

from benchmarks.figures import Figure, run_benchmark, timed
from llmsrec.explore import PAGE

GOAL = 0.2  # seconds


def answer_a_shuffle(artifacts: str = "artifacts", shuffles: int = 50) -> Iterator[Figure]:
    sys.argv = [str(PAGE), artifacts]
    app = AppTest.from_file(str(PAGE), default_timeout=600).run()
    (button,) = (each for each in app.button if each.label == "Shuffle")
    seconds = sorted(timed(lambda: button.click().run())[1] for _ in range(shuffles))
    print(f"median {1000 * median(seconds):.0f} ms, slowest {1000 * seconds[-1]:.0f} ms")
    yield Figure("explore: 200 ms against the median answer", GOAL / median(seconds), 1.0)


if __name__ == "__main__":
    run_benchmark(answer_a_shuffle)
