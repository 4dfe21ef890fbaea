"""Evaluate the trained models; write metrics, plots and the report."""

import argparse
from pathlib import Path
from typing import Any

from llmsrec.core.config import load_section
from llmsrec.core.files import read_json, sha256, write_json
from llmsrec.core.names import name_option
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import (
    EvaluationConfig,
    UserMetrics,
    evaluate_all,
    summarise,
    summarise_lists,
)
from llmsrec.evaluation.systems import Inputs, all_rankers
from llmsrec.ranking.ranker import cached
from llmsrec.recommender.fitted import FittedRecommender
from llmsrec.report.cases import select_cases
from llmsrec.report.cost import reading_cost
from llmsrec.report.gates import GatesConfig, evaluate_gates
from llmsrec.report.page import Diagnostics, ReportContent, write_report
from llmsrec.report.plots import PRINT, ndcg_by_system, save_png
from llmsrec.report.previous import previous_run
from llmsrec.report.probes import metrics_by_group, sequence_diagnostics
from llmsrec.report.representations import representation_maps
from llmsrec.report.verdict import verdict
from llmsrec.stages import run
from llmsrec.student.model import load_student

REPORTS = ("interactions", "splits", "teacher_training", "student_training")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=name_option, required=True)
    for name in ("splits", "teacher", "backbone", "student", "recommender", "reports"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(EvaluationConfig, "evaluation")
    splits, reports = Splits.load(args.splits), args.reports
    student = load_student(args.student, args.backbone, args.teacher, splits.catalog)
    fitted = FittedRecommender.load(args.recommender)
    parts = {
        name: cached(part) for name, part in fitted.parts(student, splits.catalog).by_name().items()
    }
    rankers = all_rankers(Inputs(splits, parts | fitted.hybrids(parts), config.seed))
    user_metrics = evaluate_all(rankers, splits, config)
    gates = evaluate_gates(user_metrics, load_section(GatesConfig, "gates"), config)
    metrics = summary(user_metrics, splits, config, args.dataset)
    metrics["language_model"] = reading_cost(student, splits.histories("test"))
    model = sha256(args.recommender / "config.json")
    metrics |= {"verdict": verdict(metrics, gates["results"]), "model": model}
    vectors = user_metrics.users["student"]
    diagnostics = Diagnostics(
        gates=gates["results"],
        groups=metrics_by_group(user_metrics.table, splits, config),
        similarity=user_metrics.similarity,
        maps=representation_maps(student, splits, fitted.item_vectors, vectors, config.seed),
        cases=select_cases(rankers, splits, user_metrics.table),
        previous=previous_run(reports, model),
    )
    write_json(reports / "gates.json", gates | {"model": model})
    write_metrics(metrics, diagnostics, reports)
    write_report(
        reports / "report.html", metrics, diagnostics, report_content(reports, args.backbone)
    )


def summary(
    found: UserMetrics, splits: Splits, config: EvaluationConfig, dataset: str
) -> dict[str, Any]:
    """metrics.json without the verdict."""
    return {
        **summarise(found.table, splits, config, dataset, found.user_indices),
        "lists": summarise_lists(found.lists, splits),
        **sequence_diagnostics(found, splits, config),
    }


def write_metrics(metrics: dict[str, Any], diagnostics: Diagnostics, reports: Path) -> None:
    """metrics.json, and the files of the plots that DVC and Dagster show."""
    write_json(reports / "metrics.json", metrics)
    write_json(reports / "groups.json", diagnostics.groups)
    write_json(reports / "ndcg.json", [
        {"system": f"{name}, {protocol}", "ndcg@10": values[protocol]["ndcg@10"]["value"]}
        for name, values in metrics["systems"].items() for protocol in ("sampled", "full")
    ])  # fmt: skip
    save_png(ndcg_by_system(metrics, PRINT), reports / "ndcg.png")


def report_content(reports: Path, backbone: Path) -> ReportContent:
    """The reports of the earlier stages."""
    reference = read_json(backbone / "backbone.json")
    source = reference.get("source", f"{reference['location']}, {reference['revision'][:12]}")
    details = [f"the first {reference['layers']} layers"] if "layers" in reference else []
    if "quantised" in reference:
        details += [f"licence {reference['licence']}", f"quantised: {reference['quantised']}"]
    note = f"The language model is '{reference['kind']}' ({'; '.join([source, *details])})."
    return ReportContent(
        **{name: read_json(reports / f"{name}.json") for name in REPORTS}, backbone_note=note
    )


if __name__ == "__main__":
    run(main)
