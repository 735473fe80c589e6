"""The ways in which a run ends early, each with one message for a person and an exit code."""

BAD_INPUT = 2
FAILURE = 1
NOT_MET = 3
"""What was asked for does not hold: a plan that does not fit, an audit's requirement."""
STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: not finished, try again."""


class BadInput(Exception):  # noqa: N818 - it names what the user gave, not a fault of the program
    """Something the user gave cannot be used: the message names the value, the reason and the remedy.

    The process exits with code 2, before any result is touched.
    """

    exit_code = BAD_INPUT


class RunFailed(Exception):  # noqa: N818
    """The run itself cannot go on (NaN loss, full disk): the message says what is safe and what to try.

    The process exits with code 1; rows flushed before stay readable.
    """

    exit_code = FAILURE


class Stopped(Exception):  # noqa: N818
    """The run was asked to stop and did, at a step boundary, with a checkpoint: the same command continues it.

    The process exits with code 75.
    """

    exit_code = STOPPED
