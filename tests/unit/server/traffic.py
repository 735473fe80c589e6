"""One step of a main server on smashed data that are all there."""

from mocosfl_mpi.server.protocol import AtHand


def one_step(server, query, key, pool, *, answer=True, **options):
    """The gradient at ``query`` (None unless wanted) and the report."""
    traffic = AtHand(query, key)
    report = server.step(traffic, pool, answer=answer, **options)
    return traffic.gradient if answer else None, report
