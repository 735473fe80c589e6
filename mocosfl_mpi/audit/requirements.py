"""What an audit is asked to find: ``reconstruction.ssim<=0.3``, of one adversary ``reconstruction.ssim@wire<=0.3``.

``KIND.METRIC[@ADVERSARY] OPERATOR VALUE``: a kind of attack and one of its metrics, or ``utility.knn_top1``; an
operator ``<=``, ``<``, ``>=``, ``>``; a number. It is held against the attack that learnt most, mean over seeds.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mocosfl_mpi.attacks.attack import Attack, adversaries
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.attack_schema import PRINCIPAL, TELLS

UTILITY = "utility"
UTILITIES = ("knn_top1", "linear_top1")
"""Accuracies in % that can be asked for."""
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt
}  # fmt: skip
_GRAMMAR = re.compile(r"\s*(\w+)\.([\w-]+)(?:@(\w+))?\s*(<=|>=|<|>)\s*(\S+)\s*")
_EXAMPLE = "expected KIND.METRIC[@ADVERSARY]<=VALUE, as reconstruction.ssim<=0.3 or linkage.top1@server<=0.1"


@dataclass(frozen=True)
class Requirement:
    """One of them."""

    text: str
    kind: str
    metric: str
    adversary: str | None
    sign: str
    bound: float

    def met(self, value: float) -> bool:
        """Whether ``value`` is on the right side."""
        return _OPERATORS[self.sign](value, self.bound)


def read(text: str, adversaries: Collection[str]) -> Requirement:
    """A requirement from its text. BadInput where it is none."""
    found = _GRAMMAR.fullmatch(text)
    if not found:
        raise BadInput(f"--require {text!r}: {_EXAMPLE}")
    kind, metric, adversary, sign, number = found.groups()
    _known(text, kind, [*PRINCIPAL, UTILITY], "kind of attack")
    _known(text, metric, UTILITIES if kind == UTILITY else TELLS[kind], f"metric of {kind}")
    if adversary is not None:
        _known(text, adversary, adversaries, "adversary")
    if kind == UTILITY and adversary is not None:
        raise BadInput(f"--require {text!r}: utility belongs to no adversary; leave @{adversary} out")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise BadInput(f"--require {text!r}: {number!r} is no number; {_EXAMPLE}")
    return Requirement(text.strip(), kind, metric, adversary, sign, bound)


def _known(text: str, word: str, known: Collection[str], what: str) -> None:
    if word not in known:
        close = difflib.get_close_matches(word, list(known), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise BadInput(f"--require {text!r}: there is no {what} {word!r}; {hint}choose from {', '.join(known)}")


def check_measured(requirements: Sequence[Requirement], attacks: Collection[Attack]) -> None:
    """Refuse requirements of which no attack that is asked for could tell (BadInput)."""
    for one in requirements:
        own = [attack for attack in attacks if attack.kind == one.kind]
        if one.kind != UTILITY and not own:
            raise BadInput(
                f"--require {one.text!r}: no attack asked for tells {one.kind}; add one with --attacks, or all"
            )
        able = {role for attack in own for role in adversaries(attack)}
        if one.adversary is not None and one.adversary not in able:
            raise BadInput(
                f"--require {one.text!r}: {one.adversary} can mount none of these attacks, and nothing would be "
                f"measured; choose from {', '.join(sorted(able))}"
            )
