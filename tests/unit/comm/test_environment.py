import pytest

from mocosfl_mpi.comm.environment import DEFAULTS, launcher, prepare


@pytest.mark.parametrize(
    ("environ", "rank", "size", "word"),
    [
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, 2, 4, "Open MPI"),
        ({"PMI_RANK": "0", "PMI_SIZE": "3"}, 0, 3, "MPICH"),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"}, 5, 8, "srun"),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "PMI_RANK": "1", "PMI_SIZE": "2"}, 1, 2, "PMI"),
    ],
)
def test_launchers_are_recognised(environ, rank, size, word):
    found = launcher(environ)
    assert (found.rank, found.size) == (rank, size)
    assert word in found.name


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_PROCID": "0"},
        {"PMI_RANK": "x", "PMI_SIZE": "2"},
    ],
)
def test_no_launcher(environ):
    assert launcher(environ) is None


def test_what_the_user_has_set_stays():
    environ = {"OMPI_MCA_mpi_yield_when_idle": "0"}
    prepare(environ)
    assert environ["OMPI_MCA_mpi_yield_when_idle"] == "0"
    assert environ.keys() == DEFAULTS.keys()
