"""A study as one self-contained HTML file in the report's style."""

from pathlib import Path

import jinja2

from llmsrec.core.files import atomic_write
from llmsrec.report.plots import PRINT, save_png, svg
from llmsrec.report.verdict import NEWS
from studies.plots import quality
from studies.table import CHANCE, StudyResult
from studies.tables import table_specs

PICTURES = (
    ("sampled", "ndcg@10", "Retrieval", "NDCG@10 among {candidates} candidates."),
    ("full", "ndcg@10", "Retrieval", "NDCG@10 among all items."),
    ("generation", "hr@1", "Generation", "HR@1 among {generation_candidates} candidates."),
)


def save_page(result: StudyResult, folder: Path, name: str) -> None:
    """Write <name>.html, and its first picture as <name>.png."""
    loader = jinja2.ChoiceLoader(
        [
            jinja2.FileSystemLoader(Path(__file__).parent),
            jinja2.PackageLoader("llmsrec.report", "."),
        ]
    )
    environment = jinja2.Environment(loader=loader, autoescape=True)
    measured = {(row.protocol, row.metric) for row in result.rows if row.system != CHANCE}
    shown = [picture for picture in PICTURES if picture[:2] in measured]
    pictures = [
        (title, svg(quality(result, protocol, metric)), caption.format(**result.about))
        for protocol, metric, title, caption in shown
    ]
    page = environment.get_template("study.html").render(
        about=result.about,
        verdict=verdict(result),
        pictures=pictures,
        tables=table_specs(result),
        trained=result.trained,
    )
    with atomic_write(folder / f"{name}.html") as partial:
        partial.write_text(page, encoding="utf-8")
    save_png(quality(result, *shown[0][:2], PRINT), folder / f"{name}.png")


def verdict(result: StudyResult) -> list[dict[str, str]]:
    """What the corrected tests allow to be said of the reference in each ranking, worst news first."""
    reference = result.about["reference"]
    statements = []
    for protocol, place in (("sampled", "among candidates"), ("full", "among all items")):
        tests = result.tests("reference", protocol).values()
        groups = {
            "is behind": [test.system for test in tests if test.different and test.value > 0],
            "does not differ from": [test.system for test in tests if not test.different],
            "is ahead of": [test.system for test in tests if test.different and test.value < 0],
        }
        clauses = [
            f"{words} {_joined(names) if len(names) < len(tests) else f'all {len(names)} others'}"
            for words, names in groups.items()
            if names
        ]
        if clauses:
            marks = {"bad": groups["is behind"], "open": groups["does not differ from"]}
            news = next((mark for mark, names in marks.items() if names), "good")
            text = f"On NDCG@10 {place} {reference} {'; it '.join(clauses)}."
            statements.append({"news": news, "text": text})
    untested = f"{reference} is not in this study: no system is tested against it."
    statements = statements or [{"news": "open", "text": untested}]
    return sorted(statements, key=lambda statement: NEWS.index(statement["news"]))


def _joined(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
