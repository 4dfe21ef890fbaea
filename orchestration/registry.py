"""Versions of the model llmsrec-<dataset> in MLflow's registry; the aliases `challenger` and `champion` name two.

python -m orchestration.registry show --dataset D
python -m orchestration.registry rollback --dataset D            # back to the champion before
python -m orchestration.registry promote --dataset D --version N # by hand
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

from orchestration.mlflow_runs import tracking_uri

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # our own lines are enough
ROOT = Path(__file__).resolve().parents[1]
MODEL = "model"  # the folder of a run that holds what MLflow serves
STUDENT, BEFORE, ROLLED_BACK, WHY = "student", "champion_before", "rolled_back", "why"


class RegistryError(Exception):
    """What was asked for is not in the registry; its text says what is."""


@dataclass(frozen=True)
class Version:
    """As it was when it was asked for."""

    number: str
    created: float  # seconds
    source: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


class Registry:
    """A version is written whole in one step, after its files; an alias moves in one step, after all else."""

    def __init__(self, root: Path, dataset: str) -> None:
        self.uri, self.dataset, self.name = tracking_uri(root), dataset, f"llmsrec-{dataset}"

    @cached_property
    def client(self) -> Any:
        from mlflow.tracking import MlflowClient  # takes seconds

        return MlflowClient(self.uri, self.uri)

    def versions(self) -> list[Version]:
        """Newest first."""
        found = self.client.search_model_versions(f"name = '{self.name}'")
        numbers = sorted((int(version.version) for version in found), reverse=True)
        return [self._version(number) for number in numbers]

    def _version(self, number: int | str) -> Version:
        found = self.client.get_model_version(self.name, str(number))
        return Version(
            str(found.version),
            found.creation_timestamp / 1000,
            found.source,
            tuple(found.aliases),
            dict(found.tags),
        )

    def of_student(self, student: str) -> Version | None:
        """The version with these weights: the same bytes are registered once."""
        return next((v for v in self.versions() if v.tags.get(STUDENT) == student), None)

    def aliased(self, alias: str) -> Version | None:
        return next((v for v in self.versions() if alias in v.aliases), None)

    def register(self, folder: Path, run_id: str, tags: Mapping[str, str]) -> Version:
        """`folder` is what llmsrec.stages.pack_bundle wrote, `tags` name its student."""
        from mlflow.exceptions import MlflowException

        if not self.client.search_registered_models(f"name = '{self.name}'"):
            try:
                self.client.create_registered_model(self.name)
            except MlflowException as error:  # another process was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        self.client.log_artifacts(run_id, str(folder), MODEL)
        source = f"{self.client.get_run(run_id).info.artifact_uri}/{MODEL}"
        made = self.client.create_model_version(self.name, source, run_id, tags=dict(tags))
        return self._version(made.version)

    def bundle(self, version: Version, folder: Path) -> Path:
        """The version's bundle, fetched into `folder`."""
        from mlflow.artifacts import download_artifacts

        found = download_artifacts(
            artifact_uri=f"{version.source}/artifacts/bundle",
            dst_path=str(folder),
            tracking_uri=self.uri,
        )
        return Path(found)

    def challenge(self, version: Version) -> None:
        self.client.set_registered_model_alias(self.name, "challenger", version.number)

    def promote(self, version: Version, why: str) -> None:
        """The alias moves last: a champion always knows whom it replaced."""
        champion = self.aliased("champion")
        if champion is not None and champion.number != version.number:
            self.tag(version, BEFORE, champion.number)
        self.tag(version, WHY, why)
        self._forgive(version)
        self.client.set_registered_model_alias(self.name, "champion", version.number)

    def _forgive(self, version: Version) -> None:
        """It serves again: that it was once rolled back is over."""
        if ROLLED_BACK in version.tags:
            self.client.delete_model_version_tag(self.name, version.number, ROLLED_BACK)

    def rollback(self) -> tuple[str, str]:
        """From which version to which. The one that is left is not promoted again by itself."""
        champion = self.aliased("champion")
        if champion is None:
            raise RegistryError(f"{self.name} has no champion: materialise the asset `champion`")
        before = champion.tags.get(BEFORE)
        if before is None:
            raise RegistryError(
                f"{self.name}: version {champion.number} replaced none, so there is none to go back to; "
                "`show` lists the versions, `promote --version N` picks one"
            )
        self._forgive(self.version(before))  # an error where it was deleted
        self.tag(champion, ROLLED_BACK, time.strftime("%Y-%m-%d %H:%M"))
        self.client.set_registered_model_alias(self.name, "champion", before)
        return champion.number, before

    def version(self, number: str) -> Version:
        for version in self.versions():
            if version.number == number:
                return version
        known = ", ".join(v.number for v in self.versions()) or "none"
        raise RegistryError(f"{self.name} has no version {number}; it has {known}")

    def tag(self, version: Version, key: str, value: str) -> None:
        self.client.set_model_version_tag(self.name, version.number, key, value)

    def show(self) -> str:
        lines = [f"{self.name} in {self.uri}"]
        for version in self.versions():
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created))
            tags = version.tags
            words = [f"version {version.number}", made, f"student {tags.get(STUDENT, '?')[:12]}"]
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
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--version", help="of promote")
    args = parser.parse_args(argv)
    registry = Registry(root, args.dataset)
    try:
        if args.command == "rollback":
            left, back = registry.rollback()
            print(
                f"{registry.name}: champion is version {back} again, version {left} was rolled back"
            )
        elif args.command == "promote":
            registry.promote(registry.version(str(args.version)), "promoted by hand")
            print(f"{registry.name}: champion is version {args.version}, by hand")
        else:
            print(registry.show())
    except RegistryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.command != "show":
        print("a server that runs already goes on with what it loaded: start it again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
