"""The kernels agree with torch in every shape that networks here have, and do not depend on threads or company."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl_mpi.native import kernels as native
from mocosfl_mpi.native.kernels import Shape, images, lanes_last
from tests.kernels import kernels_or_skip

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LANES, PER_LANE = 3, 2


@pytest.fixture(scope="module")
def kernels():
    return kernels_or_skip()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def close(got, wanted, dtype):
    """Relative distance of tensors: rounding of the sums in fp32, of inputs and outputs in bf16."""
    error = (got.double() - wanted.double()).norm() / wanted.double().norm()
    assert error < (2e-6 if dtype is torch.float32 else 8e-3), float(error)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("channels", [4, 8, 12, 16, 48, 64, 128])
@pytest.mark.parametrize(("relu", "residual"), [(True, False), (True, True), (False, False)])
def test_group_norm(kernels, name, channels, relu, residual):
    dtype, groups = DTYPES[name], channels // 4
    n = LANES * PER_LANE
    x = lanes_last((noise(n, channels, 5, 6) * 3 + 7).to(dtype))
    r = lanes_last(noise(n, channels, 5, 6, seed=1).to(dtype)) if residual else None
    dy = lanes_last(noise(n, channels, 5, 6, seed=2).to(dtype))
    weight, bias = noise(LANES, channels, seed=3), noise(LANES, channels, seed=4)
    y, stats = kernels.group_norm(x, weight, bias, groups, r, relu=relu)
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    extra = r.double().requires_grad_() if residual else None
    wanted = torch.cat(
        [
            F.group_norm(part, groups, exact[1][lane], exact[2][lane])
            for lane, part in enumerate(exact[0].split(PER_LANE))
        ]
    )
    wanted = wanted + extra if residual else wanted
    # The mask must be that of the rounded output, or a value at the edge would spoil the comparison.
    mask = (y > 0) if relu else torch.ones_like(y, dtype=torch.bool)
    close(y, wanted * mask, dtype)
    gradients = torch.autograd.grad(wanted, [*exact, *([extra] if residual else [])], dy.double() * mask)
    got = kernels.group_norm_backward(dy, x, y if residual else None, stats, weight, bias, relu=relu)
    close(got[0], gradients[0], dtype)
    close(got[2], gradients[1], torch.float32)
    close(got[3], gradients[2], torch.float32)
    if residual:
        close(got[1], gradients[3], dtype)


def test_group_norm_of_a_constant_is_its_bias(kernels):
    x = images(2, 8, 3, 3, torch.float32).fill_(1e6)
    bias = noise(1, 8)
    y, _ = kernels.group_norm(x, torch.ones(1, 8), bias, 2, None, relu=False)
    assert torch.equal(y, bias[:, :, None, None].expand_as(y))


SHAPES = [
    (4, 16, 3, 1, 8),
    (4, 64, 3, 1, 32),
    (64, 64, 3, 1, 8),
    (16, 32, 3, 2, 9),
    (8, 12, 1, 2, 7),
    (20, 36, 3, 1, 5),
    (4, 8, 7, 2, 15),
    (8, 6, 3, 1, 24),
    (2, 2, 5, 1, 6),
]


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs", "kernel", "stride", "side"), SHAPES)
def test_convolution_and_its_gradients(kernels, name, inputs, outputs, kernel, stride, side):
    dtype = DTYPES[name]
    if dtype not in kernels.convolves:
        pytest.skip(f"this processor has no instruction for {name} convolutions")
    padding = kernel // 2
    after = (side + 2 * padding - kernel) // stride + 1
    shape = Shape(side, side, inputs, outputs, kernel, stride, padding, after, after)
    x = lanes_last(noise(LANES * PER_LANE, inputs, side, side).to(dtype))
    weight = noise(LANES * outputs, inputs, kernel, kernel, seed=1)
    dy = lanes_last(noise(LANES * PER_LANE, outputs, after, after, seed=2).to(dtype))
    filters, _ = kernels.filters(weight.view(LANES, outputs, *weight.shape[1:]), dtype, 2, standardise=False)
    exact = [x.double().requires_grad_(), weight.to(dtype).double().requires_grad_()]
    wanted = torch.cat(
        [
            F.conv2d(part, own, stride=stride, padding=padding)
            for part, own in zip(exact[0].split(PER_LANE), exact[1].split(outputs), strict=True)
        ]
    )
    dx, dweight = torch.autograd.grad(wanted, exact, dy.double())
    close(kernels.convolve(x, filters, None, shape, LANES), wanted.detach(), dtype)
    close(kernels.convolve_backward(dy, filters, shape, LANES), dx, dtype)
    gradient = kernels.filter_gradient(x, dy, shape, LANES)
    close(gradient.permute(0, 1, 3, 2).reshape_as(weight), dweight, torch.float32)
    bias = noise(LANES, outputs, seed=3)
    shifted = wanted.detach() + bias.double().repeat_interleave(PER_LANE, 0)[:, :, None, None]
    close(kernels.convolve(x, filters, bias, shape, LANES, relu=True), shifted.relu(), dtype)


@pytest.mark.parametrize("standardise", [True, False])
def test_filters_and_their_gradient(kernels, standardise):
    flat, out = noise(2, LANES, 7 + 6 * 3 * 9)  # columns of a wider matrix: lanes lie apart
    spared = out[:, :7].clone()
    weight, target = (part[:, 7:].view(LANES, 6, 3, 3, 3) for part in (flat, out))
    exact = weight.double().requires_grad_()
    rows = exact.flatten(0, 1).flatten(1)
    hats = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-5) if standardise else rows
    filters, stats = kernels.filters(weight, torch.float32, 4, standardise=standardise)
    assert filters.shape == (LANES * 6, 9, 4)
    assert (filters[:, :, 3] == 0).all()
    close(filters[:, :, :3].permute(0, 2, 1).flatten(1), hats.detach(), torch.float32)
    gradient = noise(LANES, 6, 9, 4, seed=1)
    wanted = torch.autograd.grad(hats, exact, gradient[..., :3].permute(0, 1, 3, 2).reshape(LANES * 6, -1).double())[0]
    kernels.filters_backward(gradient, weight, stats, target, standardise=standardise)
    close(target, wanted, torch.float32)
    assert torch.equal(out[:, :7], spared)


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 5e-4), (0.0, 0.0), (0.5, 0.3)])
def test_sgd_of_lanes_that_lie_apart(kernels, momentum, decay):
    flat = noise(2, LANES, 1005)
    before, (weights, velocity) = flat.clone(), (part[:, 5:] for part in flat)
    gradient, rates = noise(LANES, 1000, seed=1), torch.tensor([0.1, 0.5, 0.0])
    kernels.sgd(weights, velocity, gradient, rates, torch.tensor([True, False, True]), momentum=momentum, decay=decay)
    exact = [nn.Parameter(lane.double()) for lane in before[0, :, 5:]]
    for lane, (parameter, rate) in enumerate(zip(exact, rates.double().tolist(), strict=True)):
        optimiser = torch.optim.SGD([parameter], lr=rate, momentum=momentum, weight_decay=decay)
        if momentum:
            optimiser.state[parameter]["momentum_buffer"] = before[1, lane, 5:].double()
        parameter.grad = gradient[lane].double()
        optimiser.step()
        if lane != 1:
            close(weights[lane], parameter.detach(), torch.float32)
    assert torch.equal(flat[:, 1], before[:, 1]), "no answer, no change"
    assert torch.equal(flat[:, :, :5], before[:, :, :5]), "columns of others"
    assert torch.equal(weights[2], before[0, 2, 5:]), "rate 0"
    close(velocity[0], momentum * before[1, 0, 5:] + gradient[0] + decay * before[0, 0, 5:], torch.float32)


def test_nan_stays_nan(kernels):
    x = images(1, 16, 2, 2, torch.bfloat16).fill_(1.0)
    x[0, 3, 1, 1] = float("nan")
    y, _ = kernels.group_norm(x, torch.ones(1, 16), torch.zeros(1, 16), 4, None, relu=False)
    assert y[0, :4].isnan().all()
    assert not y[0, 4:].isnan().any()


@pytest.mark.parametrize("name", DTYPES)
def test_bits_depend_on_neither_threads_nor_company(kernels, name):
    dtype = DTYPES[name]
    if dtype not in kernels.convolves:
        pytest.skip(f"this processor has no instruction for {name} convolutions")
    shape = Shape(8, 8, 16, 32, 3, 1, 1, 8, 8)
    x = lanes_last(noise(LANES * PER_LANE, 16, 8, 8).to(dtype))
    filters, _ = kernels.filters(noise(LANES, 32, 16, 3, 3, seed=1), dtype, 2, standardise=True)
    affine, shift = noise(LANES, 32, seed=2), noise(LANES, 32, seed=3)

    def compute(x, filters, affine, shift):
        lanes = len(affine)
        z = kernels.convolve(x, filters, None, shape, lanes)
        y, stats = kernels.group_norm(z, affine, shift, 8, None, relu=True)
        dz, _, dweight, dbias = kernels.group_norm_backward(y, z, None, stats, affine, shift, relu=True)
        weights, velocity = affine.clone(), shift.clone()
        rates, answered = torch.full((lanes,), 0.1), torch.ones(lanes, dtype=torch.bool)
        kernels.sgd(weights, velocity, dweight, rates, answered, momentum=0.9, decay=0.1)
        return (
            y,
            weights,
            velocity,
            dweight,
            dbias,
            kernels.convolve_backward(dz, filters, shape, lanes),
            kernels.filter_gradient(x, dz, shape, lanes),
        )

    together = compute(x, filters, affine, shift)
    torch.set_num_threads(3)
    for one, other in zip(together, compute(x, filters, affine, shift), strict=True):
        assert torch.equal(one, other)
    torch.set_num_threads(1)
    for lane in range(LANES):
        alone = compute(
            x[lane * PER_LANE :][:PER_LANE], filters[lane * 32 :][:32], affine[lane : lane + 1], shift[lane : lane + 1]
        )
        for one, other in zip(together, alone, strict=True):
            assert torch.equal(one.reshape(LANES, -1)[lane], other.reshape(-1))


@pytest.mark.parametrize("name", ["group_norm", "sgd"])
def test_wrong_kernels_are_refused(kernels, monkeypatch, name):
    class Wrong(type(kernels)):
        def group_norm(self, *args, **kwargs):
            y, stats = super().group_norm(*args, **kwargs)
            return y * (1.01 if name == "group_norm" else 1.0), stats

        def sgd(self, weights, *args, **kwargs):
            super().sgd(weights, *args, **kwargs)
            weights.mul_(1.01 if name == "sgd" else 1.0)

    monkeypatch.setattr(native, "Kernels", Wrong)
    native.load.cache_clear()
    try:
        with pytest.raises(native.NoKernelsError, match="do not agree with torch"):
            native.load()
    finally:
        native.load.cache_clear()
