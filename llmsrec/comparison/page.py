"""A comparison as one HTML file that opens anywhere, in the report's style; `report.html` stands by itself, since
systems are compared long after a store's evaluation, or never."""

from pathlib import Path

import jinja2

from llmsrec.comparison.plots import quality
from llmsrec.comparison.results import Comparison
from llmsrec.comparison.tables import table_specs
from llmsrec.comparison.tidy import CHANCE
from llmsrec.core.files import atomic_write
from llmsrec.report.plots import PRINT, save_png, svg

PICTURES = (
    ("sampled", "ndcg@10", "Ranking", "NDCG@10 among {candidates} candidates, mode R."),
    ("generation", "hr@1", "Answering", "HR@1 among {generation_candidates} candidates, mode G."),
)


def save_page(found: Comparison, folder: Path) -> None:
    """comparison.html, and its first picture as comparison.png."""
    loader = jinja2.ChoiceLoader(
        [jinja2.PackageLoader(f"llmsrec.{package}", ".") for package in ("comparison", "report")]
    )
    environment = jinja2.Environment(loader=loader, autoescape=True)
    asked = {(row.protocol, row.metric) for row in found.rows if row.system != CHANCE}
    shown = [picture for picture in PICTURES if picture[:2] in asked]
    pictures = [
        (title, svg(quality(found, protocol, metric)), caption.format(**found.about))
        for protocol, metric, title, caption in shown
    ]
    page = environment.get_template("comparison.html").render(
        about=found.about,
        verdict=verdict(found),
        pictures=pictures,
        exhibits=table_specs(found),
        trained=found.trained,
    )
    with atomic_write(folder / "comparison.html") as aside:
        aside.write_text(page, encoding="utf-8")
    save_png(quality(found, *shown[0][:2], PRINT), folder / "comparison.png")


def verdict(found: Comparison) -> list[str]:
    """What the corrected tests allow to be said."""
    reference = found.about["reference"]
    tests = [t for t in found.tests if (t.family, t.protocol) == ("reference", "sampled")]
    if not tests:
        return [f"{reference} is not among them: nobody is tested against it."]
    groups = {
        "is ahead of": [t.system for t in tests if t.different and t.difference < 0],
        "is behind": [t.system for t in tests if t.different and t.difference > 0],
        "cannot be told from": [t.system for t in tests if not t.different],
    }
    said = [
        f"{words} {_joined(names) if len(names) < len(tests) else f'all {len(names)} others'}"
        for words, names in groups.items()
        if names
    ]
    return [f"On NDCG@10 among candidates {reference} {'; it '.join(said)}."]


def _joined(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
