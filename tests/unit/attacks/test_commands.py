"""Commands that are refused before a rank is started."""

from __future__ import annotations

import pytest

from mocosfl_mpi.cli import main

WRONG = [
    (("attack", "RUN", "--attacks", "rigde"), "there is no attack 'rigde'; did you mean 'ridge'?"),
    (
        ("attack", "RUN", "--attacks", "ridge", "--adversary", "wire"),
        "an eavesdropper on the wire does not see weights",
    ),
    (("attack", "RUN", "--seeds", "0"), "--seeds 0"),
    (("attack", "RUN", "--threads", "0"), "--threads 0"),
    (("attack", "RUN", "-n", "0"), "at least one rank"),
    (("audit", "RUN", "--require", "reconstruction.ssim=0.3"), "expected KIND.METRIC"),
    (("audit", "RUN", "--attacks", "ridge", "--require", "linkage.top1<=0.3"), "no attack asked for tells linkage"),
    (("privacy-depth", "nowhere"), "no run at nowhere"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[message for _, message in WRONG])
def test_one_message_and_exit_2(capsys, words, message):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("mocosfl: ")
    assert said.count("\n") == 1
    assert message in said
