"""Kernels are compiled once into the user's own cache; whatever hinders that is said in one line."""

import ctypes
import os

import pytest

from mocosfl_mpi.native import compiled
from mocosfl_mpi.native.compiled import CACHE, NoKernelsError, library
from tests.kernels import kernels_or_skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    kernels_or_skip()
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_compiled_once(cache, monkeypatch):
    assert isinstance(library(), ctypes.CDLL)
    (built,) = cache.glob("kernels-*.so")
    before = built.stat().st_mtime_ns
    monkeypatch.setattr(compiled, "_compile", lambda *_: pytest.fail("compiled again"))
    library()
    assert built.stat().st_mtime_ns == before
    assert not built.stat().st_mode & 0o077
    assert sorted(p.name for p in cache.iterdir()) == [built.name, "lock"]


def test_no_compiler(cache, monkeypatch):
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NoKernelsError, match=r"no C\+\+ compiler found"):
        library()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NoKernelsError, match="no-such-compiler"):
        library()


def test_compiler_that_fails(cache, monkeypatch, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'internal error: out of patience' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(NoKernelsError, match="out of patience"):
        library()
    assert not list(cache.glob("kernels-*"))


def test_what_others_may_write_is_not_executed(cache):
    library()
    (built,) = cache.glob("kernels-*.so")
    built.chmod(0o722)
    with pytest.raises(NoKernelsError, match="not yours alone"):
        library()
    built.chmod(0o700)
    cache.chmod(0o777)
    with pytest.raises(NoKernelsError, match="not yours alone"):
        library()


def test_a_damaged_library_is_no_crash(cache, monkeypatch):
    def damaged(_compiler, path):
        path.write_bytes(b"\x7fELF nothing more")
        path.chmod(0o700)

    monkeypatch.setattr(compiled, "_compile", damaged)
    with pytest.raises(NoKernelsError, match="cannot be loaded"):
        library()


def test_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(NoKernelsError, match=f"no cache directory.*{CACHE}"):
        library()


def test_cache_that_cannot_be_written(cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # root's permissions are never refused
    with pytest.raises(NoKernelsError, match=f"cannot write.*{CACHE}"):
        library()
