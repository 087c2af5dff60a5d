"""The Markdown pages and their code blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("tf_groupvit", "serving", "notebooks", ".github")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for room in ROOMS for page in ROOT.glob(f"{room}/**/*.md"))]
)


def all_blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, label (page and line) and code of each block of a page, from top to bottom."""
    found, text = [], page.read_text()
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 2
        found.append((match[1], f"{page.relative_to(ROOT)}:{line}", match[2]))
    return found


def blocks(language: str, pages: list[Path] = PAGES) -> list[tuple[str, str]]:
    """Label and code of each block of that language."""
    found = [block for page in pages for block in all_blocks(page)]
    return [(label, code) for kind, label, code in found if kind == language]
