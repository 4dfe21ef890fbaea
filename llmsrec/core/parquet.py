"""Reading Parquet files, with errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa

from llmsrec.core.errors import ArtifactError


def read_parquet(path: Path) -> pd.DataFrame:
    """Load a whole Parquet file; ArtifactError if it is missing or damaged."""
    with reading_parquet(path):
        return pd.read_parquet(path)


@contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Turn read errors of the block into an ArtifactError that names the file and the remedy."""
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `dvc repro` to write it") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(
            f"{path} is damaged ({reason}): remove it, then `dvc checkout` or `dvc repro`"
        ) from None
