"""The Markdown pages in, their code blocks out."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("tf_groupvit", "serving", "notebooks", ".github")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in ROOT.glob(f"{room}/**/*.md"))])


def blocks(language: str, pages: list[Path] = PAGES) -> list[tuple[str, str]]:
    """A label (page and line) and the code of each block of that language."""
    found = []
    for page in pages:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 2
            found.append((f"{page.relative_to(ROOT)}:{line}", match[1]))
    return found
