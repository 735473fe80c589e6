"""The site builds without a warning, needs nothing from elsewhere, and no link or path leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mocosfl_mpi.record.attack_schema import ATTACKS
from tests.docs.pages import ROOT, links, name, pages, spoken

REPOSITORY = re.compile(r"(?:docs|jobs|tests|analysis|benchmarks|mocosfl_mpi)/[\w./-]*\w")
"""A path of the repository, as sentences name it."""
MADE = {"docs/_build"}
"""Paths that commands make."""


def anchors(page: Path) -> set[str]:
    """What a link may name behind #: headings as code hosts and the site turn them into anchors."""
    found = set()
    for line in page.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ (.*)", line):
            words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", [*pages(), ROOT / "CHANGELOG.md"], ids=name)
def test_links_lead_somewhere(page):
    for link in links(page):
        target = urllib.parse.unquote(link)
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.is_file(), f"{name(page)}: {link}"
        if anchor:
            assert anchor in anchors(place), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", [*pages(), ROOT / "CHANGELOG.md"], ids=name)
def test_paths_in_the_text_exist(page):
    for text in spoken(page):
        for path in REPOSITORY.findall(text):
            known = path in MADE or path in ATTACKS.entries or any((ROOT / path).parent.glob((ROOT / path).name + "*"))
            assert known, f"{name(page)}: {path}"


class Loads(HTMLParser):
    """Addresses that a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.found += [given[key] for key in ("src", "srcset", "data", "poster") if given.get(key)]
        if tag == "link" and given.get("href"):
            self.found.append(given["href"])


@pytest.mark.docs
def test_the_site_builds_without_a_warning_and_is_whole(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-n", "-q"]
    done = subprocess.run([*command, "docs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        if "_build" not in page.parts:
            assert (tmp_path / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page
    for file in tmp_path.rglob("*.html"):
        loads = Loads()
        loads.feed(file.read_text(encoding="utf-8"))
        for address in loads.found:
            assert not re.match(r"(\w+:)?//", address), f"{file.name} loads {address}"
            path = address.partition("?")[0].partition("#")[0]
            assert address.startswith("data:") or (file.parent / path).exists(), f"{file.name} loads {address}"
    for file in tmp_path.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(\w+:)?//", file.read_text(encoding="utf-8")), file
