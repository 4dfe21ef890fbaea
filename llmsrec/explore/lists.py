"""The lists of recommendations as HTML."""

from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from llmsrec.explore.answers import NEW_ITEM, Answer, Explorer

NAMES = {
    "recommender": "Recommender",
    "teacher": "Teacher",
    "student": "Language model",
    "content": "Text",
}
ABOUT = {
    "recommender": "the weighted sum of the parts: what a shopper gets",
    "teacher": "SASRec: the order of item ids",
    "student": "LLM-SRec: titles, and the order from the teacher",
    "content": "TF-IDF: words shared with the last {last} purchases",
}

_template = Environment(
    loader=PackageLoader("llmsrec.explore", "."), autoescape=select_autoescape()
).get_template("lists.html")


def lists_html(
    explorer: Explorer, now: Answer, original: Answer, next_item: str | None, k: int
) -> str:
    """A column for each system with its best `k` items and how many places each moved since `original`."""
    lists = [
        {
            "system": system,
            "name": NAMES[system],
            "about": ABOUT[system].format(last=explorer.recommender.fitted.content_last),
            "rows": [
                _row(explorer, now, original, system, item, next_item)
                for item in now.best(system, k)
            ],
        }
        for system in explorer.systems
    ]
    return _template.render(lists=lists, parts=explorer.systems[1:], names=NAMES)


def _row(
    explorer: Explorer,
    now: Answer,
    original: Answer,
    system: str,
    item: int,
    next_item: str | None,
) -> dict[str, Any]:
    catalog = explorer.recommender.catalog
    item_id = catalog.item_id(item)
    moved = (original.rank(system, item) or 0) - (now.rank(system, item) or 0)
    shares = {part: float(row[item]) for part, row in now.shares.items()}
    scale = 100 / max(sum(max(share, 0) for share in shares.values()), 1e-9)
    widths = {part: max(share, 0) * scale for part, share in shares.items()}
    added = "new" if item_id.startswith(NEW_ITEM) else ""
    return {
        "title": catalog.titles[item],
        "score": float(now.scores[system][item]),
        "change": f"{'▲' if moved > 0 else '▼'}{abs(moved)}" if moved else "",
        "mark": "next" if item_id == next_item else added,
        "shares": widths if system == "recommender" else {},
        "explanation": ", ".join(f"{NAMES[part]} {share:+.2f}" for part, share in shares.items()),
    }
