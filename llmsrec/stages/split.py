"""Interactions -> validated splits."""

from llmsrec.core.config import load_section
from llmsrec.core.files import write_json
from llmsrec.preprocessing.expectations import validate
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.preprocessing.splitting import split, split_statistics
from llmsrec.relational.interactions import Interactions
from llmsrec.relational.sql_engine import RelationalConfig, engine
from llmsrec.stages import paths, run


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "interactions", "out", "scratch", "metrics", "expectations", "docs")
    config = load_section(SplitsConfig, "splits")
    relational = load_section(RelationalConfig, "relational")
    with engine(relational, args.scratch) as connection:
        splits = split(Interactions.load(args.interactions, connection), config)
    validate(splits, config, report=args.expectations, docs=args.docs)
    splits.save(args.out)
    write_json(args.metrics, split_statistics(splits))


if __name__ == "__main__":
    run(main)
