"""The syntax trees tell: imports go one way, heavy libraries stay in their place, nothing read is executed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mocosfl_mpi

PACKAGE = Path(mocosfl_mpi.__file__).parent
ROOT = PACKAGE.parent

LAYERS = [
    {"errors", "signals", "networks", "methods"},
    {"config", "streams", "schedules", "cadence"},
    {"meter", "presets", "codecs", "rows"},
    {"comm"},
    {"launch", "native"},
    {"split", "data", "objectives", "record", "slurm"},
    {"cost", "retime", "doctor", "saving", "devices"},
    {"evaluation", "clients", "speaker"},
    {"server", "privacy", "watch"},
    {"routes", "algorithms", "encoders", "problem"},
    {"simulated", "boundary", "resumption", "label_routes", "experts"},
    {"chronicle", "parts"},
    {"results", "checkpoints"},
    {"simulation"},
    {"session"},
    {"plan", "attacks", "export"},
    {"grid", "audit"},
    {"figures"},
    {"report"},
    {"commands"},
    {"cli", "api"},
    {"__main__", "__init__", "manual"},
]
"""What stands lower imports from what stands higher, never the other way."""

ONLY_IN = {"mpi4py": {"comm"}, "h5py": {"record"}, "pickle": {"data/cifar.py"}, "torchvision": {"data"}}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_ATTRIBUTES = {("torch", "load"), ("yaml", "load"), ("np", "load"), ("os", "system")}


def sources(root=PACKAGE):
    return sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)


def unit(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.append(node.module or "")
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = unit(path)
    for name in imports(ast.parse(path.read_text())):
        if name.startswith("mocosfl_mpi.") and name != "mocosfl_mpi.__version__":
            other = name.split(".")[1]
            assert other == own or layer(other) < layer(own), f"{path.name} ({own}) must not import {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_place(path):
    place = str(path.relative_to(PACKAGE))
    for name in imports(ast.parse(path.read_text())):
        top = name.split(".")[0]
        if top in ONLY_IN:
            assert place in ONLY_IN[top] or unit(path) in ONLY_IN[top], f"{place} must not import {top}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_read_is_executed(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            assert called.id not in BANNED_CALLS, f"{path}:{node.lineno} calls {called.id}"
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            safe = keywords.get("weights_only") is True or keywords.get("allow_pickle") is False
            bare = (called.value.id, called.attr) in BANNED_ATTRIBUTES
            assert safe or not bare, f"{path}:{node.lineno} calls a bare {called.value.id}.{called.attr}"


def test_the_checks_can_fail():
    """The scanners see what they are meant to see."""
    tree = ast.parse("import pickle\nfrom mocosfl_mpi.cli import main\ntorch.load('x')")
    assert "pickle" in imports(tree)
    assert "mocosfl_mpi.cli" in imports(tree)
    assert layer("cli") > layer("config")


def test_every_unit_has_its_place():
    assert {unit(path) for path in sources()} == set().union(*LAYERS)


def test_no_machine_paths_or_registry_hosts_in_the_tree():
    words = ("/" + "work/", "/" + "tmp/w", "pypi" + ".org", "/root" + "/")
    for path in [*sources(), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Makefile", ROOT / "setup.cfg"]:
        text = path.read_text()
        assert not [word for word in words if word in text], path
