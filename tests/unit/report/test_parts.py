"""Tables of a terminal become tables of a page; remarks of many runs become few; headers of figures are read."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from mocosfl_mpi.figures import comparison
from mocosfl_mpi.record.figures import figures, section
from mocosfl_mpi.report.common import duration
from mocosfl_mpi.report.page import _ticks
from mocosfl_mpi.report.parts import sheets
from mocosfl_mpi.report.pictures import CAPTIONS, STARTS, header
from mocosfl_mpi.report.remarks import Remark, gather
from tests.analysis.scripts import FIGURES


def test_a_table_with_its_title_and_remarks():
    table = figures("amount")
    table.add_row("peak", "3 MiB")
    table.add_row("  weights", Text("1 MiB"))
    (found,) = sheets(section("Memory", table, Text("a remark")))
    assert (found.title, found.header, found.figures) == ("Memory", ["", "amount"], True)
    assert found.rows == [["peak", "3 MiB"], ["of which weights", "1 MiB"]]
    assert found.remarks == ["a remark"]
    (found,) = sheets(section("Failures", Text("Nothing failed.")))
    assert (found.rows, found.remarks) == ([], ["Nothing failed."])
    assert list(sheets(Table())) == []


def test_remarks_that_differ_in_numbers_are_one():
    found = [
        ("a", "spread 0.02 (1 = all)"),
        ("b", "spread 0.3 (1 = all)"),
        ("b", "other"),
        ("c", "spread 0.1 (1 = all)"),
    ]
    remarks = [(name, Remark(text, warning=True)) for name, text in found]
    assert gather(remarks, warning=True, named=True) == [
        (
            "spread 0.02 to 0.3 (1 = all)",
            ["a: spread 0.02 (1 = all)", "b: spread 0.3 (1 = all)", "c: spread 0.1 (1 = all)"],
        ),
        ("b: other", []),
    ]
    assert gather(remarks, warning=False, named=True) == []
    assert gather(remarks[:1], warning=True, named=False) == [("spread 0.02 (1 = all)", [])]


def test_every_figure_has_a_caption():
    for name in {name for names in FIGURES.values() for name in names}:
        assert name in CAPTIONS or name.partition("-")[0] in STARTS, name


def test_headers_of_figures():
    found = header(comparison)
    assert found[""].startswith("Many runs at once")
    assert found["Look for"].startswith("differences whose pairs")
    assert found["Bear in mind"].endswith("larger networks.")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("set `a.b` to <1>", "set <code>a.b</code> to &lt;1&gt;"),
        ("one ` alone <", "one ` alone &lt;"),
        ("`<b>`", "<code>&lt;b&gt;</code>"),
    ],
)
def test_backticks_set_code(text, html):
    assert str(_ticks(text)) == html


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 seconds"), (119, "119 seconds"), (150, "2.5 minutes"), (36000, "10 hours")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
