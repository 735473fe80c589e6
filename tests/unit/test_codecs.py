"""What arrives after compression, and how many bytes it was, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.codecs import BFloat16, Full, Int8, TopK, codec, of_samples


def test_int8_by_hand():
    rows = torch.tensor([[127.0, -1.4, 0.5, 1.5, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0], [-2.54, 0.01, 0.03, 1.0, 2.0]])
    found = Int8()(rows)
    assert found[0].tolist() == [127.0, -1.0, 0.0, 2.0, 0.0]
    assert not found[1].any()
    assert torch.allclose(found[2], torch.tensor([-2.54, 0.0, 0.04, 1.0, 2.0]))
    assert Int8().bytes(144, 4) == 148


def test_topk_by_hand():
    rows = torch.tensor([[3.0, -4.0, 1.0, 4.0], [1.0, 1.0, -1.0, 1.0]])
    assert TopK(0.5)(rows).tolist() == [[0.0, -4.0, 0.0, 4.0], [1.0, 1.0, 0.0, 0.0]]
    assert torch.equal(TopK(1.0)(rows), rows)
    assert TopK(0.05).bytes(144, 4) == 8 * 8
    assert TopK(0.05).bytes(4, 8) == 12
    assert TopK(0.1).bytes(30, 4) == 3 * 8, "0.1 times 30 is 3, whatever binary fractions say"


@pytest.mark.parametrize("compressor", [Int8(), TopK(0.3)])
@given(seed=st.integers(0, 99), lanes=st.integers(1, 5), numbers=st.integers(1, 50))
def test_a_row_depends_on_no_other_and_is_at_most_as_wrong_as_it_may_be(compressor, seed, lanes, numbers):
    rows = torch.randn(lanes, numbers, generator=torch.Generator().manual_seed(seed))
    found = compressor(rows)
    assert torch.equal(found, torch.cat([compressor(row[None]) for row in rows]))
    left = (rows - found).abs()
    largest = rows.abs().amax(dim=1, keepdim=True)
    assert (left <= (largest / 254 * 1.0001 if isinstance(compressor, Int8) else largest)).all()
    assert (left.norm(dim=1) < rows.norm(dim=1)).all()


def test_bfloat16_by_hand():
    rows = torch.tensor([[1.0 + 2**-8, 1.0 + 3 * 2**-8, -3.14159, 0.0]])
    assert BFloat16()(rows).tolist() == [[1.0, 1.015625, -3.140625, 0.0]], "halves go to even"
    assert BFloat16().bytes(10, 4) == BFloat16().bytes(10, 8) == 20


def test_a_bfloat16_row_is_scaled_in_float32():
    rows = torch.tensor([[1.0, 0.5, -0.25]], dtype=torch.bfloat16)
    assert Int8()(rows).dtype == torch.bfloat16
    assert torch.equal(Int8()(rows), Int8()(rows.float()).to(torch.bfloat16))
    assert Int8().bytes(3, 2) == 3 + 4


def test_names_are_those_of_the_settings():
    assert [codec(name, 0.2) for name in ("none", "bf16", "int8", "topk")] == [Full(), BFloat16(), Int8(), TopK(0.2)]


CODECS = [Full(), BFloat16(), Int8(), TopK(0.3)]
NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


@pytest.mark.parametrize("coded", CODECS)
@given(row=st.lists(NUMBERS, min_size=1, max_size=40))
def test_what_is_finite_arrives_finite_and_near(coded, row):
    rows = torch.tensor([row])
    found = coded(rows)
    assert found.shape == rows.shape
    assert found.isfinite().all()
    largest = rows.abs().max()
    tiny = 2.0**-126  # below the smallest normal number nothing is promised
    bound = {
        Full: torch.zeros_like(rows),
        BFloat16: rows.abs() * 2**-8 + tiny,
        Int8: (largest / 254 * 1.0001 + tiny).expand_as(rows),
        TopK: largest.expand_as(rows),
    }[type(coded)]
    assert ((rows - found).abs() <= bound).all()
    assert (found[rows == 0] == 0).all()


@pytest.mark.parametrize("coded", CODECS)
@given(row=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40))
def test_what_has_arrived_once_arrives_as_it_is(coded, row):
    once = coded(torch.tensor([row]))
    again = coded(once)
    rounding = 4 * torch.finfo(once.dtype).eps if isinstance(coded, Int8) else 0.0
    assert ((once - again).abs() <= rounding * once.abs() + rounding * 2.0**-126).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("coded", CODECS)
def test_zeros_and_equal_numbers(coded, dtype):
    assert not coded(torch.zeros(2, 10, dtype=dtype)).any()
    same = torch.full((2, 10), -1.5, dtype=dtype)
    found = coded(same)
    kept = 3 if isinstance(coded, TopK) else 10
    assert torch.allclose(found[:, :kept], same[:, :kept], rtol=1e-6, atol=0.0)
    assert not found[:, kept:].any()
    assert found.dtype == dtype


@pytest.mark.parametrize("coded", [Int8(), BFloat16(), Full()])
def test_what_is_not_finite_is_not_hidden(coded):
    assert not coded(torch.tensor([[1.0, math.nan]])).isfinite().all()
    assert not coded(torch.tensor([[1.0, math.inf]])).isfinite().all()


@pytest.mark.parametrize("coded", CODECS)
def test_each_sample_is_a_row_whatever_its_layout(coded):
    maps = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    found = of_samples(coded, maps.movedim(2, -1).contiguous().movedim(-1, 2))
    for lane in range(2):
        for sample in range(3):
            assert torch.equal(found[lane, sample].reshape(1, -1), coded(maps[lane, sample].reshape(1, -1)))
