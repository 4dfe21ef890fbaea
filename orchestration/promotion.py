"""The asset `champion`: register what was trained, compare it with what serves, and move the alias or say why not.

Written by hand, since it depends on the registry, which DVC does not know (docs/decisions/0009). Killed anywhere, the
next run goes on: each step asks the registry what is done already, and the alias moves last.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from orchestration.child import run_child
from orchestration.dvc_assets import StageFailed
from orchestration.dvc_project import DvcProject, Result
from orchestration.mlflow_runs import MlflowRuns, Pass, TrackedRun, flatten
from orchestration.registry import ROLLED_BACK, STUDENT, WHY, Registry, Version

BUNDLE = ("teacher", "backbone", "student", "item_embeddings")


@dataclass(frozen=True)
class Verdict:
    """`outcome` is promoted, refused or unchanged."""

    outcome: str
    why: str
    version: str
    champion: str | None  # the one before
    numbers: Mapping[str, Any] | None = None

    @property
    def serves(self) -> str:
        return (self.champion or "none") if self.outcome == "refused" else self.version


def champion_asset(
    project: DvcProject, datasets: Mapping[str, str], tracker: MlflowRuns
) -> dg.AssetsDefinition:
    @dg.asset(
        name="champion",
        deps=["evaluation"],
        description="The version that serves: a challenger takes its place if the gates hold and it is not worse for "
        "the test users of today",
        group_name="serving",
        pool="accelerator",
        partitions_def=dg.StaticPartitionsDefinition(list(datasets)),
        kinds={"mlflow"},
    )
    def champion(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        start = time.monotonic()
        verdict = _Promotion(context, project, tracker).settle()
        yield dg.MaterializeResult(
            metadata={
                "outcome": verdict.outcome,
                "seconds": round(time.monotonic() - start, 1),
                "why": verdict.why,
                "version": verdict.version,
                "champion_before": verdict.champion or "none",
                **_numbers(verdict),
            },
            data_version=dg.DataVersion(verdict.serves),
        )

    return champion


class _Promotion:
    """One dataset, once."""

    def __init__(
        self, context: dg.AssetExecutionContext, project: DvcProject, tracker: MlflowRuns
    ) -> None:
        self.context, self.project, self.tracker = context, project, tracker
        self.dataset = context.partition_key
        self.registry = Registry(project.root, self.dataset)
        self.artifacts = Path("artifacts") / self.dataset
        self.reports = Path("reports") / self.dataset

    def settle(self) -> Verdict:
        student = _sha256(self.project.root / self.artifacts / "student" / "model.safetensors")
        version, champion = self.registry.of_student(student), self.registry.aliased("champion")
        if version is not None and champion is not None and version.number == champion.number:
            why = f"version {version.number} is the champion: {version.tags.get(WHY, '')}"
            return self._standing(Verdict("unchanged", why, version.number, None))
        part_of = Pass(self.context.run.run_id, self.dataset)
        with self.tracker.open("champion", part_of, {"promotion": self._knobs()}) as run:
            if version is None:
                version = self._register(run, student)
            self.registry.challenge(version)
            verdict = self._judge(version, champion)
            if _number(self.registry.aliased("champion")) != _number(champion):
                raise dg.Failure(
                    "the champion changed while the challenger was compared with the one before: materialise "
                    "`champion` again"
                )
            if verdict.outcome == "promoted":
                self.registry.promote(version, verdict.why)
            else:
                self.registry.tag(version, WHY, verdict.why)
            run.outcome, run.metrics = verdict.outcome, _numbers(verdict)
            run.tags |= {"why": verdict.why, "version": verdict.version}
            run.artifacts = [self.project.root / self.reports / "promotion.json"]
        return verdict

    def _standing(self, verdict: Verdict) -> Verdict:
        """promotion.json of the promotion itself stays; one that tells of another version, or none, gives way."""
        file = self.project.root / self.reports / "promotion.json"
        told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if told.get("version") != verdict.version:
            _write(file, _document(verdict))
        return verdict

    def _register(self, run: TrackedRun, student: str) -> Version:
        folder = Path("scratch") / self.dataset / "champion"
        self._call("pack_bundle", ["--artifacts", str(self.artifacts), "--out", str(folder)])
        commit = self.tracker.commit()
        stages = self.project.stages()
        hashes = {
            f"dvc_{name}": stages[f"{name}@{self.dataset}"].data_version
            for name in ("splits", *BUNDLE)
        }
        tags = {STUDENT: student, **({"git": commit} if commit else {}), **hashes}
        return self.registry.register(self.project.root / folder, run.run_id, tags)

    def _judge(self, version: Version, champion: Version | None) -> Verdict:
        number, before = version.number, _number(champion)
        if ROLLED_BACK in version.tags:
            why = (
                f"version {number} was rolled back on {version.tags[ROLLED_BACK]}: train anew, or "
                f"`python -m orchestration.registry promote --dataset {self.dataset} --version {number}`"
            )
            found: dict[str, Any] = {"promote": False, "why": why, "ndcg@10": None}
        else:
            found = self._compare(champion)
        outcome = "promoted" if found["promote"] else "refused"
        why = f"version {number} is {outcome}: {found['why']}"
        verdict = Verdict(outcome, why, number, before, found["ndcg@10"])
        _write(self.project.root / self.reports / "promotion.json", _document(verdict))
        return verdict

    def _compare(self, champion: Version | None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as aside:
            out = Path(aside) / "comparison.json"
            arguments = ["--artifacts", str(self.artifacts), "--out", str(out)]
            arguments += ["--gates", str(self.reports / "gates.json")]
            if champion is not None:
                arguments += ["--champion", str(self.registry.bundle(champion, Path(aside)))]
            self._call("compare_champion", arguments)
            return dict(json.loads(out.read_text(encoding="utf-8")))

    def _call(self, stage: str, arguments: list[str]) -> None:
        start = time.monotonic()
        command = [sys.executable, "-m", f"llmsrec.stages.{stage}", *arguments]
        returncode, tail = run_child(command, self.project.root, self.context.log.info)
        if returncode:
            result = Result("failed", time.monotonic() - start, tuple(tail))
            raise StageFailed(f"{stage}@{self.dataset}", result)

    def _knobs(self) -> Any:
        text = (self.project.root / "operations.yaml").read_text(encoding="utf-8")
        return yaml.safe_load(text)["promotion"]


def _number(version: Version | None) -> str | None:
    return None if version is None else version.number


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "version": verdict.version,
        "champion_before": verdict.champion,
        "outcome": verdict.outcome,
        "why": verdict.why,
        "ndcg@10": verdict.numbers,
    }


def _numbers(verdict: Verdict) -> dict[str, float]:
    """Under names that Dagster and MLflow take."""
    leaves = flatten(verdict.numbers or {})
    return {name.replace("@", "_at_"): float(value) for name, value in leaves.items()}


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write(path: Path, document: Any) -> None:
    """Whole, or not at all; one run of a dataset works at a time, so what a killed one left is written over."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, path)
