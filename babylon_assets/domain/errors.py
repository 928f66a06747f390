"""The error tree. Callers care for the branch: permanent (a person must act) or transient (try again).

    BabylonError
    ├── PermanentError          trying again changes nothing; the message ends with what to do
    │   ├── SettingsError       a setting is wrong, or does not fit what it points at
    │   │   └── InvalidSetting  the text of a setting is none that is allowed
    │   ├── NoWindow            a text that should name a window does not
    │   ├── SourceError         the game's tables are missing or are not what is expected
    │   ├── MissingDependency   a package or program is not installed
    │   ├── BaseModelRefused    the base model cannot be trained or would not learn
    │   ├── ChainConflict       another checkpoint already stands where this one should
    │   └── CorruptLedger       our own tables contradict themselves
    └── TransientError          the same call may succeed later
        ├── DatabaseUnavailable the server does not answer
        ├── RegistryUnavailable a package registry or model hub does not answer
        └── TrainingBusy        another run is training this chain

Nothing here logs, retries or exits; who catches decides that.
"""

from __future__ import annotations


class BabylonError(Exception):
    """Any failure that this product names. The message is written for a person and never holds a secret."""


def explain_failure(error: BaseException) -> str:
    """A failure in words for a person: the sentence of an error of ours, and what any other error is and says."""
    return str(error) if isinstance(error, BabylonError) else f"{type(error).__name__}: {error}"


class PermanentError(BabylonError):
    """Trying again changes nothing until a person acts; the message ends with what to do."""


class SettingsError(PermanentError):
    """A setting is malformed, out of range, or refused by what it points at."""


class InvalidSetting(SettingsError):
    """The text of a setting is none of those that are allowed."""


class NoWindow(PermanentError):
    """A text that should be the id of a window is none, or is one of another length."""


class SourceError(PermanentError):
    """The game's tables are missing or have another form than the one this product reads."""


class MissingDependency(PermanentError):
    """A package or a program is not installed or cannot run here."""

    @classmethod
    def of(cls, error: ModuleNotFoundError) -> MissingDependency:
        """The failed import of somebody else's package as a message that says what to install."""
        package = (error.name or str(error)).partition(".")[0]
        return cls(f"the package {package} is not installed; type: pip install 'babylon_assets[embedded]'")


class BaseModelRefused(PermanentError):
    """The base model cannot be trained by the chosen backend, or acts no better than chance."""


class ChainConflict(PermanentError):
    """A checkpoint already has this parent, step or window in its chain."""


class CorruptLedger(PermanentError):
    """Rows of our own tables contradict each other or cannot be decoded."""


class TransientError(BabylonError):
    """The same call may succeed later."""


class DatabaseUnavailable(TransientError):
    """PostgreSQL does not answer, or went away in the middle."""


class RegistryUnavailable(TransientError):
    """A package registry or a model hub does not answer, or its answer broke off."""


class TrainingBusy(TransientError):
    """Another run holds the lock of this chain."""
