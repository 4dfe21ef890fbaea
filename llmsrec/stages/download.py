"""Source -> verified raw files."""

import argparse
from pathlib import Path

from llmsrec.core.config import read_section
from llmsrec.core.errors import ConfigError
from llmsrec.core.names import name_option
from llmsrec.sources.download import fetch
from llmsrec.stages import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=name_option, required=True)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    datasets = read_section("datasets", args.params)
    if args.dataset not in datasets:
        names = ", ".join(datasets)
        raise ConfigError(f"{args.params}: datasets has no '{args.dataset}'; it has {names}")
    fetch(args.dataset, str(datasets[args.dataset]), args.out)


if __name__ == "__main__":
    run(main)
