"""The report in a browser, at the width of a desk and of a phone: it shows, it fits, it can be read and operated."""

from __future__ import annotations

import pytest

from mocosfl_mpi.cli import main
from mocosfl_mpi.record.output import Lock
from tests.pages.looks import WIDTHS, overflow
from tests.shipped import attacks_on, unpack

pytestmark = pytest.mark.pages

KINDS = ("run", "grid", "running", "audited")


def written(folder, *runs):
    path = folder / "report.html"
    assert main(["report", *map(str, runs), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The file of a page for each of ``KINDS``."""
    runs = unpack(tmp_path_factory.mktemp("runs"))
    places = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    attacks_on(runs / "fl_moco")
    found = {
        "run": written(places["run"], runs / "ranks3"),
        "grid": written(places["grid"], runs / "grid", runs / "killed"),
        "audited": written(places["audited"], runs / "fl_moco"),
    }
    lock = Lock(runs / "killed")  # its file was left open: with the lock it is a run at work
    found["running"] = written(places["running"], runs / "killed")
    lock.release()
    return found


def unfold(page):
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_shows_and_fits(opened):
    page, complaints = opened
    assert overflow(page) == [0, []]
    unfold(page)
    assert overflow(page) == [0, []]
    pictures = page.evaluate(
        "Promise.all([...document.images].map(each => each.decode().then(() => each.naturalWidth)))"
    )
    assert pictures
    assert min(pictures) > 100
    assert page.evaluate("[...document.images].every(each => each.alt.length > 20)")
    assert complaints == []


@pytest.mark.parametrize("width", ["desk", "phone"])
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_shut_out(opened):
    """Axe: contrast, names, roles, order of headings, tables; with everything unfolded."""
    from axe_playwright_python.sync_playwright import Axe

    page, _ = opened
    unfold(page)
    # What is in data URIs is drawn by ourselves: loading pictures once more takes axe minutes.
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response
    assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    assert found["passes"], "the checks were made"


FOCUSED = "document.activeElement"


@pytest.mark.parametrize("width", ["desk", "phone"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_keyboard_is_enough(opened):
    page, _ = opened
    page.keyboard.press("Tab")
    assert page.evaluate(f"{FOCUSED}.className") == "skip"
    assert page.evaluate(f"{FOCUSED}.getBoundingClientRect().left") >= 0, "seen when it has the focus"
    links = page.evaluate("document.querySelectorAll('nav a').length")
    for number in range(links):
        page.keyboard.press("Tab")
        assert page.evaluate(f"[...document.querySelectorAll('nav a')].indexOf({FOCUSED})") == number
        style = page.evaluate(
            f"getComputedStyle({FOCUSED}).outlineStyle + ' ' + getComputedStyle({FOCUSED}).outlineWidth"
        )
        assert style == "solid 3px"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#reproduce"
    page.evaluate("document.querySelector('main').focus()")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(f"{FOCUSED}.tagName") == "SUMMARY":
            break
    fold = f"{FOCUSED}.parentElement.open"
    assert page.evaluate(fold) is False
    page.keyboard.press("Enter")
    assert page.evaluate(fold) is True


@pytest.mark.parametrize(("kind", "width"), [("grid", "phone")])
def test_links_unfold_what_they_lead_to(opened):
    page, _ = opened
    page.goto(f"{page.url}#run-7")
    assert page.evaluate("document.querySelector('#run-7').closest('details').open")
    assert page.evaluate("Math.abs(document.querySelector('#run-7').getBoundingClientRect().top)") < 400


@pytest.mark.parametrize(("kind", "width"), [("run", "phone")])
def test_wide_tables_scroll_by_keyboard(opened):
    page, _ = opened
    unfold(page)
    wide = "[...document.querySelectorAll('.scroll')].find(each => each.scrollWidth > each.clientWidth + 40)"
    page.evaluate(f"{wide}.focus()")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"{FOCUSED}.scrollLeft > 0", timeout=5000)


@pytest.mark.parametrize(("kind", "width"), [("run", "desk")])
def test_it_prints(opened):
    page, _ = opened
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.pdf().startswith(b"%PDF")
