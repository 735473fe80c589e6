"""The page of an audit: what attacks came to, beside utility and cost, for a reader who knows nothing of the code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mocosfl_mpi.attacks.attack import Attack
from mocosfl_mpi.attacks.findings import KNOWS, Finding, gather, not_mounted, strongest, told
from mocosfl_mpi.attacks.jobs import represents
from mocosfl_mpi.attacks.view import SEES, TITLES, Role, Sight
from mocosfl_mpi.audit.document import Bullets, Heading, Paragraph, Part, Picture, Table, html, markdown
from mocosfl_mpi.audit.material import Material
from mocosfl_mpi.audit.requirements import UTILITY, Requirement
from mocosfl_mpi.audit.sentences import QUESTIONS, sentence
from mocosfl_mpi.errors import RunFailed
from mocosfl_mpi.record.attack_schema import FILE_NAME, FLOORS, METRICS
from mocosfl_mpi.record.attacks import PICTURES, Outcome

PAGE = "audit.html"
SHEET = "audit.md"
_NAMES = {"knn_top1": "kNN test accuracy", "linear_top1": "linear-probe test accuracy"}
_NOT_CLAIMED = (
    ("", "An attack that fails shows that this attack fails. Better ones may exist, and more effort may do more."),
    ("", "Nothing here is a proof or a guarantee; differential privacy is one only where an accountant says so."),
    ("", "One client, one checkpoint, images of one data set: other clients and moments of training may leak more."),
    ("", "Adversaries hold images of the same kind as the victims' (the test split). One with fewer does worse."),
    ("", "Gradient inversion is told the client's momentum model and past keys, the most that anybody could know."),
    ("", "Gradients, keys and labels are looked at as if no defence were on, whatever the adversary knows of it."),
    ("", "Adversaries that work together, and side channels such as timing, were not tried."),
)


_SIGHTS: dict[Sight, str] = {
    "smashed": "smashed data",
    "keys": "smashed data of the momentum model",
    "answers": "the gradients that answer them",
    "trunk": "the main server's layers",
    "architecture": "which layers clients have",
    "weights": "the weights of these",
    "update": "what they become after a client's steps",
    "received": "the gradients that its own images come back with",
    "steering": "the choice of these gradients",
    "encoder": "the whole network, released",
}


@dataclass(frozen=True)
class Verdict:
    """A requirement and how it was answered."""

    requirement: Requirement
    value: float | None
    """None: no attack could be mounted that would tell."""
    by: str
    met: bool


@dataclass(frozen=True)
class Audit:
    """Everything that a page is made of."""

    material: Material
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    attacks: Mapping[str, Attack]
    """Those that were asked for, by name."""
    pictures: Path
    """Directory of sample pictures."""


def audit(
    material: Material,
    outcomes: Sequence[Outcome],
    requirements: Sequence[Requirement],
    attacks: Mapping[str, Attack],
    pictures: Path,
) -> Audit:
    """Judge what attacks came to."""
    findings = tuple(gather(outcomes))
    verdicts = tuple(_judge(one, material, findings, attacks) for one in requirements)
    return Audit(material, findings, verdicts, attacks, pictures)


def mountable(role: Role, findings: Sequence[Finding], attacks: Mapping[str, Attack]) -> list[Finding]:
    """What was found with attacks that ``role`` can mount, whoever it was that mounted them."""
    return [found for found in findings if represents(attacks[found.first.attack], found.first.adversary, role)]


def _judge(one: Requirement, material: Material, findings: Sequence[Finding], attacks: Mapping[str, Attack]) -> Verdict:
    if one.kind == UTILITY:
        value = material.utility.get(one.metric)
        return Verdict(one, value, "these weights", value is not None and one.met(value))
    asked = [finding for finding in findings if finding.first.trained and finding.first.kind == one.kind]
    if one.adversary is not None:
        asked = mountable(cast(Role, one.adversary), asked, attacks)
    best = strongest(asked, one.metric)
    if best is None:
        met = bool(asked) and all(finding.reason for finding in asked)
        return Verdict(one, None, "no such attack can be mounted here" if met else "nobody attacked so", met=met)
    value = best.mean(one.metric)
    return Verdict(one, value, f"{best.first.attack} by {TITLES[cast(Role, best.first.adversary)]}", one.met(value))


def write(directory: Path, found: Audit) -> list[Path]:
    """Write the page and the sheet into the run's directory; their paths. RunFailed where the disk refuses."""
    content = list(parts(found))
    paths = []
    for name, render in ((PAGE, html), (SHEET, markdown)):
        path, part = directory / name, directory / f"{name}.part"
        try:
            part.write_text(render(content), encoding="utf-8")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RunFailed(
                f"cannot write {path}: {error}; {FILE_NAME} is safe: free some space, and audit again"
            ) from None
        paths.append(path)
    return paths


def parts(found: Audit) -> Iterator[Part]:
    """The page, from top to bottom."""
    material, config = found.material, found.material.config
    yield Heading(1, f"Privacy audit of {material.name}")
    yield Paragraph(
        f"{config.method}: {config.client.count} clients train a {config.model.backbone} of width {config.model.width} "
        f"together; each holds its first layers (cut {config.model.cut_layer}) and sends what they make of its images, "
        f"the smashed data. Attacked were the networks after {material.steps} of {material.all_steps} training steps."
    )
    yield from _verdicts(found)
    yield from _learned(found)
    yield from _setting(material)
    yield from _best(found)
    yield from _everything(found)
    yield from _pictures(found)
    yield from _not_mounted(found)
    yield Heading(2, "What was not measured")
    yield Bullets([*_not_tried(found), *_NOT_CLAIMED])
    yield from _glossary(found)


def brief(found: Audit) -> list[Part]:
    """What each kind of adversary learns, and its strongest attack."""
    return [*_learned(found), *_best(found)]


def _learned(found: Audit) -> Iterator[Part]:
    yield Heading(2, "What each kind of adversary learns")
    trained = _trained(found)
    yield Bullets([("", sentence(role, mountable(role, trained, found.attacks))) for role in _roles(found)])
    yield Paragraph(
        "An adversary that sees more can do whatever one can that sees less. Each sentence rests on the strongest of "
        "the attacks tried, mean over seeds; words such as roughly and recognised are ours, the numbers stand below."
    )


def _trained(found: Audit) -> list[Finding]:
    return [finding for finding in found.findings if finding.first.trained]


def _roles(found: Audit) -> list[Role]:
    return [role for role in SEES if mountable(role, found.findings, found.attacks)]


def _verdicts(found: Audit) -> Iterator[Part]:
    if not found.verdicts:
        return
    yield Heading(2, "Requirements")
    rows = [
        [
            verdict.requirement.text,
            _found(verdict),
            verdict.by,
            "met" if verdict.met else "NOT met",
        ]
        for verdict in found.verdicts
    ]
    yield Table(["required", "found", "by", "verdict"], rows, [verdict.met for verdict in found.verdicts])


def _found(verdict: Verdict) -> str:
    if verdict.value is not None:
        return f"{verdict.value:.4g}"
    return "–" if verdict.met else "not measured"


def _setting(material: Material) -> Iterator[Part]:
    yield Heading(2, "What protects clients, what the network is good for, what it cost")
    if material.defences:
        yield Bullets([(f"{name}:", what) for name, what in material.defences])
    else:
        yield Paragraph("No defence is on: clients send smashed data as they are.")
    rows = []
    for name, title in _NAMES.items():
        values = [
            material.utility.get(name),
            *(material.beside.get(f"{name}_{kind}") for kind in ("untrained", "pixels")),
        ]
        rows.append([f"{title}, %", *("not measured" if value is None else f"{value:.1f}" for value in values)])
    yield Table(["utility", "these very weights", "untrained network", "raw pixels"], rows)
    yield Paragraph(
        f"A client sent and received {material.mebibytes:.2f} MiB (2^20 bytes) in the whole run, on average."
    )


def _best(found: Audit) -> Iterator[Part]:
    yield Heading(2, "The strongest attack of each adversary")
    rows = []
    for role in _roles(found):
        own = mountable(role, _trained(found), found.attacks)
        for kind in dict.fromkeys(finding.first.kind for finding in own):
            best = strongest(finding for finding in own if finding.first.kind == kind)
            if best is not None:
                rows.append([TITLES[role], kind, _name(best), *_numbers(best, found.findings)])
    yield Table(["adversary", "kind", "strongest attack", "metric", "score", "floor", "untrained", "finding"], rows)


def _numbers(finding: Finding, everything: Sequence[Finding]) -> list[str]:
    metric = finding.principal
    digits, floor, control = METRICS[metric].digits, finding.blind(metric), _control(finding, everything)
    return [
        METRICS[metric].title,
        told(finding.values(metric), digits),
        "–" if floor is None else f"{floor:.{digits}f}",
        "–" if control is None else told(control.values(metric), digits),
        finding.remark,
    ]


def _control(finding: Finding, everything: Sequence[Finding]) -> Finding | None:
    """The same attack on the untrained networks."""
    one = finding.first
    for other in everything:
        two = other.first
        alike = (one.attack, one.adversary, one.adaptive, one.protocol) == (
            two.attack,
            two.adversary,
            two.adaptive,
            two.protocol,
        )
        if alike and not two.trained and not other.reason:
            return other
    return None


def _name(finding: Finding) -> str:
    knows = KNOWS.get(finding.first.adaptive)
    return finding.first.attack + (f" ({knows})" if knows else "")


def _everything(found: Audit) -> Iterator[Part]:
    yield Heading(2, "All attacks")
    yield Paragraph(
        "Mean ± standard deviation over seeds. Untrained: the same attack on random networks of the same "
        "layers, which shows what is due to these alone. Saturated: no better than one who sees nothing, so that "
        "the number says nothing of how far from success the attack was."
    )
    mounted = [finding for finding in found.findings if not finding.reason]
    for kind in dict.fromkeys(finding.first.kind for finding in mounted):
        own = [finding for finding in mounted if finding.first.kind == kind]
        metrics = [name for name in METRICS if any(name in finding.metrics for finding in own)]
        yield Heading(3, f"{kind}: {QUESTIONS[kind][0]}")
        header = ["attack", "by", "networks", "seeds", *(METRICS[name].title for name in metrics), "finding", "from"]
        rows = [_row(finding, metrics, found.attacks) for finding in own]
        yield Table(header, [*rows, *_floor_rows(own, metrics)])


def _row(finding: Finding, metrics: Sequence[str], attacks: Mapping[str, Attack]) -> list[str]:
    one = finding.first
    numbers = [told(finding.values(name), METRICS[name].digits) for name in metrics]
    state = "trained" if one.trained else "untrained"
    seeds = str(len(finding.outcomes))
    return [_name(finding), one.adversary, state, seeds, *numbers, finding.remark, attacks[one.attack].source]


def _floor_rows(findings: Sequence[Finding], metrics: Sequence[str]) -> Iterator[list[str]]:
    """Guessers to compare with; scenes differ between attacks, so theirs is a range."""
    for name, floor in FLOORS.items():
        ranges = []
        for metric in metrics:
            values = [value for found in findings if (value := found.floor(name, metric)) is not None]
            ranges.append(_range(values, METRICS[metric].digits))
        if any(text != "–" for text in ranges):
            yield [floor.title, "nobody" if floor.blind else "to compare", "", "", *ranges, "", floor.long_name]


def _range(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    least, most = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return least if least == most else f"{least} to {most}"


def _pictures(found: Audit) -> Iterator[Part]:
    shown = [(finding, outcome) for finding in found.findings for outcome in finding.outcomes[:1] if outcome.picture]
    there = [(finding, one) for finding, one in shown if (found.pictures / one.picture).is_file()]
    if not there:
        return
    yield Heading(2, "Samples")
    yield Paragraph("Above: images of the client. Below: what the adversary made of what it saw. First seed.")
    for finding, one in there:
        state = "trained networks" if one.trained else "untrained networks"
        caption = f"{_name(finding)}, {TITLES[cast(Role, one.adversary)]}, {state}"
        yield Picture(found.pictures / one.picture, f"{PICTURES}/{one.picture}", caption)


def _not_mounted(found: Audit) -> Iterator[Part]:
    rows = not_mounted(found.findings)
    if rows:
        yield Heading(2, "What could not be mounted here")
        yield Table(["attack and adversary", "reason"], rows)


def _not_tried(found: Audit) -> Iterator[tuple[str, str]]:
    kinds = {finding.first.kind for finding in found.findings if not finding.reason}
    missing = [what for kind, (_, what) in QUESTIONS.items() if kind not in kinds]
    if missing:
        yield "", f"Not attacked at all: {'; '.join(missing)}."
    seeds = {len(finding.outcomes) for finding in found.findings}
    if seeds and min(seeds) < 3:
        yield "", f"Only {min(seeds)} seed(s) of some attacks: spreads need three."
    if any(name not in found.material.utility for name in _NAMES):
        yield "", "Some accuracies of these very weights, as the table says."


def _sights(sees: frozenset[Sight]) -> str:
    return ", ".join(words for sight, words in _SIGHTS.items() if sight in sees)


def _glossary(found: Audit) -> Iterator[Part]:
    yield Heading(2, "How to read this")
    yield Heading(3, "Adversaries")
    yield Bullets([(f"{role}:", f"{TITLES[role]}; sees {_sights(sees)}.") for role, sees in SEES.items()])
    yield Heading(3, "Metrics")
    used = [name for name in METRICS if any(name in finding.metrics for finding in found.findings)]
    direction = {1: " Higher = more was learnt.", -1: " Lower = more was learnt.", 0: ""}
    yield Bullets(
        [(f"{METRICS[name].title}:", f"{METRICS[name].long_name}.{direction[METRICS[name].more]}") for name in used]
    )
    yield Heading(3, "Floors")
    named = [
        name
        for name in FLOORS
        if any(name in outcome.floors for finding in found.findings for outcome in finding.outcomes)
    ]
    yield Bullets([(f"{FLOORS[name].title}:", f"{FLOORS[name].long_name}.") for name in named])
