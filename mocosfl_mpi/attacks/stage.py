"""Setting the scene of a job, letting the attack loose, and noting what came of it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mocosfl_mpi.attacks.attack import Attack, Effort, Guess, NotApplicable
from mocosfl_mpi.attacks.guards import guard_of
from mocosfl_mpi.attacks.jobs import ADAPTIVE, NAIVE, Job
from mocosfl_mpi.attacks.pictures import png
from mocosfl_mpi.attacks.published import PublishedProtocol
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes import Reconstruction, Scene, expert
from mocosfl_mpi.attacks.scenes.composition import Composition
from mocosfl_mpi.attacks.scenes.inversion import Inversion
from mocosfl_mpi.attacks.scenes.labels import Labels
from mocosfl_mpi.attacks.scenes.linkage import Linkage
from mocosfl_mpi.attacks.scenes.membership import Membership
from mocosfl_mpi.attacks.scenes.probing import Probing
from mocosfl_mpi.attacks.steered import Steered
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import TITLES, Guard, View, unguarded
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.attack_schema import PRINCIPAL
from mocosfl_mpi.record.attacks import Outcome

SENT_EACH = 100
"""Most images that each of several clients sends."""
WORDS = {
    "smashed": "no smashed data travel in this method",
    "keys": "no smashed keys travel in this method",
    "trunk": "this method has no main server",
    "weights": "no client model is there to be seen",
}
"""Why a view lacks what an attack needs, by sight."""


def scene_of(attack: Attack, victim: Victim, job: Job, guard: Guard) -> Scene:
    """The scene in which an attack of its kind is set.

    Raises
    ------
    NotApplicable
        It means nothing in this run, or to this adversary.
    """
    if victim.config.vertical and attack.kind != "labels":
        raise NotApplicable(f"each client of {victim.config.method} has a piece of the images, and no whole one")
    kind = "steered" if "steering" in attack.needs else attack.kind
    if job.protocol == "published":
        return PublishedProtocol(victim, job.client, job.seed, guard)
    if kind not in SCENES:
        raise NotApplicable(f"there is no scene for attacks on {kind}")
    return SCENES[kind](victim, job, guard)


SCENES: dict[str, Callable[[Victim, Job, Guard], Scene]] = {
    "reconstruction": lambda victim, job, guard: Reconstruction(
        victim, job.adversary, job.client, job.images, seed=job.seed, guard=guard, adaptive=job.adaptive != NAIVE
    ),
    "steered": lambda victim, job, guard: Steered(
        victim, job.client, job.images, seed=job.seed, guard=guard, adaptive=job.adaptive != NAIVE
    ),
    "linkage": lambda victim, job, guard: Linkage(
        victim, job.adversary, job.client, sent=job.images, seed=job.seed, guard=guard, adaptive=job.adaptive != NAIVE
    ),
    "composition": lambda victim, job, guard: Composition(
        victim, job.adversary, job.client, images=min(job.images, SENT_EACH), seed=job.seed, guard=guard,
        adaptive=job.adaptive != NAIVE,
    ),
    "membership": lambda victim, job, _: Membership(victim, job.adversary, client=job.client, seed=job.seed),
    "target_membership": lambda victim, job, _: expert.target(victim, job.adversary, job.client, job.seed),
    "source_membership": lambda victim, job, _: expert.source(victim, job.adversary, job.client, job.seed),
    "labels": lambda victim, job, _: Labels(victim, job.adversary, job.client, seed=job.seed),
    "inversion": lambda victim, job, guard: Inversion(
        victim, job.adversary, job.client, seed=job.seed, guard=guard
    ),
    "probing": lambda victim, job, _: Probing(victim, job.adversary, job.client, seed=job.seed),
}  # fmt: skip
"""By the kind of attack; `steered` for those whose adversary chooses the gradients."""


@dataclass(eq=False)
class Stage:
    """A run under attack, and the control: random networks of the same layers."""

    victim: Victim

    @classmethod
    def of(cls, run: Path, data_dir: Path | None) -> Stage:
        """Raises what ``Victim`` does."""
        return cls(Victim(run, data_dir, pieces=True))

    @cached_property
    def control(self) -> Victim:
        """The untrained victim."""
        return self.victim.control()

    @cached_property
    def defended(self) -> bool:
        """Whether clients change smashed data before they leave."""
        return guard_of(self.victim, 0) is not None

    @cached_property
    def state(self) -> str:
        """Hash of the attacked checkpoint's files."""
        files = {name: part.sha256 for name, part in self.victim.saved.manifest.files.items()}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()

    def check_client(self, client: int) -> None:
        """Refuse a client that the run has not (BadInput)."""
        count = self.victim.config.client.count
        if not 0 <= client < count:
            raise BadInput(f"--client {client}: the run has {count} clients; choose 0 to {count - 1}")

    def perform(self, job: Job) -> dict[str, Any]:
        """What came of one job, ready for JSON: seconds, and scores, or the reason why it cannot be mounted."""
        attack, victim = ATTACKS[job.attack], self.victim if job.trained else self.control
        torch.manual_seed(job.seed)  # no attack should draw from it; one that did would depend on its neighbours
        start = time.perf_counter()
        try:
            scene = scene_of(attack, victim, job, guard_of(victim, job.client) or unguarded)
            reason = _lacking(attack, scene.view)
            if reason:
                return {"seconds": time.perf_counter() - start, "reason": reason}
            guess = attack.run(scene.view, job.seed, Effort(job.effort))
            scores, floors = scene.score(guess), scene.floors()
        except NotApplicable as error:
            return {"seconds": time.perf_counter() - start, "reason": str(error)}
        seconds = time.perf_counter() - start
        if not math.isfinite(scores[PRINCIPAL[attack.kind]]):
            return {"seconds": seconds, "reason": "it came to no finite result: the attack or the run has diverged"}
        return {
            "seconds": seconds,
            "scores": scores,
            "floors": floors,
            "notes": {name: float(value) for name, value in guess.notes.items()},
            "picture": self._picture(job, scene, guess),
        }

    def outcome(self, job: Job, found: dict[str, Any], picture: str) -> Outcome:
        """The row of a job that was done; ``picture``: the file of its samples."""
        notes = dict(found.get("notes", {}))
        return Outcome(
            key=job.key(self.state),
            state=self.state,
            steps=self.victim.saved.manifest.steps,
            trained=job.trained,
            attack=job.attack,
            kind=ATTACKS[job.attack].kind,
            adversary=job.adversary,
            adaptive=job.adaptive,
            protocol=job.protocol,
            client=job.client,
            images=job.images,
            effort=job.effort,
            seed=job.seed,
            seconds=found["seconds"],
            macs=notes.pop("macs", math.nan),
            reason=found.get("reason", ""),
            notes=notes,
            picture=picture,
            scores=found.get("scores", {}),
            floors=found.get("floors", {}),
        )

    def _picture(self, job: Job, scene: Scene, guess: Guess) -> str | None:
        """Samples of a reconstruction as a PNG in base64."""
        if not isinstance(scene, Reconstruction | Steered | Inversion | PublishedProtocol):
            return None
        knows = {ADAPTIVE: ", knows the defence", NAIVE: ", does not know the defence"}.get(job.adaptive, "")
        state = "trained" if job.trained else "untrained control"
        title = f"{job.attack} by {TITLES[job.adversary]}{knows}; {state}; client {job.client}; seed {job.seed}"
        return base64.b64encode(png(scene.truth, guess.values, title)).decode()


def _lacking(attack: Attack, view: View) -> str:
    """Why the view of an adversary lacks what the attack needs in this run; empty = it lacks nothing."""
    lacking = [sight for sight in sorted(attack.needs) if sight in WORDS and getattr(view, sight) is None]
    return "; ".join(WORDS[sight] for sight in lacking)
