"""The errors a user can cause, each with the process exit code that names its kind."""

from __future__ import annotations


class EdjaxError(Exception):
    """Base of every error edjax raises on purpose: one line that says what, where and what to do.

    Exit codes: 0 done, 2 usage, 3 bad data, 4 locked by another run, 5 environment, 130 / 143 interrupted.
    """

    exit_code = 1


class UsageError(EdjaxError):
    """The call itself is off: an unknown strategy, a budget beyond the pool, settings that contradict."""

    exit_code = 2


class DataError(EdjaxError):
    """A file does not hold what it should: a malformed line, a missing column, a damaged artefact."""

    exit_code = 3


class LockedError(EdjaxError):
    """Another process writes this run directory."""

    exit_code = 4


class EnvError(EdjaxError):
    """Something the machine should provide is missing: a model, a package, the network, disk space."""

    exit_code = 5
