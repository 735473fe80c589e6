"""All attacks, by name."""

from __future__ import annotations

from mocosfl_mpi.attacks.attack import Attack
from mocosfl_mpi.attacks.inference.composition import Rows, RowsBehindTrunk
from mocosfl_mpi.attacks.inference.consistency import Threshold, Vector
from mocosfl_mpi.attacks.inference.gradients import Direction, Norm
from mocosfl_mpi.attacks.inference.inversion import DLG, InvertingGradients
from mocosfl_mpi.attacks.inference.linkage import Closest
from mocosfl_mpi.attacks.inference.probing import Returned
from mocosfl_mpi.attacks.reconstruction.ridge import Ridge

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Ridge(),
        Closest(),
        Threshold(),
        Vector(),
        Rows(),
        RowsBehindTrunk(),
        Norm(),
        Direction(),
        DLG(),
        InvertingGradients(),
        Returned(),
    )
}
