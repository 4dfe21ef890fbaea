"""Versions of the model llmsrec-<dataset> in MLflow's registry, with the aliases `challenger` and `champion`.

python -m orchestration.registry show --dataset D
python -m orchestration.registry rollback --dataset D            # to the previous champion
python -m orchestration.registry promote --dataset D --version N # without comparison
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmsrec.core.errors import ConfigError
from llmsrec.core.names import name_option
from orchestration.mlflow_runs import tracking_uri

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
ROOT = Path(__file__).resolve().parents[1]
MODEL = "model"  # the folder of a run with the MLflow model
DESCRIPTION = (
    "Recommends the next items of a purchase history by the weighted scores of SASRec, LLM-SRec and item texts. "
    "`champion` is the version that serves; `make serve` starts it."
)
MODEL_DIGEST, BEFORE, ROLLED_BACK, WHY = "model_digest", "champion_before", "rolled_back", "why"


class RegistryError(Exception):
    """The requested version is not in the registry; the message lists what is."""


@dataclass(frozen=True)
class Version:
    """A model version as it was when it was read."""

    number: str
    created: float  # seconds since the epoch
    source: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


class Registry:
    """The registered model of one dataset.

    A version is created in one step, after its files. An alias is moved in one step, after everything else.
    """

    def __init__(self, root: Path, dataset: str) -> None:
        self.uri, self.dataset, self.name = tracking_uri(root), dataset, f"llmsrec-{dataset}"

    @cached_property
    def client(self) -> Any:
        from mlflow.tracking import MlflowClient  # takes seconds

        return MlflowClient(self.uri, self.uri)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        versions = self.client.search_model_versions(f"name = '{self.name}'")
        numbers = sorted((int(version.version) for version in versions), reverse=True)
        return [self._version(number) for number in numbers]

    def _version(self, number: int | str) -> Version:
        version = self.client.get_model_version(self.name, str(number))
        return Version(
            str(version.version),
            version.creation_timestamp / 1000,
            version.source,
            tuple(version.aliases),
            dict(version.tags),
        )

    def version_of_model(self, digest: str) -> Version | None:
        """The version of the recommender with this sha256; the same recommender is registered once."""
        return next((v for v in self.versions() if v.tags.get(MODEL_DIGEST) == digest), None)

    def version_by_alias(self, alias: str) -> Version | None:
        """The version that an alias names, if any."""
        return next((v for v in self.versions() if alias in v.aliases), None)

    def register(self, folder: Path, run_id: str, tags: Mapping[str, str]) -> Version:
        """Create a version from the output folder of llmsrec.stages.pack_bundle, with `tags`."""
        from mlflow.exceptions import MlflowException

        if not self.client.search_registered_models(f"name = '{self.name}'"):
            try:
                self.client.create_registered_model(self.name, description=DESCRIPTION)
            except MlflowException as error:  # another process was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        self.client.log_artifacts(run_id, str(folder), MODEL)
        source = f"{self.client.get_run(run_id).info.artifact_uri}/{MODEL}"
        created = self.client.create_model_version(self.name, source, run_id, tags=dict(tags))
        return self._version(created.version)

    def download_bundle(self, version: Version, folder: Path) -> Path:
        """Download the model bundle of a version into `folder`; returns its path."""
        from mlflow.artifacts import download_artifacts

        path = download_artifacts(
            artifact_uri=f"{version.source}/artifacts/bundle",
            dst_path=str(folder),
            tracking_uri=self.uri,
        )
        return Path(path)

    def set_challenger(self, version: Version) -> None:
        """Move the alias `challenger` to a version."""
        self.client.set_registered_model_alias(self.name, "challenger", version.number)

    def promote(self, version: Version, why: str) -> None:
        """Tag a version with its predecessor and the reason, then move the alias `champion` to it."""
        champion = self.version_by_alias("champion")
        if champion is not None and champion.number != version.number:
            self.tag(version, BEFORE, champion.number)
        self.tag(version, WHY, why)
        self._clear_rolled_back(version)
        self.client.set_registered_model_alias(self.name, "champion", version.number)

    def _clear_rolled_back(self, version: Version) -> None:
        if ROLLED_BACK in version.tags:
            self.client.delete_model_version_tag(self.name, version.number, ROLLED_BACK)

    def rollback(self) -> tuple[str, str]:
        """Move the alias `champion` to the previous champion; returns the old and the new version number.

        The old version is tagged and is not promoted automatically again. Raises RegistryError.
        """
        champion = self.version_by_alias("champion")
        if champion is None:
            raise RegistryError(f"{self.name} has no champion: materialise the asset `champion`")
        before = champion.tags.get(BEFORE)
        if before is None:
            raise RegistryError(
                f"{self.name}: version {champion.number} is the first champion, so no rollback is possible; "
                "`show` lists the versions, `promote --version N` picks one"
            )
        self._clear_rolled_back(self.version(before))  # an error if it was deleted
        self.tag(champion, ROLLED_BACK, time.strftime("%Y-%m-%d %H:%M"))
        self.client.set_registered_model_alias(self.name, "champion", before)
        return champion.number, before

    def version(self, number: str) -> Version:
        """The version of this number; raises RegistryError."""
        for version in self.versions():
            if version.number == number:
                return version
        numbers = ", ".join(v.number for v in self.versions()) or "none"
        raise RegistryError(f"{self.name} has no version {number}; it has {numbers}")

    def tag(self, version: Version, key: str, value: str) -> None:
        self.client.set_model_version_tag(self.name, version.number, key, value)

    def describe(self, version: Version, text: str) -> None:
        """Set the description of a version, which MLflow's pages show."""
        self.client.update_model_version(self.name, version.number, text)

    def show(self) -> str:
        """A text with two lines for each version."""
        lines = [f"{self.name} in {self.uri}"]
        for version in self.versions():
            created = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created))
            tags = version.tags
            words = [
                f"version {version.number}",
                created,
                f"model {tags.get(MODEL_DIGEST, '?')[:12]}",
            ]
            words += [f"git {tags.get('git', '')[:8] or '?'}", *version.aliases]
            words += [f"rolled back {tags[ROLLED_BACK]}"] if ROLLED_BACK in tags else []
            lines.append("  " + "  ".join(words))
            lines += [f"      {tags[WHY]}"] if WHY in tags else []
        return "\n".join(lines if len(lines) > 1 else [*lines, "  no version yet"])


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=["show", "rollback", "promote"])
    parser.add_argument("--dataset", type=name_option, required=True)
    parser.add_argument("--version", help="the version to promote")
    try:
        args = parser.parse_args(argv)
        registry = Registry(root, args.dataset)
        if args.command == "rollback":
            old, new = registry.rollback()
            print(
                f"{registry.name}: champion is version {new} again, version {old} was rolled back"
            )
        elif args.command == "promote":
            registry.promote(registry.version(str(args.version)), "promoted by hand")
            print(f"{registry.name}: champion is version {args.version}, by hand")
        else:
            print(registry.show())
    except (RegistryError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.command != "show":
        print("a running server keeps the version that it loaded: restart it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
