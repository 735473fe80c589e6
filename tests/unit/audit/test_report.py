"""The page: every attack and number on it, sentences that say what numbers say, HTML that needs nothing."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import pytest
import torch

from mocosfl_mpi.attacks.findings import gather, strongest
from mocosfl_mpi.attacks.pictures import png
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.view import SEES
from mocosfl_mpi.audit.document import html, markdown
from mocosfl_mpi.audit.material import Material, defences
from mocosfl_mpi.audit.report import audit, parts, write
from mocosfl_mpi.audit.requirements import read
from mocosfl_mpi.audit.sentences import sentence
from mocosfl_mpi.config import parse
from tests.unit.record.test_attacks import outcome

CHANCE = {"chance": {"auc": 0.5, "top1": 0.01}}


def several(number: int = 3, **changes: object) -> list:
    """One attack with several seeds, whose MSE is 0.1, 0.2, … and whose floor is 0.5."""
    found = []
    for seed in range(number):
        scores = {"mse": 0.1 * (seed + 1), "ssim": 0.6 + 0.1 * seed}
        found.append(outcome(seed, **{"scores": scores, "seed": seed, **changes}))
    return found


OUTCOMES = [
    *several(),
    *several(trained=False, scores={"mse": 0.5, "ssim": 0.125}),
    *several(attack="linkage", kind="linkage", picture="", scores={"top1": 0.8}, floors=CHANCE),
    *several(attack="encodermi_t", kind="membership", adversary="encoder_holder", picture="",
             scores={"auc": 0.52, "auc_error": 0.03}, floors=CHANCE),
    *several(attack="gradient_norm", kind="labels", adversary="wire", picture="", scores={}, floors={},
             reason="no labels <here> & now"),
]  # fmt: skip
MATERIAL = Material(
    "run-1", parse({"method": "mocosfl", "model": {"bottleneck": "C4S2"}, "client": {"frozen": True}}, "test"), 8, 8,
    {"knn_top1": 41.5}, {"knn_top1_untrained": 30.0, "knn_top1_pixels": 35.0}, 12.5, [("bottleneck C4S2", "fewer")],
)  # fmt: skip


def judged(*requirements: str, pictures) -> object:
    return audit(MATERIAL, OUTCOMES, [read(text, SEES) for text in requirements], ATTACKS, pictures)


class Strict(HTMLParser):
    """Every tag that is opened is closed in order; what it refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br", "hr", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_needs_nothing_and_tells_every_attack(tmp_path):
    (tmp_path / "attacks").mkdir()
    image = torch.rand(3, 1, 16, 16)
    (tmp_path / "attacks" / "ridge.png").write_bytes(png(image, image, "ridge"))
    found = judged("reconstruction.ssim<=0.3", "utility.knn_top1>=40", pictures=tmp_path / "attacks")
    paths = write(tmp_path, found)
    assert [path.name for path in paths] == ["audit.html", "audit.md"]
    page = Strict()
    page.feed(paths[0].read_text())
    page.close()
    assert not page.open
    assert not page.tags & {"script", "link", "iframe", "object", "form"}
    assert page.references
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    sheet = paths[1].read_text()
    for text in (page.text, sheet):
        for one in OUTCOMES:
            assert one.attack in text
        for words in ("no labels <here> & now", "NOT met", "0.2000 ± 0.1000", "12.50 MiB", "41.5", "not measured"):
            assert words in text
    assert "(attacks/ridge.png)" in sheet


def test_verdicts_are_of_the_strongest_attack_of_the_trained_networks(tmp_path):
    texts = (
        "reconstruction.ssim<=0.3", "reconstruction.mse>=0.25", "linkage.top1@wire<=0.1", "linkage.top1@server<=0.1",
        "labels.auc<=0.5", "utility.knn_top1>=40", "utility.linear_top1>=40", "membership.auc<=0.55",
    )  # fmt: skip
    found = {verdict.requirement.text: verdict for verdict in judged(*texts, pictures=tmp_path).verdicts}
    assert [found[text].met for text in texts] == [False, False, False, False, True, True, False, True]
    assert found["reconstruction.ssim<=0.3"].value == pytest.approx(0.7)
    assert found["linkage.top1@wire<=0.1"].value is None  # nobody on the wire attacked: not met
    assert found["labels.auc<=0.5"].value is None  # there are none to be had
    assert found["utility.linear_top1>=40"].value is None  # not measured: not met


def test_findings_compare_with_those_who_see_nothing():
    by_name = {(one.first.attack, one.first.trained): one for one in gather(OUTCOMES)}
    ridge, control = by_name["ridge", True], by_name["ridge", False]
    assert (ridge.mean("mse"), ridge.spread("mse")) == pytest.approx((0.2, 0.1))
    assert (ridge.standing, control.standing) == ("above the floor", "at the floor")
    assert by_name["encodermi_t", True].standing == "at the floor"  # within the area's own error
    assert by_name["gradient_norm", True].standing == "not mounted"
    assert strongest([control, ridge]) is ridge
    assert strongest([by_name["gradient_norm", True]]) is None
    (overfit,) = gather(several(scores={"mse": 0.9, "ssim": 0.5}))
    assert "MSE is no better" in overfit.remark
    (single,) = gather(several(1))
    assert "one seed" in single.remark


def test_sentences_say_what_the_numbers_say():
    findings = [one for one in gather(OUTCOMES) if one.first.trained]
    by_kind = {one.first.kind: one for one in findings}
    told = sentence("server", [by_kind["reconstruction"], by_kind["linkage"], by_kind["membership"]])
    assert "rebuild a client's images nearly as they are (SSIM 0.700, where one who sees nothing has 0.125)" in told
    assert "first 0.800" in told
    assert "nothing beyond a guess about whether an image was trained on" in told
    assert "learnt nothing beyond a guess" in sentence("encoder_holder", [by_kind["membership"]])
    assert "nothing that any of the attacks tried could use" in sentence("wire", [by_kind["labels"]])


def test_markup_in_texts_stays_text(tmp_path):
    odd = audit(dataclasses.replace(MATERIAL, name="<script>x</script>|"), OUTCOMES, [], ATTACKS, tmp_path)
    assert "<script>" not in html(list(parts(odd)))
    assert "Requirements" not in markdown(list(parts(odd)))


def test_defences_are_named():
    config = parse(
        {"model": {"bottleneck": "C4S2"}, "client": {"frozen": True}, "communication": {"smashed": "int8"}}, "x"
    )
    assert [name for name, _ in defences(config, None)] == ["bottleneck C4S2", "frozen client models", "int8 coding"]
    noisy = {"defences": {"noise": "laplace", "noise_scale": 0.5}, "epsilon": None, "sends": 4}
    told = [("defences at the cut", "noise laplace, noise_scale 0.5; additive noise, no guarantee")]
    assert defences(parse({}, "x"), noisy) == told
    assert defences(parse({}, "x"), None) == []
