"""Raw files -> interactions."""

import argparse
from pathlib import Path

from llmsrec.core.config import load_section
from llmsrec.core.files import write_json
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.relational.sql_engine import RelationalConfig
from llmsrec.stages import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="where parses are kept")
    parser.add_argument("--metrics", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(InteractionsConfig, "interactions")
    relational = load_section(RelationalConfig, "relational")
    kept = args.metrics.with_name("rejects.parquet")
    counts = ingest(
        args.raw,
        args.out,
        config,
        rejects_kept=kept,
        parses_kept=args.scratch,
        relational=relational,
    )
    write_json(args.metrics, counts)


if __name__ == "__main__":
    run(main)
