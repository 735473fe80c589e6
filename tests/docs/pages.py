"""What the pages of the documentation show: blocks, the commands in them, links, and paths of the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
LANGUAGES = {"sh", "console", "text", "python", "toml", "diff", "{toctree}", "{eval-rst}"}
FILE_NAME = re.compile(r"# (\S+\.(?:toml|py|diff))\n")
"""The first line of a block that is a file, which commands of the page use."""


def pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and all pages below docs/, without the built site."""
    below = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in below if "_build" not in page.parts)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A block of code. Indented ones are commands."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name under which the block is a file, if its first line says so."""
        found = FILE_NAME.match(self.text)
        return found[1] if found else None


def blocks(page: Path) -> Iterator[Block]:
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        if token.type in {"fence", "code_block"}:
            language = "sh" if token.type == "code_block" else (token.info.split() or [""])[0]
            yield Block(language, token.content, (token.map or [0])[0] + 1)


def commands(block: Block) -> list[str]:
    """The commands of a block, one a line, without comments; a loop is one command of several lines."""
    found: list[str] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        bare = re.sub(r"(^|\s+)# .*$", "", line)
        if not bare.strip():
            continue
        if found and len(re.findall(r"\bfor ", found[-1])) > len(re.findall(r"\bdone\b", found[-1])):
            found[-1] += "\n" + bare.strip()
        else:
            found.append(bare.strip())
    return ["\n".join(" ".join(line.split()) for line in command.splitlines()) for command in found]


@dataclass(frozen=True)
class Said:
    """A command of a ```console block, and the lines that must come of it; … stands for anything."""

    command: str
    lines: list[str]


def conversation(block: Block) -> list[Said]:
    said: list[Said] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            said.append(Said(line[2:], []))
        else:
            said[-1].lines.append(line)
    return said


def pattern(lines: list[str]) -> re.Pattern[str]:
    """What matches an output that has these lines, one after the other; a … by itself is any lines, or none."""
    parts = (r"(?:.*\n)?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines)
    return re.compile("".join(parts), re.DOTALL)


def links(page: Path) -> Iterator[str]:
    """Targets of links and pictures, as they are written."""

    def walk(tokens):
        for token in tokens:
            for key in ("href", "src"):
                if key in token.attrs:
                    yield str(token.attrs[key])
            yield from walk(token.children or [])

    return walk(MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")))


def spoken(page: Path) -> Iterator[str]:
    """Texts in `code` within sentences and tables."""

    def walk(tokens):
        for token in tokens:
            if token.type == "code_inline":
                yield token.content
            yield from walk(token.children or [])

    return walk(MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")))
