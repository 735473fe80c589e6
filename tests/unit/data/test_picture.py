import numpy as np
import pytest

from mocosfl_mpi.data.picture import picture


def test_two_clients_are_drawn_with_totals():
    text = picture(np.array([[10, 0, 0], [1, 9, 0]]), ["cat", "dog", "owl"])
    assert text.splitlines() == [
        "classes: 0 cat, 1 dog, 2 owl",
        "           0  1  2   images",
        "client 0 |███      | 10",
        "client 1 |▁▁▁▇▇▇   | 10",
        "     all  2 clients, 20 images, 10 to 10 each",
        "          classes per client (clients): 1 (1), 2 (1)",
        "          █ is 100.0% of a row's images",
    ]


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (24, 20), (25, 21), (1000, 100), (137, 345)])
def test_any_size_fits_a_terminal_and_loses_no_image(clients, classes):
    table = np.random.default_rng(0).integers(0, 5, (clients, classes)) + 1
    text = picture(table, [f"class {k}" for k in range(classes)])
    rows = [line for line in text.splitlines() if "|" in line]
    assert len(rows) <= 24
    assert max(len(line) for line in rows) <= 90
    assert sum(int(line.rpartition("|")[2].replace(",", "")) for line in rows) == table.sum()
