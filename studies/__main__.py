"""The paper's analyses and the questions that it left open: `python -m studies NAME --dataset sample`.

Each study trains what is not in the cache, prints its tables and writes them to reports/studies/. `--help` after a name
says more. `cd studies && dvc repro` runs those that studies/params.yaml lists under `pipeline`.
"""

import importlib
import sys

from llmsrec.stages import run
from studies import study
from studies.config import STUDIES, Settings

COMMANDS = {
    "case_study": "E12: users whose next purchase one model alone ranks first",
    "cross_domain": "E8: the users of another dataset",
    "statistics": "E16: sizes, lengths and ties of datasets",
    "timing": "E10: minutes of training and of inference, and memory",
    "warm_start": "a retraining that starts from the champion, against one from scratch",
}


def main(argv: list[str] | None = None) -> None:
    """The command `python -m studies`."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        importlib.import_module(f"studies.{name}").main(rest)
        return
    studies = Settings().section("studies")
    if name in studies:
        study.main(name, rest)
        return
    summaries = {known: entry["summary"] for known, entry in studies.items()} | COMMANDS
    listing = "\n".join(f"  {known:18} {summary}" for known, summary in summaries.items())
    if name in ("-h", "--help"):
        print(f"{__doc__}\n{listing}")
        return
    sys.exit(f"error: there is no study '{name}' in {STUDIES}; there are:\n{listing}")


if __name__ == "__main__":
    run(main)
