"""Was this image among those that a run's expert has learnt from: its few target images, its many auxiliary ones?"""

from __future__ import annotations

import numpy as np

from mocosfl_mpi.attacks.attack import NotApplicable
from mocosfl_mpi.attacks.scenes.membership import Membership
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Role
from mocosfl_mpi.problem import Source


def target(victim: Victim, role: Role = "encoder_holder", client: int = 0, seed: int = 0) -> Membership:
    """Target images that the expert had, against training images of the same data set that it had not.

    The expert's share was drawn at random, so that what clients have learnt from since is the same mixture of both.

    Raises
    ------
    NotApplicable
        The run began with no expert, or with one that had none of the target's images or all of them.
    """
    expert = _expert(victim)
    share = expert.parts[0]
    rest = np.setdiff1d(np.arange(len(expert.train)), share)
    if not len(share) or not len(rest):
        raise NotApplicable(
            f"the expert has learnt from {len(share)} of {len(expert.train)} target images: there is nothing to tell "
            f"apart"
        )
    return Membership(
        victim, role, expert.train.take(share), expert.train.take(rest), expert.data, client=client, seed=seed
    )


def source(victim: Victim, role: Role = "encoder_holder", client: int = 0, seed: int = 0) -> Membership:
    """Auxiliary images that the expert had, against the test split of their data set.

    Raises
    ------
    NotApplicable
        As ``target``.
    """
    auxiliary = _expert(victim).auxiliary
    assert auxiliary is not None
    return Membership(victim, role, auxiliary.train, data=auxiliary, client=client, seed=seed)


def _expert(victim: Victim) -> Source:
    if victim.expert is None:
        raise NotApplicable("the run began with no expert that learnt from target and auxiliary images")
    return victim.expert
