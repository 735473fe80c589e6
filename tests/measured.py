"""FLOPs and memory of a network are counted once in a process: most tests have the same few networks.

To count a small network takes longer than to train it for the steps of a test. What is remembered belongs to all that
the count can depend on: every module with its plain attributes, every tensor's shape and type, the input's shape. The
counts themselves are tested without this (tests/unit/cost).
"""

from __future__ import annotations

from mocosfl_mpi import parts, results
from mocosfl_mpi.cost import flops, memory
from mocosfl_mpi.plan import segment

PLAIN = (bool, int, float, str, tuple, type(None))


def structure(module):
    """All that tells one network from another, but the numbers in its weights."""
    modules = tuple(
        (name, type(part), tuple(sorted((k, repr(v)) for k, v in vars(part).items() if isinstance(v, PLAIN))))
        for name, part in module.named_modules()
    )
    tensors = tuple((name, tuple(p.shape), p.dtype, p.requires_grad) for name, p in module.named_parameters())
    return modules, tensors, tuple((name, tuple(b.shape), b.dtype) for name, b in module.named_buffers())


def _once(measure):
    known = {}

    def remembering(module, *shape_and_use, **named):
        key = structure(module), shape_and_use, tuple(sorted(named.items()))
        if key not in known:
            known[key] = measure(module, *shape_and_use, **named)
        return known[key]

    return remembering


class _Memory:
    """``cost.memory`` for whoever uses it as a module."""

    measure = staticmethod(_once(memory.measure))
    both_ends = staticmethod(memory.both_ends)


def once():
    """Let every run and plan of this process ask for each network once."""
    counted = _once(flops.measure)
    parts.measure = results.measure = segment.measure = counted
    results.memory = segment.memory = _Memory
