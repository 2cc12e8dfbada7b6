"""Every error hemascope raises on purpose, one tree.

    HemascopeError                 exit status 1
    ├── UsageError                 exit status 2: the call itself was wrong
    │   ├── ConfigError            an unknown key, a wrong type, a value out of range
    │   └── MissingExtraError      the feature needs an optional install
    ├── DataError
    │   ├── SourceError            a path that is missing or of no known format
    │   ├── ImageError             one image that cannot be read (has .reason)
    │   ├── StoreError             a packed store that is damaged or of another version
    │   ├── SplitError             a split that cannot be made or does not fit the data
    │   └── LedgerError            a ledger that cannot be read, contradicts itself or is of other cells
    ├── ModelError
    │   ├── WeightsError           no weights, or weights that do not fit the network
    │   └── BundleError            a bundle that is damaged, incomplete or changed
    ├── RunError                   a run folder that is missing, incomplete or of another run
    ├── TrainingError
    │   └── NonFiniteLossError     the loss stopped being a number
    └── OutputError                a result that could not be written

A message is one sentence or two: what was wrong, what was found, what to do. The command line prints
exactly that and nothing else, so no message may rely on a traceback to be understood.
"""

from __future__ import annotations


class HemascopeError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line exits with."""

    exit_code = 1


class UsageError(HemascopeError):
    """The call was wrong: a bad argument, an unknown name."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration with an unknown key, a wrong type or a value out of range."""


class MissingExtraError(UsageError):
    """A feature whose optional dependency is not installed; the message holds the install line."""


class DataError(HemascopeError):
    """Something about the images or their labels."""


class SourceError(DataError):
    """A path that does not exist, or whose format is not recognised or malformed."""


class ImageError(DataError):
    """One image that cannot be read.

    ``reason`` is the sentence without the file's name, for tables that have the name in a column.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason
        self.name = name


class StoreError(DataError):
    """A packed store that is damaged, half-written or of another version."""


class SplitError(DataError):
    """A split that cannot be made from these data, or a split file that does not fit them."""


class LedgerError(DataError):
    """A ledger that cannot be read, contradicts itself, or belongs to other cells."""


class ModelError(HemascopeError):
    """Something about a network or its weights."""


class WeightsError(ModelError):
    """No weights were found, or they do not fit the network."""


class BundleError(ModelError):
    """A model bundle that is damaged, incomplete, changed or of another version."""


class RunError(HemascopeError):
    """A run folder that is missing, incomplete or belongs to other data or settings."""


class TrainingError(HemascopeError):
    """Training could not go on."""


class NonFiniteLossError(TrainingError):
    """The loss stopped being finite; the message names the stage and the range of steps."""


class OutputError(HemascopeError):
    """A result could not be written: no permission, no space, or a path that is taken."""
