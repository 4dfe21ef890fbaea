"""A copy of the project with an S3 bucket of its own for raw files, inbox and DVC's remote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability.project import python, write_project
from reliability.soaking.synthetic import InputFile

DATASET = "synthetic"


@dataclass
class Site:
    """`name` is also the name of the bucket; `store` is a boto3 client."""

    name: str
    root: Path
    store: Any

    def create(self, raw_files: dict[str, bytes]) -> None:
        """Create the bucket with the raw files, and the copy of the project."""
        self.store.create_bucket(Bucket=self.name)
        for name, content in raw_files.items():
            self.store.put_object(Bucket=self.name, Key=f"raw/{name}", Body=content)
        inbox = {"source": f"s3://{self.name}/in", "settled_seconds": 0, "push": True}
        changes: dict[str, dict[str, Any]] = {
            "inbox": {DATASET: inbox},
            "promotion": {"gates": "none"},  # models of this size do not pass the gates
        }
        write_project(self.root, DATASET, f"s3://{self.name}/raw", changes)
        python(self.root, "dvc", "remote", "add", "--default", "store", f"s3://{self.name}/dvc")

    def deliver(self, files: list[InputFile]) -> None:
        """Put files into the inbox."""
        for file in files:
            self.store.put_object(Bucket=self.name, Key=f"in/{file.name}", Body=file.content)
