"""Damage to bytes, as hypothesis draws it: flips, overwritten spans, copied spans, insertions, cuts."""

from __future__ import annotations

from hypothesis import strategies as st


def mutations(size: int, hot: int | None = None, longest: int = 64) -> st.SearchStrategy[list[tuple]]:
    """One to four changes of ``size`` bytes; half of them within the first ``hot``, where structure is."""
    whole = st.integers(0, size - 1)
    place = whole if hot is None else st.one_of(st.integers(0, min(hot, size) - 1), whole)
    span = st.one_of(
        st.binary(min_size=1, max_size=longest),
        st.tuples(st.sampled_from([b"\x00", b"\xff", b"\x7f"]), st.integers(1, longest)).map(lambda t: t[0] * t[1]),
    )
    change = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("write"), place, span),
        st.tuples(st.just("copy"), place, place, st.integers(1, longest)),
        st.tuples(st.just("insert"), place, span),
        st.tuples(st.just("cut"), place),
    )
    return st.lists(change, min_size=1, max_size=4)


def mutate(content: bytes, changes: list[tuple]) -> bytes:
    """``content`` with the changes, one after the other; a place beyond the end changes nothing."""
    damaged = bytearray(content)
    for kind, place, *rest in changes:
        if place >= len(damaged):
            continue
        if kind == "flip":
            damaged[place] ^= 1 << rest[0]
        elif kind == "write":
            damaged[place : place + len(rest[0])] = rest[0]
        elif kind == "copy":
            source, length = rest
            part = damaged[source : source + length]
            damaged[place : place + len(part)] = part
        elif kind == "insert":
            damaged[place:place] = rest[0]
        else:
            del damaged[place:]
    return bytes(damaged)
