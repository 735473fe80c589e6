"""Pages of the shipped runs, made once; and a reader of pages."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.report.pictures import Album
from tests.shipped import attacks_on, unpack

VOID = {"meta", "link", "img", "br", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Every element in its order, with all text below it."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)
    source: str = ""

    def __post_init__(self):
        super().__init__()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        found = Element(tag, dict(attrs))
        self.elements.append(found)
        if tag not in VOID:
            self.open.append(found)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for element in self.open:
            element.text += data

    def all(self, tag):
        return [element for element in self.elements if element.tag == tag]

    def texts(self, tag):
        return [" ".join(element.text.split()) for element in self.all(tag)]

    @property
    def text(self):
        return " ".join(self.all("body")[0].text.split())


def page(*arguments):
    """The page that the command writes for the arguments, the last of which is its place."""
    assert main(["report", *map(str, arguments[:-1]), "-o", str(arguments[-1])]) == 0
    return Page(source=arguments[-1].read_text())


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def undrawn(monkeypatch):
    """Without figures, which take seconds."""
    monkeypatch.setattr(Album, "galleries", lambda self, kinds: iter(()))


@pytest.fixture(scope="session")
def alone(runs, tmp_path_factory):
    """The page of one run that was attacked."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(runs / "ranks3", folder / "ranks3")
    attacks_on(folder / "ranks3")
    return page(folder / "ranks3", folder / "page.html")


@pytest.fixture(scope="session")
def grid(runs, tmp_path_factory):
    """The page of half of the grid, with published numbers, and one of the pictures that come by run."""
    given = sorted((runs / "grid").glob("*-seed[01]"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocosfl_mpi.report.pictures.MOST", 1)
        return page(*given, "--published", "tests/analysis/grid.toml", tmp_path_factory.mktemp("page") / "grid.html")
