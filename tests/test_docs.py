"""Rules for all Markdown files: links resolve, lines are short."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
ANCHOR = re.compile(r'<a id="([^"]+)">')
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
URL = re.compile(r"https?://\S+")
LONGEST = 120


def markdown_files() -> list[str]:
    """The files that git tracks, and new ones that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def prose(path: Path) -> str:
    """The text without code blocks; their lines become empty."""
    text = path.read_text(encoding="utf-8")
    return FENCED.sub(lambda block: "\n" * block[0].count("\n"), text)


@cache
def anchors(path: Path) -> set[str]:
    """The explicit anchors of a file, and those that GitHub makes from headings."""
    text = prose(path)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(text)]
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}
    return slugs | set(ANCHOR.findall(text))


@pytest.mark.parametrize("name", markdown_files())
def test_relative_links_resolve(name: str) -> None:
    path = ROOT / name
    broken = []
    for target in LINK.findall(CODE.sub("", prose(path))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("name", markdown_files())
def test_lines_are_short(name: str) -> None:
    """Except tables and URLs."""
    lines = enumerate(prose(ROOT / name).splitlines(), start=1)
    long = [
        number
        for number, line in lines
        if len(URL.sub("", line)) > LONGEST and not line.lstrip().startswith("|")
    ]
    assert long == []
