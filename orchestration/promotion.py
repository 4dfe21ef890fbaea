"""The asset `champion`: register the trained models, compare them with the champion, and promote or refuse them.

It is written by hand, since it depends on the registry, which DVC does not track (docs/decisions/0009). A run may be
killed at any point: each step reads from the registry what is done already, and the alias is moved last.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from llmsrec.core.config import OPERATIONS, read_section
from llmsrec.core.files import sha256, write_json
from orchestration.asset_metadata import headline, headline_text, metrics_of
from orchestration.child import run_child
from orchestration.dvc_assets import StageFailed
from orchestration.dvc_project import DvcProject, Result
from orchestration.mlflow_runs import MlflowRuns, ParentRun, TrackedRun, flatten
from orchestration.registry import MODEL_DIGEST, ROLLED_BACK, WHY, Registry, Version

BUNDLE_STAGES = ("teacher", "backbone", "student", "recommender")


@dataclass(frozen=True)
class Decision:
    """The result of one promotion; `outcome` is promoted, refused or unchanged."""

    outcome: str
    why: str
    version: str
    champion: str | None  # the previous one
    numbers: Mapping[str, Any] | None = None

    @property
    def serving_version(self) -> str:
        """The number of the champion after the decision."""
        return (self.champion or "none") if self.outcome == "refused" else self.version


def champion_asset(
    project: DvcProject, datasets: Mapping[str, str], tracker: MlflowRuns
) -> dg.AssetsDefinition:
    """The asset `champion`, partitioned by dataset."""

    @dg.asset(
        name="champion",
        deps=["evaluation"],
        description="The version that serves: a challenger replaces it if the gates pass and it is not worse for the "
        "current test users",
        group_name="serving",
        pool="accelerator",
        partitions_def=dg.StaticPartitionsDefinition(list(datasets)),
        kinds={"mlflow"},
    )
    def champion(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        start = time.monotonic()
        decision = _Promotion(context, project, tracker).run()
        yield dg.MaterializeResult(
            metadata={
                "outcome": decision.outcome,
                "seconds": round(time.monotonic() - start, 1),
                "why": decision.why,
                "version": decision.version,
                "champion_before": decision.champion or "none",
                **_numbers(decision),
            },
            data_version=dg.DataVersion(decision.serving_version),
        )

    return champion


class _Promotion:
    """One promotion of one dataset."""

    def __init__(
        self, context: dg.AssetExecutionContext, project: DvcProject, tracker: MlflowRuns
    ) -> None:
        self.context, self.project, self.tracker = context, project, tracker
        self.dataset = context.partition_key
        self.registry = Registry(project.root, self.dataset)
        self.artifacts = Path("artifacts") / self.dataset
        self.reports = Path("reports") / self.dataset

    def run(self) -> Decision:
        digest = sha256(self.project.root / self.artifacts / "recommender" / "config.json")
        version = self.registry.version_of_model(digest)
        champion = self.registry.version_by_alias("champion")
        if version is not None and champion is not None and version.number == champion.number:
            why = f"version {version.number} is the champion: {version.tags.get(WHY, '')}"
            return self._unchanged(Decision("unchanged", why, version.number, None))
        parent = ParentRun(self.context.run.run_id, self.dataset)
        with self.tracker.start_run("champion", parent, {"promotion": self._parameters()}) as run:
            if version is None:
                version = self._register(run, digest)
            self.registry.set_challenger(version)
            decision = self._decide(version, champion)
            if _number(self.registry.version_by_alias("champion")) != _number(champion):
                raise dg.Failure(
                    "the champion changed while the challenger was compared with the previous one: materialise "
                    "`champion` again"
                )
            if decision.outcome == "promoted":
                self.registry.promote(version, decision.why)
            else:
                self.registry.tag(version, WHY, decision.why)
            self.registry.describe(version, f"{self._headline()}\n\n{decision.why}")
            run.outcome, run.metrics = decision.outcome, _numbers(decision)
            run.headline = {"version": float(decision.version)}
            run.tags |= {"why": decision.why, "version": decision.version}
            run.artifacts = [self.project.root / self.reports / "promotion.json"]
        return decision

    def _unchanged(self, decision: Decision) -> Decision:
        """Write promotion.json, unless it already describes the promotion of this version."""
        file = self.project.root / self.reports / "promotion.json"
        document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if document.get("version") != decision.version:
            write_json(file, _document(decision))
        return decision

    def _register(self, run: TrackedRun, digest: str) -> Version:
        folder = Path("scratch") / self.dataset / "champion"
        self._run_stage("pack_bundle", ["--artifacts", str(self.artifacts), "--out", str(folder)])
        commit = self.tracker.commit()
        stages = self.project.stages()
        hashes = {
            f"dvc_{name}": stages[f"{name}@{self.dataset}"].data_version
            for name in ("splits", *BUNDLE_STAGES)
        }
        tags = {MODEL_DIGEST: digest, **({"git": commit} if commit else {}), **hashes}
        return self.registry.register(self.project.root / folder, run.run_id, tags)

    def _decide(self, version: Version, champion: Version | None) -> Decision:
        number, before = version.number, _number(champion)
        if ROLLED_BACK in version.tags:
            why = (
                f"version {number} was rolled back on {version.tags[ROLLED_BACK]}: train again, or "
                f"`python -m orchestration.registry promote --dataset {self.dataset} --version {number}`"
            )
            comparison: dict[str, Any] = {"promote": False, "why": why, "ndcg@10": None}
        else:
            comparison = self._compare(champion)
        outcome = "promoted" if comparison["promote"] else "refused"
        why = f"version {number} is {outcome}: {comparison['why']}"
        decision = Decision(outcome, why, number, before, comparison["ndcg@10"])
        write_json(self.project.root / self.reports / "promotion.json", _document(decision))
        return decision

    def _compare(self, champion: Version | None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / "comparison.json"
            arguments = ["--artifacts", str(self.artifacts), "--out", str(out)]
            arguments += ["--gates", str(self.reports / "gates.json")]
            if champion is not None:
                arguments += [
                    "--champion",
                    str(self.registry.download_bundle(champion, Path(temporary))),
                ]
            self._run_stage("compare_champion", arguments)
            return dict(json.loads(out.read_text(encoding="utf-8")))

    def _run_stage(self, stage: str, arguments: list[str]) -> None:
        start = time.monotonic()
        command = [sys.executable, "-m", f"llmsrec.stages.{stage}", *arguments]
        returncode, tail = run_child(command, self.project.root, self.context.log.info)
        if returncode:
            result = Result("failed", time.monotonic() - start, tuple(tail))
            raise StageFailed(f"{stage}@{self.dataset}", result)

    def _headline(self) -> str:
        """What the evaluation found, in a line."""
        stage = self.project.stage(f"evaluation@{self.dataset}")
        return headline_text(headline(stage, metrics_of(self.project.root, stage)))

    def _parameters(self) -> dict[str, Any]:
        return read_section("promotion", self.project.root / OPERATIONS)


def _number(version: Version | None) -> str | None:
    return None if version is None else version.number


def _document(decision: Decision) -> dict[str, Any]:
    return {
        "version": decision.version,
        "champion_before": decision.champion,
        "outcome": decision.outcome,
        "why": decision.why,
        "ndcg@10": decision.numbers,
    }


def _numbers(decision: Decision) -> dict[str, float]:
    """The numbers of the comparison, under names that Dagster and MLflow accept."""
    leaves = flatten(decision.numbers or {})
    return {name.replace("@", "_at_"): float(value) for name, value in leaves.items()}
