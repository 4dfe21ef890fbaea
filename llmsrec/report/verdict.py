"""What a reader must know of an evaluation, in sentences, worst news first (specification 2).

The sentences are stored in metrics.json; the report, `make run` and `llmsrec results` all show these.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llmsrec.evaluation.per_user import MAIN
from llmsrec.evaluation.systems import SHUFFLED, label

NEWS = ("bad", "open", "good")  # worst first
# hybrids, which are no rivals of the student alone
COMBINED = ("recommender", "recommender_without_student")
SHOWN = 3  # systems that a sentence lists

Statement = dict[str, str]  # news, text


def verdict(metrics: Mapping[str, Any], gates: Sequence[Mapping[str, Any]]) -> list[Statement]:
    """The statements by their news; `gates` are the results of `evaluate_gates`."""
    places = {"sampled": f"among {metrics['candidates']} candidates", "full": "among all items"}
    gaps = {
        place: {(row["a"], row["b"]): row for row in metrics["differences"] if row["protocol"] == name}
        for name, place in places.items()
    }  # fmt: skip
    values = {
        place: {name: rows[protocol]["ndcg@10"]["value"] for name, rows in metrics["systems"].items()}
        for protocol, place in places.items()
    }  # fmt: skip
    statements = [
        *(
            _against_rivals(main, place, gaps[place], values[place])
            for main in MAIN
            for place in places.values()
        ),
        _worth(gaps, values, metrics.get("language_model")),
        _order(gaps),
        _gates(gates),
    ]
    made = [statement for statement in statements if statement]
    return sorted(made, key=lambda statement: NEWS.index(statement["news"]))


def _against_rivals(
    main: str, place: str, gaps: Mapping[tuple[str, str], Any], values: Mapping[str, float]
) -> Statement | None:
    """Recommender or student and every other system in one ranking."""
    pairs = {b: row for (a, b), row in gaps.items() if a == main}
    rows = {name: row for name, row in pairs.items() if main != "student" or name not in COMBINED}
    if not rows:
        return None
    best_first = sorted(rows, key=lambda name: -values[name])
    ahead = [name for name in best_first if rows[name]["high"] < 0]
    level = [name for name in best_first if rows[name]["low"] <= 0 <= rows[name]["high"]]
    subject = f"the {main} (NDCG@10 {values[main]:.4f})"
    start = place[0].upper() + place[1:]

    def listed(names: list[str]) -> str:
        shown = [
            f"{label(name)} {values[name]:.4f} ({main} {100 * rows[name]['relative']:+z.0f}%)"
            for name in names[:SHOWN]
        ]
        return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")

    if ahead:
        count = f"{len(ahead)} systems are" if len(ahead) > 1 else "1 system is"
        text = f"{count} significantly better than {subject}: {listed(ahead)}."
        return _statement("bad", f"{start}, {text}")
    if level:
        text = f"no system is significantly better than {subject}; not significantly different: {listed(level)}."
        return _statement("open", f"{start}, {text}")
    text = f"{subject} is significantly better than every other system; the best is {listed(best_first[:1])}."
    return _statement("good", f"{start}, {text}")


def _worth(
    gaps: Mapping[str, Mapping[tuple[str, str], Any]],
    values: Mapping[str, Mapping[str, float]],
    cost: Mapping[str, float] | None,
) -> Statement | None:
    """The recommender with and without the student: what the language model adds, and what it costs."""
    pair = ("recommender", "recommender_without_student")
    rows = {place: each[pair] for place, each in gaps.items() if pair in each}
    if not rows:
        return None
    shown = " and ".join(
        f"{values[place][pair[1]]:.4f} to {values[place][pair[0]]:.4f} ({100 * row['relative']:+z.0f}%"
        f"{'' if row['low'] > 0 or row['high'] < 0 else ', not significant'}) {place}"
        for place, row in rows.items()
    )
    news = "good" if all(row["low"] > 0 for row in rows.values()) else "bad"
    text = f"The language model changes the recommender's NDCG@10 from {shown}."
    if cost:
        text += (
            f" For that it reads {cost['tokens']:.0f} tokens a shopper ({cost['gflop']:g} GFLOP)."
        )
    return _statement(news, text)


def _order(gaps: Mapping[str, Mapping[tuple[str, str], Any]]) -> Statement | None:
    """What shuffled histories cost student and teacher, as shares of their NDCG@10."""
    costs = {
        name: {
            place: rows[f"{name}{SHUFFLED}", name]
            for place, rows in gaps.items()
            if (f"{name}{SHUFFLED}", name) in rows
        }
        for name in ("student", "teacher")
    }
    if not costs["student"]:
        return None
    student = " and ".join(f"{_cost(row)} {place}" for place, row in costs["student"].items())
    teacher = " and ".join(_cost(row) for row in costs["teacher"].values())
    text = f"Shuffling the history costs the student {student} of its NDCG@10"
    lost = {name: [row["high"] < 0 for row in rows.values()] for name, rows in costs.items()}
    news = "good" if all(lost["student"]) else "bad" if any(lost["teacher"]) else "open"
    return _statement(news, text + (f"; its teacher {teacher}." if teacher else "."))


def _cost(row: Mapping[str, Any]) -> str:
    mark = " (not significant)" if row["low"] <= 0 <= row["high"] else ""
    return f"{-100 * row['relative']:z.0f}%{mark}"  # z: never -0%


def _gates(gates: Sequence[Mapping[str, Any]]) -> Statement | None:
    names: dict[str, list[str]] = {"failed": [], "failed, as warnings": [], "passed": []}
    for gate in gates:
        failed = "failed" if gate["severity"] == "error" else "failed, as warnings"
        names["passed" if gate["success"] else failed].append(gate["name"])
    if not gates:
        return None
    news = "bad" if names["failed"] else "open" if names["failed, as warnings"] else "good"
    clauses = [f"{words}: {', '.join(each)}" for words, each in names.items() if each]
    return _statement(news, f"Quality gates {'; '.join(clauses)}.")


def _statement(news: str, text: str) -> Statement:
    return {"news": news, "text": text}
