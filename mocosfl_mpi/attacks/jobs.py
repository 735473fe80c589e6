"""Which attacks, by whom, on what: a list of jobs, each of which is done once and for all."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Literal

from mocosfl_mpi.attacks.attack import Attack, Kind, adversaries
from mocosfl_mpi.attacks.view import SEES, TITLES, Role
from mocosfl_mpi.errors import BadInput

ALL = "all"
WEAKEST = "weakest"
"""Of adversaries: each attack once, by who sees least of those who can mount it. The others can do the same."""
BY_ROLE: frozenset[Kind] = frozenset({"labels", "inversion"})
"""Kinds of attack whose scene depends on who looks: nobody's result stands for another's."""
STANDARD = "standard"
"""Of attacks: those of every kind that a single core does in minutes."""
COSTLY = frozenset(
    {
        "decoder_res_n0c16", "decoder_res_n2c32", "decoder_res_n4c64", "decoder_published", "white_box", "unsplit",
        "fsha", "fsha_published", "dlg",
    }
)  # fmt: skip
"""Attacks that are not among them."""
ABOUT_EXPERTS: frozenset[Kind] = frozenset({"target_membership", "source_membership"})
"""Kinds of attack that ask for what an expert has learnt from: they need its file, and its data."""
PUBLISHED = "decoder_published"
"""What the published protocol is made for."""
REVISIONS: Mapping[str, int] = {
    "composition": 1, "composition_features": 1, "gradient_norm": 1, "gradient_direction": 1, "inverting_gradients": 1,
    "dlg": 1, "memory_probing": 1,
}  # fmt: skip
"""How often the scenes of these attacks have changed so that recorded results are no longer theirs."""
Protocol = Literal["ours", "published"]
UNDEFENDED, NAIVE, ADAPTIVE = -1, 0, 1
BEHIND: frozenset[Kind] = frozenset({"reconstruction", "linkage", "composition"})
"""Kinds of attack on what a defence leaves of smashed data: for others there is nothing to know of it."""


@dataclass(frozen=True)
class Orders:
    """What a person asks for."""

    attacks: tuple[str, ...] = (ALL,)
    adversaries: tuple[str, ...] = (WEAKEST,)
    seeds: int = 3
    effort: float = 1.0
    images: int = 128
    """Images of the victim's, at most."""
    client: int = 0
    protocol: Protocol = "ours"
    naive: bool = True
    adaptive: bool = True
    trained: bool = True
    control: bool = True
    """Whether the untrained networks are attacked too."""


@dataclass(frozen=True)
class Job:
    """One attack by one adversary in one scene with one seed: what decides its numbers, beside the checkpoint."""

    attack: str
    adversary: Role
    seed: int
    adaptive: int
    """1: it knows the defence, 0: it does not, -1: there is none."""
    trained: bool
    client: int
    images: int
    effort: float
    protocol: Protocol

    def key(self, state: str) -> str:
        """Hash of the job on the checkpoint with hash ``state``: a recorded one is not done again."""
        decides = [state, asdict(self), *([REVISIONS[self.attack]] if self.attack in REVISIONS else [])]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def name(self) -> str:
        """In one line for a person."""
        what = ("", ", naive", "")[self.adaptive + 1]
        return f"{self.attack} by {self.adversary}{what}, seed {self.seed}{'' if self.trained else ', untrained'}"


def check(orders: Orders, known: Mapping[str, Attack]) -> None:
    """Refuse what no run could have (BadInput): names that do not exist, adversaries that cannot mount any attack."""
    attacks, roles = attacks_of(orders, known), roles_of(orders)
    if not attacks:
        raise BadInput(f"--attacks names none; choose from {', '.join(known)}, {STANDARD} or {ALL}")
    if not roles:
        raise BadInput(f"--adversary names none; choose from {', '.join(SEES)}, {WEAKEST} or {ALL}")
    if orders.seeds < 1:
        raise BadInput(f"--seeds {orders.seeds}: at least one is needed; three tell a spread")
    if not (math.isfinite(orders.effort) and orders.effort > 0):
        raise BadInput(f"--effort {orders.effort}: expected a number above 0; 1 is each attack's own setting")
    if orders.images < 1:
        raise BadInput(f"--images {orders.images}: at least one is needed")
    if orders.adversaries in ((ALL,), (WEAKEST,)):
        return
    for role in roles:
        if not any(role in adversaries(known[name]) for name in attacks):
            raise BadInput(f"--adversary {role}: {_cannot(role, [known[name] for name in attacks])}")
    for name in attacks:
        if orders.attacks not in ((ALL,), (STANDARD,)) and not set(adversaries(known[name])) & set(roles):
            raise BadInput(f"--attacks {name}: {_cannot(roles[0], [known[name]])}")


def _cannot(role: Role, attacks: Sequence[Attack]) -> str:
    if len(attacks) > 1:
        return f"{TITLES[role]} can mount none of these attacks: {', '.join(attack.name for attack in attacks)}"
    lacks, can = sorted(attacks[0].needs - SEES[role]), ", ".join(adversaries(attacks[0]))
    return f"{TITLES[role]} does not see {', '.join(lacks)} and cannot mount {attacks[0].name}; these can: {can}"


def attacks_of(orders: Orders, known: Mapping[str, Attack]) -> list[str]:
    """Names of the attacks. BadInput for one that does not exist, or that the protocol does not have."""
    if orders.protocol == "published":
        fit = [name for name, one in known.items() if one.kind == "reconstruction" and "steering" not in one.needs]
        names = [PUBLISHED] if orders.attacks == (STANDARD,) else chosen(orders.attacks, known, "attack")
        for name in names:
            if name not in fit and orders.attacks != (ALL,):
                raise BadInput(f"--protocol published measures {', '.join(fit)}; {name} is measured by ours")
        return [name for name in names if name in fit]
    if orders.attacks == (STANDARD,):
        return [name for name in known if name not in COSTLY]
    return chosen(orders.attacks, known, "attack")


def roles_of(orders: Orders) -> list[Role]:
    """Who may attack."""
    names = (ALL,) if orders.adversaries == (WEAKEST,) else orders.adversaries
    return [role for role in SEES if role in chosen(names, SEES, "adversary")]


def weakest(attack: Attack) -> Role:
    """Who sees least of those that can mount it."""
    return min(adversaries(attack), key=lambda role: len(SEES[role]))


def chosen(names: Sequence[str], known: Collection[str], what: str) -> list[str]:
    """The names that are meant, in the order in which they are known. BadInput for one that is not."""
    if ALL in names:
        return list(known)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise BadInput(f"there is no {what} {name!r}; {hint}choose from {', '.join(known)}, or {ALL}")
    return [name for name in known if name in names]


def _mounting(attack: Attack, orders: Orders) -> list[Role]:
    """Who is to mount it."""
    if orders.adversaries == (WEAKEST,) and attack.kind not in BY_ROLE:
        return [weakest(attack)]
    return adversaries(attack)


def represents(attack: Attack, mounted_by: str, role: Role) -> bool:
    """Whether what came of an attack ``mounted_by`` somebody is also what ``role`` would get by it."""
    return role == mounted_by if attack.kind in BY_ROLE else role in adversaries(attack)


def plan(orders: Orders, known: Mapping[str, Attack], *, defended: bool) -> list[Job]:
    """All jobs, those of one seed together: a list cut short has whole tables."""
    knowing = [NAIVE] * orders.naive + [ADAPTIVE] * orders.adaptive if defended else [UNDEFENDED]
    if defended and orders.protocol == "published":
        knowing = [NAIVE]  # its adversary knows of no defence
    roles = roles_of(orders)
    states = [True] * orders.trained + [False] * orders.control
    return [
        Job(name, role, seed, adaptive, trained, orders.client, orders.images, orders.effort, orders.protocol)
        for seed, trained, name in product(range(orders.seeds), states, attacks_of(orders, known))
        for role in _mounting(known[name], orders)
        if role in roles
        for adaptive in (knowing if known[name].kind in BEHIND else [UNDEFENDED])
    ]
