"""What all unit tests have in common."""

import pytest
import torch

from tests import measured


@pytest.fixture(scope="session", autouse=True)
def _lean():
    """One thread for each worker, who would wait for the others' cores; each network is measured once."""
    torch.set_num_threads(1)
    measured.once()
