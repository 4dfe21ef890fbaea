"""The paper's analyses, and what it left open, a command each: `python -m experiments ablation --dataset sample`.

Each trains what it needs (under scratch/, once), shows a table and writes it whole to reports/experiments/. `--help`
after a name says more. `cd experiments && dvc repro` runs those of experiments/params.yaml.
"""

import sys
from collections.abc import Callable
from functools import partial

from experiments import case_study, cross_domain, statistics, students, teachers, timing, warm_start
from llmsrec.core.errors import LLMSRecError

COMMANDS: dict[str, tuple[str, Callable[[list[str]], None]]] = {
    **{
        name: (experiment.summary, partial(students.main, name))
        for name, experiment in students.EXPERIMENTS.items()
    },
    "cross_domain": ("E8: another store's shoppers", cross_domain.main),
    "timing": ("E10: minutes of training and of inference, and memory", timing.main),
    "case_study": ("E12: who alone ranks the next purchase first", case_study.main),
    "statistics": ("E16: what the stores are like", statistics.main),
    "warm_start": (
        "a retraining that goes on from the champion, against a fresh one",
        warm_start.main,
    ),
    "teachers": ("the teacher of each preset, popularity and Markov chains", teachers.main),
}


def main(argv: list[str]) -> None:
    name, *rest = argv or ["--help"]
    if name in COMMANDS:
        COMMANDS[name][1](rest)
        return
    listed = "\n".join(f"  {known:18} {summary}" for known, (summary, _) in COMMANDS.items())
    if name in ("-h", "--help"):
        print(f"{__doc__}\n{listed}")
        return
    sys.exit(f"error: there is no experiment '{name}'; there are:\n{listed}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LLMSRecError as error:
        sys.exit(f"error: {error}")
