"""The papers' table of costs for a person, beside the truth, and why they differ."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from mocosfl_mpi.cost.published import GIBI, MEBIBYTE
from mocosfl_mpi.plan.account import Account, Figures, Steps
from mocosfl_mpi.plan.accounting import PRINTED, Accounting
from mocosfl_mpi.record.figures import figures, section

NOTES = (
    "Published: MocoSFL's calculator. MB is 2^20 byte, M 2^20, G 2^30. An operation is a multiply-accumulate (MAC) of "
    "a convolution or matrix product, 5 per element of a group norm (2 of a batch norm), 1 per element of the final "
    "pool. Models count one way, two of the three tensors at the cut, the backward pass as one forward pass.\n"
    "True: what the run's ledger records, mean over clients; for FL-SSL, models up and down, and both views through "
    "both encoders. MiB is 2^20 byte, MFLOP 10^6, TFLOP 10^12; a MAC is two FLOPs, and elements are not counted. "
    "Where compute.precision is auto, numbers have 4 bytes here; a run in bf16 sends half of that at the cut."
)
PAPERS_NOTE = (
    "Printed: MocoSFL, Table 1, Fig. 3b (cut off after one digit) and Fig. 7. Two figures do not follow from the "
    "calculator: Fig. 7 prints 2187 where it gives 2186.3, and Sec. 3.1 says 590.6 MFLOPs an image for FL where it "
    "gives 569.0 million. Memory is not accounted for: theirs is what a GPU allocated, and `mocosfl inspect RUN` has "
    "what a client needs."
)


def render(accounting: Accounting) -> RenderableType:
    """Everything that ``mocosfl plan --published-accounting`` prints for a person."""
    own = accounting.own
    setting = (
        f"one client, {own.epochs:g} epochs of {own.images:,} images, {own.syncs:,} synchronisations; "
        f"FL-SSL: 500 epochs, 100 synchronisations, 5 clients"
    )
    return Group(
        section(f"Communication: {setting}", _communication(accounting)), "",
        section("Computation of one client", _computation(accounting)), "",
        section("Every cut layer with this configuration's other settings", _cuts(accounting)), "",
        *_differences(own), Text(NOTES), *([Text(PAPERS_NOTE)] if accounting.printed else []), "",
    )  # fmt: skip


def _communication(accounting: Accounting) -> RenderableType:
    table = figures("weights MB", "latents MB", "total MB", "ratio", *_printed(accounting, "printed"), "true MiB")
    most = accounting.schemes[0].published.total
    for scheme in (*accounting.schemes, accounting.scheme):
        sent, printed = scheme.published, PRINTED.get(scheme.name, {})
        table.add_row(
            scheme.name, *(f"{value:,.1f}" for value in (sent.weights, sent.latents, sent.total)),
            f"{sent.total / most:.3f}", *_printed(accounting, printed.get("total", "")), f"{scheme.true.total:,.1f}",
        )  # fmt: skip
    return table


def _computation(accounting: Accounting) -> RenderableType:
    columns = [*_printed(accounting, "printed"), "G in all", *_printed(accounting, "printed"), "of FL"]
    table = figures("M an image", *columns, "true MFLOP", "TFLOP in all", "of all")
    for scheme in (*accounting.schemes, accounting.scheme):
        count, true, printed = scheme.published, scheme.true, PRINTED.get(scheme.name, {})
        whole = count.whole / GIBI
        table.add_row(
            scheme.name, f"{count.image / MEBIBYTE:,.2f}", *_printed(accounting, printed.get("image", "")),
            f"{whole:,.{1 if whole < 1e6 else 0}f}", *_printed(accounting, printed.get("whole", "")), _percent(count),
            f"{true.image / 1e6:,.1f}", f"{true.whole / 1e12:,.3f}", _percent(true),
        )  # fmt: skip
    return table


def _cuts(accounting: Accounting) -> RenderableType:
    table = figures("at the cut", "numbers", "client weights", "client MMAC", "server MMAC", "published MB", "true MiB")
    for row in accounting.cuts:
        table.add_row(
            f"cut {row.cut}, layer {2 * row.cut - 1}", "x".join(map(str, row.activation)), f"{row.floats:,}",
            f"{row.parameters:,}", f"{row.client_macs / 1e6:.3f}", f"{row.server_macs / 1e6:.3f}",
            f"{row.published.total:,.1f}", f"{row.true:,.1f}",
        )  # fmt: skip
    return table


def _differences(own: Account) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for title, steps, unit in (
        ("latents", own.latents(), _mebibytes),
        ("weights", own.weights(), _mebibytes),
        ("computation of an image, in millions", own.computation(), lambda count: f"{count / 1e6:,.3f}"),
    ):
        shown += [section(f"From published to true: {title}", _steps(steps, unit)), ""]
    return shown


def _steps(steps: Steps, unit: Callable[[float], str]) -> RenderableType:
    table = figures("")
    table.show_header = False
    for why, amount in steps:
        table.add_row(why, unit(amount))
    return table


def _mebibytes(amount: float) -> str:
    return f"{amount:,.3f} MiB"


def _printed(accounting: Accounting, text: str) -> list[str]:
    """A column for the digits that the papers print, where the setting is theirs."""
    return [text] if accounting.printed else []


def _percent(figures: Figures) -> str:
    return f"{100 * figures.share:.2f} %"
