"""Both stages of TAResSFL and ResSFL: the same bits for any number of ranks, and after any stop."""

from __future__ import annotations

import pytest

from mocosfl_mpi.record.reader import differences, open_run
from tests.mpi.command import mocosfl, says_once
from tests.mpi.many import carry_out

pytestmark = pytest.mark.mpi

GAME = ("defence.resistance=2.0", "defence.resistance_ssim=0.1", "defence.resistance_decoder=conv_normN0C4")
STAGE = (
    *("pretraining.auxiliary=embedded", "pretraining.auxiliary_images=60", "pretraining.epochs=2"),
    *("model.bottleneck=C4S2", "evaluation.linear_probe=false", *GAME),
)
EXPERTS = {
    "last": ("method=taressfl", "pretraining.target_share=0.1", "pretraining.batch=3"),
    "knn, BatchNorm, both views": (
        *("method=taressfl", "pretraining.choose=knn", "pretraining.target_share=0.1", "pretraining.batch=5"),
        *("contrast.symmetric=both_views", "defence.resistance_decoder=res_normN0C4"),
    ),
    "with labels": ("method=ressfl", "pretraining.batch=4"),
}
RUNS = {
    "taressfl": ("last", ("method=taressfl",)),
    "mocosfl from an expert, server from scratch": ("last", ("method=mocosfl", "server.pretrained=false")),
    "ressfl": ("with labels", ("method=ressfl", "defence.resistance_every=2", "client.lr=0.005")),
}


def words(command, out, *settings):
    """The command with smoke's settings, and those given."""
    settings = (*STAGE, *settings)
    return [command, "smoke", "--quiet", "--out", out, *(w for setting in settings for w in ("--set", setting))]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Directories by number of ranks and name; the runs of all begin with the experts of one rank."""
    found = {}

    def at(ranks):
        if ranks not in found:
            folder = tmp_path_factory.mktemp(f"on-{ranks}")
            paths = {name: folder / str(number) for number, name in enumerate((*EXPERTS, *RUNS))}
            begin = {name: (at(1) if ranks > 1 else paths)[name] for name in EXPERTS}
            commands = [words("pretrain", paths[name], *row) for name, row in EXPERTS.items()]
            commands += [
                words("run", paths[name], f"client.pretrained={begin[expert]}", *row)
                for name, (expert, row) in RUNS.items()
            ]
            carry_out(commands, ranks, folder / "rows.json")
            found[ranks] = paths
        return found[ranks]

    return at


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*EXPERTS, *RUNS])
def test_every_rank_count_gives_the_same_bits(done, name, ranks):
    with open_run(done(1)[name]) as one, open_run(done(ranks)[name]) as many:
        assert differences(one, many) is None
    if name in EXPERTS:
        mine, other = (done(n)[name] / "expert.safetensors" for n in (1, ranks))
        assert mine.read_bytes() == other.read_bytes()


def test_a_stop_after_every_step_leads_to_the_same_expert(done, tmp_path):
    name = "knn, BatchNorm, both views"
    command = words("pretrain", tmp_path / "run", *EXPERTS[name])
    for ranks, sessions in ((1, 3), (3, 3)):  # of eight steps
        carry_out([[*command, "--max-hours", "1e-9"]] * sessions, ranks, tmp_path / "rows.json", expect=75)
    carry_out([command], 2, tmp_path / "rows.json")
    with open_run(done(1)[name]) as whole, open_run(tmp_path / "run") as parts:
        assert differences(whole, parts) is None
        assert whole["resistance/ssim"].tobytes() == parts["resistance/ssim"].tobytes()
        assert parts["sessions/step"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    mine, other = (folder / "expert.safetensors" for folder in (done(1)[name], tmp_path / "run"))
    assert mine.read_bytes() == other.read_bytes()


def test_a_run_goes_on_with_its_own_expert_only(done, tmp_path):
    expert = tmp_path / "expert.safetensors"
    expert.write_bytes((done(1)["last"] / "expert.safetensors").read_bytes())
    command = words("run", tmp_path / "run", f"client.pretrained={expert}", "method=taressfl")
    carry_out([[*command, "--max-hours", "1e-9"]], 1, tmp_path / "rows.json", expect=75)
    expert.write_bytes((done(1)["knn, BatchNorm, both views"] / "expert.safetensors").read_bytes())
    refused = mocosfl(*command, "-n", "2")
    assert refused.returncode == 2
    assert f"{expert} is not the expert with which" in says_once(refused.stderr)
    expert.write_bytes((done(1)["last"] / "expert.safetensors").read_bytes())
    carry_out([command], 2, tmp_path / "rows.json")
    with open_run(tmp_path / "run") as parts, open_run(done(1)["taressfl"]) as whole:
        assert parts.state_sha256 == whole.state_sha256
