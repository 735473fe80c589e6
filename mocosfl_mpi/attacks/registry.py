"""All attacks, by name."""

from __future__ import annotations

from mocosfl_mpi.attacks.attack import Attack
from mocosfl_mpi.attacks.inference.composition import Rows, RowsBehindTrunk
from mocosfl_mpi.attacks.inference.consistency import Threshold, Vector
from mocosfl_mpi.attacks.inference.gradients import Direction, Norm
from mocosfl_mpi.attacks.inference.inversion import DLG, InvertingGradients
from mocosfl_mpi.attacks.inference.linkage import Closest
from mocosfl_mpi.attacks.inference.probing import Returned
from mocosfl_mpi.attacks.published import PublishedDecoder
from mocosfl_mpi.attacks.reconstruction.decoder import Decoder
from mocosfl_mpi.attacks.reconstruction.hijacking import PUBLISHED_PENALTY, Hijacking
from mocosfl_mpi.attacks.reconstruction.optimisation import DEEP, WhiteBox
from mocosfl_mpi.attacks.reconstruction.ridge import Ridge
from mocosfl_mpi.attacks.reconstruction.unsplit import UnSplit

RECONSTRUCTION: tuple[Attack, ...] = (
    Ridge(),
    Decoder("conv", 0, 16),
    Decoder("res", 0, 16),
    Decoder("res", 2, 32),
    Decoder("res", 4, 64),
    Decoder("res", 1, None),
    WhiteBox(),
    WhiteBox(DEEP, "white_box_smooth"),
    UnSplit(),
    Hijacking(),
    Hijacking(penalty=PUBLISHED_PENALTY, name="fsha_published"),
    PublishedDecoder(),
)
"""Of decoders, the four that ResSFL takes the worst case of, and one of equal cost at every cut."""

INFERENCE: tuple[Attack, ...] = (
    Closest(),
    Threshold(),
    Threshold("target_membership", "encodermi_t_target"),
    Threshold("source_membership", "encodermi_t_source"),
    Vector(),
    Rows(),
    RowsBehindTrunk(),
    Norm(),
    Direction(),
    DLG(),
    InvertingGradients(),
    Returned(),
)

ATTACKS: dict[str, Attack] = {attack.name: attack for attack in (*RECONSTRUCTION, *INFERENCE)}
