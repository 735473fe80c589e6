"""Rows of two shapes are taken apart and put together as one sequence."""

import pytest
import torch

from mocosfl_mpi.rows import Rows, one_after_another


def numbered(rows):
    """The number of each row, in order."""
    return [int(row.flatten()[0]) for part in rows.parts for row in part]


@pytest.fixture
def rows():
    """Three rows of 2 x 1 numbers, four of 1 x 3."""
    first, then = torch.arange(3.0), torch.arange(3.0, 7.0)
    return Rows((first.view(3, 1, 1).expand(3, 2, 1), then.view(4, 1, 1).expand(4, 1, 3)))


def test_slices_are_those_of_one_sequence(rows):
    assert len(rows) == 7
    for start in range(8):
        for stop in range(start, 8):
            part = rows[start:stop]
            assert numbered(part) == list(range(7))[start:stop]
            assert [found.shape[1:] for found in part.parts] == [(2, 1), (1, 3)]


def test_pieces_come_together_again(rows):
    again = one_after_another([rows[:2], rows[2:5], rows[5:]])
    assert all(torch.equal(a, b) for a, b in zip(again.parts, rows.parts, strict=True))
    assert torch.equal(one_after_another([torch.ones(2), torch.zeros(1)]), torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("chosen", [[0, 2, 3, 6], [0, 1], [4, 5], list(range(7))])
def test_what_a_mask_takes_goes_back_to_its_places(rows, chosen):
    mask = torch.zeros(7, dtype=torch.bool)
    mask[chosen] = True
    some = rows[mask]
    assert numbered(some) == chosen
    back = some.among(rows, mask)
    assert numbered(back) == [number if number in chosen else 0 for number in range(7)]
    assert [part.shape for part in back.parts] == [part.shape for part in rows.parts]


def test_the_only_part_is_the_only_one(rows):
    assert rows.map(torch.clone).parts[1].shape == (4, 1, 3)
    assert Rows(rows.parts[:1]).only is rows.parts[0]
    with pytest.raises(ValueError, match="too many"):
        _ = rows.only
