"""What arrives after compression, and how many bytes it was, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.codecs import Int8, TopK


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
