"""What clients send of their smashed data, by hand, and the way back against numerical derivatives."""

import ast
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.autograd import Function, gradcheck

from mocosfl_mpi.config import Config, Defence, apply_settings, parse
from mocosfl_mpi.privacy.decoders import decoder
from mocosfl_mpi.privacy.resistance import STATE, Images, Resistance
from mocosfl_mpi.privacy.ssim import ssim
from mocosfl_mpi.privacy.streamed import Streamed
from mocosfl_mpi.privacy.transforms import Clipped, Dropped, Guard, Largest, LargestPublished, Noisy, Quantised, guard
from mocosfl_mpi.streams import Streams
from tests.unit.test_architecture import PACKAGE, imports

EVERYTHING = (
    "defence.clip=2",
    "defence.noise=gaussian",
    "defence.noise_scale=0.3",
    "defence.dropout=0.2",
    "defence.keep_share=0.5",
    "defence.levels=7",
)


def configuration(*settings):
    return parse(apply_settings({"client": {"batch_size": 4}}, list(settings)), "test")


def draws(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def maps(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def block(clients):
    """Who sends."""
    return SimpleNamespace(clients=clients)


def rows(*numbers):
    return torch.tensor([list(numbers)], dtype=torch.float64)


def test_clipped_by_hand():
    found, pull = Clipped(5.0)(rows([6.0, 8.0], [3.0, -4.0], [0.0, 0.0]), draws(0))
    assert torch.allclose(found, rows([3.0, 4.0], [3.0, -4.0], [0.0, 0.0]))
    # Along the sample nothing comes back, across it half: the norm was 10 and is 5.
    back = pull(rows([0.6, 0.8], [1.0, 2.0], [1.0, 2.0]))
    assert torch.allclose(back, rows([0.0, 0.0], [1.0, 2.0], [1.0, 2.0]), atol=1e-15)
    assert torch.allclose(pull(rows([0.8, -0.6], [0.0, 0.0], [0.0, 0.0]))[0, 0], rows([0.4, -0.3])[0])


def test_kept_by_hand():
    given = rows([3.0, -4.0, 1.0, 4.0], [1.0, 1.0, -9.0, 0.5])
    ones = torch.ones_like(given)
    found, pull = Largest(0.5)(given, draws(0))
    assert found.tolist() == [[[0.0, -4.0, 0.0, 4.0], [1.0, 0.0, -9.0, 0.0]]], "equal ones by position"
    assert torch.equal(pull(ones), (found != 0).double())
    found, pull = LargestPublished(0.5)(given, draws(0))
    assert found.tolist() == [[[3.0, 0.0, 0.0, 4.0], [1.0, 1.0, 0.0, 0.0]]]
    assert (found == 0).sum() == 4
    assert found.min() == 0.0, "signed: large negative numbers go first, as published"
    assert torch.equal(pull(ones), (found != 0).double())


def test_the_published_choice_is_over_the_whole_batch():
    given = rows([10.0, 11.0, 12.0, 13.0], [1.0, 2.0, 3.0, 4.0])
    assert LargestPublished(0.5)(given, draws(0))[0].tolist() == [[[10.0, 11.0, 12.0, 13.0], [0.0] * 4]]
    assert LargestPublished(0.3)(given, draws(0))[0].count_nonzero() == 3, "5.6 are pruned: whole numbers, rounded down"
    assert Largest(0.5)(given, draws(0))[0].tolist() == [[[0.0, 0.0, 12.0, 13.0], [0.0, 0.0, 3.0, 4.0]]]


def test_quantised_by_hand():
    found, pull = Quantised(5)(rows([-1.0, 3.0, 0.4, 1.5, 0.0], [2.0] * 5), draws(0))
    assert found.tolist() == [[[-1.0, 3.0, 0.0, 1.0, 0.0], [2.0] * 5]], "steps of 1 from -1; 2.5 steps become 2"
    gradient = maps(1, 2, 5)
    assert torch.equal(pull(gradient), gradient), "straight through"
    assert set(Quantised(2)(rows([0.1, 0.9, 0.6]), draws(0))[0].flatten().tolist()) == {0.1, 0.9}


def test_dropped_are_zeros_and_the_others_are_as_they_were():
    given = maps(2, 3, 4000).abs() + 1.0
    found, pull = Dropped(0.25)(given, draws(1, 2))
    gone = found == 0
    assert torch.equal(found[~gone], given[~gone]), "not scaled up"
    share = gone.double().mean(dim=(1, 2))
    assert ((share - 0.25).abs() < 5 * math.sqrt(0.25 * 0.75 / 12000)).all()
    assert not torch.equal(gone[0], gone[1])
    assert torch.equal(pull(torch.ones_like(given)), (~gone).double())


@pytest.mark.parametrize(("kind", "variance"), [("gaussian", 0.09), ("laplace", 0.18)])
def test_noise_has_the_scale_that_was_asked_for(kind, variance):
    given = maps(2, 5, 4000)
    found, pull = Noisy(kind, 0.3)(given, draws(1, 2))
    noise = found - given
    assert abs(noise.mean().item()) < 5 * math.sqrt(variance / noise.numel())
    assert noise.var().item() == pytest.approx(variance, rel=0.05)
    heavy = (noise**4).mean() / noise.var() ** 2  # 3 of a Gaussian, 6 of a Laplace
    assert (heavy > 4.5) == (kind == "laplace")
    assert torch.equal(pull(given), given)


class Through(Function):
    """A chain as an operation of autograd."""

    @staticmethod
    def forward(ctx, maps, chain, seeds):
        sent, ctx.back = chain.send(maps, draws(*seeds))
        return sent

    @staticmethod
    def backward(ctx, gradient):
        return ctx.back(gradient), None, None


SMOOTH = {
    "clipped": [Clipped(1.5)],
    "hardly clipped": [Clipped(3.4)],
    "noisy": [Noisy("gaussian", 0.5)],
    "dropped": [Dropped(0.4)],
    "largest": [Largest(0.4)],
    "largest as published": [LargestPublished(0.6)],
    "all but rounding": [Clipped(2.0), Noisy("laplace", 0.2), Dropped(0.3), Largest(0.5)],
}


@pytest.mark.parametrize("pieces", SMOOTH.values(), ids=SMOOTH)
def test_the_way_back_is_the_derivative(pieces):
    given = maps(2, 3, 2, 2, 3, seed=4).requires_grad_()
    norms = given.detach().flatten(2).norm(dim=2)
    if pieces == SMOOTH["hardly clipped"]:
        assert (norms < 3.4).any()
        assert (norms > 3.4).any()
    assert gradcheck(lambda z: Through.apply(z, Guard(pieces), (1, 2)), given, raise_exception=True)


def test_a_wrong_way_back_is_found():
    class Wrong(Clipped):
        def __call__(self, rows, draws):
            sent, _ = super().__call__(rows, draws)
            return sent, lambda gradient: gradient * (sent / rows)

    given = maps(1, 3, 2, 2, 3).requires_grad_()
    assert not gradcheck(lambda z: Through.apply(z, Guard([Wrong(1.0)]), (1,)), given, raise_exception=False)


def test_nothing_set_is_nothing_done():
    given = maps(2, 3, 4, 5, 5)
    nothing = guard(Config())
    assert not nothing
    sent, pull = nothing.send(given, [])
    assert sent is given
    assert pull(given) is given
    assert nothing.flops(100) == (0, 0)
    assert nothing.kept(100, 4) == 0


def test_the_order_is_the_documented_one():
    kinds = [type(piece) for piece in guard(configuration(*EVERYTHING)).pieces]
    assert kinds == [Clipped, Noisy, Dropped, Largest, Quantised]
    published = guard(configuration("defence.keep_share=0.5", "defence.keep=published"))
    assert published.pieces == (LargestPublished(0.5),)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_attack_sees_what_was_sent_in_training(dtype):
    """`apply` on one client's batch, and the run's shield on a block of clients, bit for bit."""
    config = configuration(*EVERYTHING)
    given = maps(3, 4, 2, 5, 5, dtype=dtype).movedim(2, -1).contiguous().movedim(-1, 2)  # as the fused backend has it
    streams, clients = Streams(config.seed), np.array([3, 7, 11])
    sent, _ = Streamed(config, streams).query(block(clients), None, given, 2, 5)
    assert sent.dtype == dtype
    for lane, client in enumerate(clients):
        found = guard(config).apply(given[lane], streams.generator("defence query", 2, 5, client))
        assert torch.equal(found, sent[lane])
    alone, _ = Streamed(config, streams).query(block(clients[1:2]), None, given[1:2], 2, 5)
    assert torch.equal(alone[0], sent[1]), "a client's data depend on no company"


def test_every_step_client_and_branch_has_its_own_noise():
    config = configuration("defence.noise=gaussian", "defence.noise_scale=1")
    shield, zeros = Streamed(config, Streams(config.seed)), torch.zeros(2, 1, 1, 4, 4)
    two = block([0, 1])
    seen = [shield.query(two, None, zeros, *when)[0] for when in ((0, 0), (0, 1), (1, 0))]
    seen.append(shield.key(two, None, zeros, 0, 0))
    noise = torch.stack(seen).flatten(0, 1).flatten(1)
    assert len({tuple(row.tolist()) for row in noise}) == len(noise) == 8
    again = shield.query(two, None, zeros, 0, 0)[0]
    assert torch.equal(again, seen[0])
    other = Streamed(config, Streams(config.seed + 1)).query(two, None, zeros, 0, 0)[0]
    assert not torch.equal(other, seen[0])


def test_a_clipped_sample_is_never_longer():
    config = configuration("defence.clip=0.7")
    sent = guard(config).apply(100 * maps(50, 3, 4, 4), np.random.default_rng(0))
    assert (sent.flatten(1).norm(dim=1) <= 0.7 * (1 + 1e-12)).all()


def test_what_is_not_finite_is_not_hidden():
    given = torch.full((1, 2, 1, 2, 2), math.nan)
    for piece in (Clipped(1.0), Noisy("gaussian", 1.0), Largest(0.5)):
        assert not Guard([piece]).send(given, draws(0))[0].isfinite().all(), piece


def test_data_move_against_the_slope_first():
    chain = Guard([Clipped(1.0)], adversarial=0.5)
    given, slope = torch.tensor([[[[[2.0]], [[0.0]]]]]), torch.tensor([[[[[-3.0]], [[1e-9]]]]])
    sent, pull = chain.send(given, draws(0), slope)
    moved = torch.tensor([2.5, -0.5])
    assert torch.allclose(sent.flatten(), moved / moved.norm())
    assert torch.allclose(chain.apply(given[0], np.random.default_rng(0), slope[0]), sent[0])
    assert pull(moved.view(sent.shape)).abs().max() < 1e-6, "nothing comes back along the sample that is clipped"
    assert chain.flops(10) == (30 + 20, 60)
    with pytest.raises(ValueError, match="needs the slope"):
        chain.apply(given[0], np.random.default_rng(0))


def test_adversarial_noise_asks_the_clients_own_decoder():
    config = configuration("defence.adversarial=0.25", "defence.resistance=1")
    asked = []

    def slope(*of):
        asked.append(of)
        return -of[2]

    shield, smashed, images = Streamed(config, Streams(1), slope), maps(2, 4, 3, 2, 2), maps(2, 4, 1, 8, 8, seed=1)
    two = block([0, 1])
    sent, _ = shield.query(two, images, smashed, 0, 0)
    assert torch.allclose(sent, smashed + 0.25 * smashed.sign())
    assert shield.key(two, images, smashed, 0, 0).equal(sent)
    assert [of[0] is two and of[1] is images for of in asked] == [True, True]


def test_the_slope_is_that_of_the_decoder_in_evaluation():
    torch.manual_seed(0)
    network = decoder("conv_normN0C4", (3, 4, 4), (1, 8, 8), "group").double()
    term = Resistance(Defence(resistance=1.0), network, Images(torch.tensor([0.4]), torch.tensor([0.2])))
    pixels = torch.rand(2, 3, 1, 8, 8, dtype=torch.float64)
    smashed, states = maps(2, 3, 3, 4, 4), term.initial[STATE].repeat(2, 1)
    owner = SimpleNamespace(state={STATE: states.clone()})
    found = term.slope(owner, (pixels - 0.4) / 0.2, smashed)
    assert torch.equal(owner.state[STATE], states), "asked, not taught"
    for lane in range(2):
        leaf = smashed[lane].clone().requires_grad_()
        ssim(network.eval()(leaf), pixels[lane]).mean().backward()
        assert torch.allclose(found[lane], leaf.grad, rtol=1e-6, atol=1e-12)


def test_flops_are_sums_over_the_pieces():
    there, back = guard(configuration(*EVERYTHING)).flops(10)
    assert (there, back) == (30 + 20 + 10 + 10 + 40, 60 + 0 + 10 + 10 + 0)


def test_attack_code_needs_no_mpi():
    seen, waiting = set(), ["mocosfl_mpi.privacy.transforms"]
    while waiting:
        name = waiting.pop()
        file = PACKAGE.parent / Path(*name.split(".")).with_suffix(".py")
        file = file if file.exists() else file.with_suffix("") / "__init__.py"
        if name in seen or not file.exists():
            continue
        seen.add(name)
        waiting += imports(ast.parse(file.read_text()))
    assert "mocosfl_mpi.config.sections" in seen
    assert not [name for name in seen if name.startswith("mocosfl_mpi.comm")]
