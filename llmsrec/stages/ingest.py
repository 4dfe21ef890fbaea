"""Raw files -> interactions."""

from llmsrec.core.config import load_section
from llmsrec.core.files import write_json
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.relational.sql_engine import RelationalConfig
from llmsrec.stages import paths, run


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "raw", "out", "scratch", "metrics")
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
