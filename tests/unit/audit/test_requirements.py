"""The grammar of requirements."""

from __future__ import annotations

import pytest

from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.view import SEES
from mocosfl_mpi.audit.requirements import check_measured, read
from mocosfl_mpi.errors import BadInput


def test_a_requirement_is_read_and_held_against_a_number():
    one = read(" linkage.top1@wire <= 0.1 ", SEES)
    assert (one.kind, one.metric, one.adversary, one.sign, one.bound) == ("linkage", "top1", "wire", "<=", 0.1)
    assert one.met(0.1)
    assert not one.met(0.11)
    assert read("membership.tpr_at_1e-2<.5", SEES).met(0.4)
    assert not read("utility.knn_top1>=40", SEES).met(39.9)
    assert not read("reconstruction.mse>0.03", SEES).met(0.03)


WRONG = [
    ("reconstruction.ssim=0.3", "expected KIND.METRIC"),
    ("ssim<=0.3", "expected KIND.METRIC"),
    ("reconstruction.ssim<=low", "'low' is no number"),
    ("reconstruction.ssim<=nan", "'nan' is no number"),
    ("reconstrution.ssim<=0.3", "did you mean 'reconstruction'"),
    ("reconstruction.sism<=0.3", "did you mean 'ssim'"),
    ("reconstruction.ssim@wires<=0.3", "did you mean 'wire'"),
    ("utility.ssim<=0.3", "choose from knn_top1"),
    ("utility.knn_top1@wire>=0.3", "belongs to no adversary"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text for text, _ in WRONG])
def test_refusals(text, message):
    with pytest.raises(BadInput, match=message):
        read(text, SEES)


def test_what_no_attack_measures_is_refused():
    linkage = [ATTACKS["linkage"]]
    check_measured([read("utility.knn_top1>=40", SEES), read("linkage.top1@server<=0.1", SEES)], linkage)
    with pytest.raises(BadInput, match="no attack asked for tells membership"):
        check_measured([read("membership.auc<=0.6", SEES)], linkage)
    with pytest.raises(BadInput, match="wire can mount none of these attacks, and nothing would be measured"):
        check_measured([read("linkage.top1@wire<=0.1", SEES)], linkage)


@pytest.mark.parametrize(
    "text", ["membership.ssim<=0.1", "linkage.auc<=0.1", "reconstruction.top1<0.01", "labels.positives<1"]
)
def test_metrics_of_other_kinds_are_refused(text):
    with pytest.raises(BadInput, match=r"there is no metric of \w+ "):
        read(text, SEES)
