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
    parser.add_argument("--scratch", type=Path, required=True, help="folder of the parse cache")
    parser.add_argument("--metrics", type=Path, required=True)
    args = parser.parse_args(argv)
    counts = ingest(
        args.raw,
        args.out,
        load_section(InteractionsConfig, "interactions"),
        rejects_file=args.metrics.with_name("rejects.parquet"),
        cache_folder=args.scratch,
        relational=load_section(RelationalConfig, "relational"),
    )
    write_json(args.metrics, counts)


if __name__ == "__main__":
    run(main)
