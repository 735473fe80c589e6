"""The resistance term against the same game played with torch's own modules and optimiser, client by client."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mocosfl_mpi.clients.terms import widths
from mocosfl_mpi.config import Defence, parse
from mocosfl_mpi.cost.flops import SegmentCost
from mocosfl_mpi.data.normalise import normalise
from mocosfl_mpi.privacy.decoders import decoder
from mocosfl_mpi.privacy.resistance import STATE, Images, Resistance, added, device_memory
from mocosfl_mpi.privacy.ssim import ssim
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams

LANES, ROWS = 2, 3
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])


def network(name, norm):
    torch.manual_seed(0)
    return decoder(name, (4, 4, 4), (3, 8, 8), norm).double()


def draw(number):
    generator = torch.Generator().manual_seed(number)
    pixels = torch.rand(LANES, ROWS, 3, 8, 8, generator=generator, dtype=torch.float64)
    smashed = torch.randn(LANES, ROWS, 4, 4, 4, generator=generator, dtype=torch.float64)
    return pixels, (pixels - MEAN[:, None, None]) / STD[:, None, None], smashed


def play(settings, name, norm, looped):
    """The term and a block after four batches, with the gradients on the way and the scores."""
    term = Resistance(settings, network(name, norm), Images(MEAN, STD), looped=looped)
    block = SimpleNamespace(state={STATE: term.initial[STATE].repeat(LANES, 1)})
    gradients, scores = [], []
    for number in range(4):
        before = block.state[STATE][:, -2].clone()
        gradients.append(term.gradient(block, *draw(number)[1:]))
        scores += (block.state[STATE][:, -2] - before).tolist()
    return term, block, gradients, scores


@pytest.mark.parametrize(
    ("name", "norm", "looped", "steps", "every", "hinged"),
    [
        ("res_normN1C8", "batch", False, 3, 2, True),
        ("res_normN1C8", "group", False, 1, 1, False),
        ("res_normN0C4", "group", True, 1, 1, True),
        ("conv_normN0C4", "batch", True, 1, 1, False),
        ("conv_normN0C4", "group", False, 2, 3, True),
    ],
)
def test_the_game_is_that_of_torch(name, norm, looped, steps, every, hinged):
    target = 0.0
    settings = Defence(
        resistance=2.5, resistance_ssim=target, resistance_steps=steps, resistance_every=every, resistance_lr=0.01
    )
    if hinged:
        target = float(np.median(play(settings, name, norm, looped)[3]))
        settings = settings.model_copy(update={"resistance_ssim": target})
    term, block, gradients, _ = play(settings, name, norm, looped)
    opponents = [network(name, norm) for _ in range(LANES)]
    optimisers = [torch.optim.Adam(opponent.parameters(), lr=0.01) for opponent in opponents]
    totals, opened = np.zeros(LANES), 0
    for number in range(4):
        pixels, _, smashed = draw(number)
        for lane, (opponent, optimiser) in enumerate(zip(opponents, optimisers, strict=True)):
            opponent.train()
            for _ in range(steps if number % every == 0 else 0):
                optimiser.zero_grad()
                (-ssim(opponent(smashed[lane]), pixels[lane]).mean()).backward()
                optimiser.step()
            opponent.eval()
            z = smashed[lane].clone().requires_grad_()
            score = ssim(opponent(z), pixels[lane]).mean()
            (2.5 * torch.relu(score - target)).backward()
            torch.testing.assert_close(gradients[number][lane], z.grad, rtol=1e-8, atol=1e-14)
            totals[lane] += score.item()
            opened += bool(z.grad.any())
    assert 0 < opened < 4 * LANES if hinged else opened == 4 * LANES
    np.testing.assert_allclose(term.readings(block)["resistance/ssim"], totals / 4, rtol=1e-10)
    kept = [torch.cat([v.flatten() for v in (*o.parameters(), *o.buffers())]) for o in opponents]
    for row, expected in zip(block.state[STATE], kept, strict=True):
        own = sum(p.numel() for p in opponents[0].parameters())
        torch.testing.assert_close(row[:own], expected[:own], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(row[3 * own : -4], expected[own:], rtol=1e-8, atol=1e-10)
    term.begin_epoch(block)
    assert term.readings(block)["resistance/ssim"].isnan().all()
    assert block.state[STATE][:, -4:].tolist() == [[4, steps * -(-4 // every), 0, 0]] * LANES


def test_each_client_keeps_its_own_beat():
    """Of two clients of a block the decoder of one is due."""
    settings = Defence(resistance=1.0, resistance_every=5)
    term = Resistance(settings, network("conv_normN0C4", "group"), Images(MEAN, STD))
    block = SimpleNamespace(state={STATE: term.initial[STATE].repeat(LANES, 1)})
    block.state[STATE][0, -4] = 1
    before = copy.deepcopy(block.state[STATE])
    _, images, smashed = draw(0)
    term.gradient(block, images, smashed)
    assert torch.equal(block.state[STATE][0, :-4], before[0, :-4])
    assert not torch.equal(block.state[STATE][1, :-4], before[1, :-4])
    assert block.state[STATE][:, -4:-2].tolist() == [[2, 0], [1, 1]]


def test_images_of_two_sources_come_back_with_their_own_statistics():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2, 1)[:, None, None, :]  # [rows, C, H, W]
    mean, std = torch.tensor([[0.4], [0.7]]), torch.tensor([[0.2], [0.1]])
    normalised = torch.stack(
        [normalise(p, m.tolist(), s.tolist(), torch.float64) for p, m, s in zip(pixels, mean, std, strict=True)]
    )
    restored = Images(mean, std).restore(normalised[None])
    assert torch.equal((restored[0] * 255).round().to(torch.uint8), pixels)
    assert (restored * 255 - pixels).abs().max() < 1e-4


def configuration(**defence):
    settings = {"resistance": 1.0, "resistance_decoder": "conv_normN0C4", **defence}
    model = {"width": 8, "bottleneck": "C4S2", "key_dim": 8}
    values = {"model": model, "views": {"size": 16}, "client": {"batch_size": 2}, "defence": settings}
    return parse(values, "test")


def test_work_and_memory_are_those_worked_out_by_hand():
    """Maps of 8x8 and images of 16x16 pixels: a convolution, a transposed one, and two at full size."""
    config = configuration(resistance_steps=3)
    split = cut.build(config.model, 1, 16, Streams(1), torch.float32)
    found = added(config, split, SegmentCost(0, 0, 0, 0))
    first, grow, body, last = 8 * 8 * 4 * 4 * 9, 8 * 8 * 4 * 4 * 9, 16 * 16 * 4 * 4 * 9, 16 * 16 * 4 * 1 * 9
    decoding = 2 * (first + grow + body + last)
    filtering = 2 * 5 * 2 * 16 * 16 * 16  # five maps, by rows and by columns
    assert found.defence == 2 * (decoding + filtering)  # there, and back to the smashed data
    inside = decoding - 2 * first
    assert found.attacker == 3 * (decoding + filtering + decoding + inside + filtering)
    parameters = 4 * 4 * 9 * 3 + 4 * 3 + 4 * 1 * 9 + 1 + 2 * (4 * 3 + 1)
    assert found.attacker_step == 3 * 12 * parameters
    assert device_memory(config, split) > 4 * (4 * parameters + 2 * 2 * 4 * 8 * 8)


def test_states_are_wide_enough():
    split = cut.build(configuration().model, 1, 16, Streams(1), torch.float32)
    assert split.smashed_shape == (4, 8, 8)
    term = Resistance(configuration().defence, network("conv_normN0C4", "group"), Images(MEAN, STD))
    own = sum(p.numel() for p in network("conv_normN0C4", "group").parameters())
    assert widths([term]) == {STATE: 3 * own + 4}
