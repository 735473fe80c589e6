"""The page of `mocosfl watch --html` in a browser: it shows, it fits, it can be read, and it comes back by itself."""

from __future__ import annotations

import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.record.output import Lock
from tests.pages.looks import WIDTHS, overflow
from tests.shipped import unpack

pytestmark = pytest.mark.pages

KINDS = {"completed": ("ranks3",), "running": ("killed",), "several": ("grid", "killed", "fl_moco")}
"""Runs of each page."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The file of a page for each of ``KINDS``."""
    runs = unpack(tmp_path_factory.mktemp("runs"))
    lock = Lock(runs / "killed")  # its file was left open: with the lock it is a run at work
    found = {}
    for kind, names in KINDS.items():
        found[kind] = tmp_path_factory.mktemp(kind) / "watch.html"
        assert main(["watch", *(str(runs / name) for name in names), "--once", "--html", str(found[kind])]) == 0
    lock.release()
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_shows_and_fits(opened):
    page, complaints = opened
    assert len(page.inner_text("main")) > 200
    assert overflow(page) == [0, []]
    assert complaints == []


@pytest.mark.parametrize("width", ["desk", "phone"])
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_shut_out(opened):
    from axe_playwright_python.sync_playwright import Axe

    page, _ = opened
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response
    assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    assert found["passes"], "the checks were made"
