"""The expected errors of charrnn. The command line prints each one in a single line.

CharrnnError                    base class
├── SettingError                an option or a setting has an invalid value (exit code 2)
├── FileError                   a file cannot be read or written
│   ├── BusyError               another process is writing the file
│   ├── CorpusError             a text cannot be read or is not fit for training
│   └── ModelFileError          a model file is missing, exists already, or is not a model
│       └── DamagedFileError    a model file is damaged, or of another kind
├── ResumeError                 a run cannot be resumed with these options
├── UnknownCharacterError       a text contains characters that the model never saw
├── DownloadError               a corpus cannot be downloaded
├── MissingPackageError         an optional package is not installed
└── TrainingError               the training failed, for example because the loss is not finite

Any other exception is a bug, or means that memory, threads or open files have run out (`shortage`). `CacheWarning` is
the only warning.
"""

import errno
from typing import Literal

_MAX_SHOWN = 80  # characters of a value that an error message shows
_MEMORY_MESSAGES = (  # parts of the messages of torch, LLVM and the dynamic linker
    "allocate memory", "out of memory", "failed to map segment", "cannot create shared object descriptor",
)  # fmt: skip
_THREAD_MESSAGES = ("can't start new thread", "thread creation failed", "resource temporarily unavailable")


class CharrnnError(Exception):
    """Base class of all expected errors. The message is ``SUBJECT: reason; advice``.

    Args:
        subject: The file, option or text with the problem.
        reason: What is wrong.
        advice: What the user can do.
    """

    def __init__(self, subject: str, reason: str, advice: str) -> None:
        super().__init__(subject, reason, advice)
        self.subject = subject
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}; {self.advice}"


def describe_value(value: object) -> str:
    """Return a value as a short text for an error message."""
    try:
        text = str(value)
    except ValueError:  # an integer with more digits than Python converts
        return "a huge number"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def shortage(error: BaseException) -> Literal["memory", "threads", "open files"] | None:
    """Return what has run out, according to an error or its cause, or None if the error has another reason.

    Libraries raise errors of many types when something runs out. Some only say so in the message.
    """
    message, number = str(error).lower(), getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(map(message.__contains__, _MEMORY_MESSAGES)):
        return "memory"
    if number in (errno.EMFILE, errno.ENFILE):
        return "open files"
    if not isinstance(error, OSError) and any(map(message.__contains__, _THREAD_MESSAGES)):
        return "threads"
    cause = error.__cause__ or error.__context__
    return shortage(cause) if cause is not None and not isinstance(error, CharrnnError) else None


class SettingError(CharrnnError):
    """Invalid value of a setting. The subject is the name of its field in ``config/``."""


class FileError(CharrnnError):
    """File that cannot be read or written. The subject is its path."""


class BusyError(FileError):
    """File that another process is writing."""


class CorpusError(FileError):
    """Text that cannot be read or is not fit for training."""


class ModelFileError(FileError):
    """Model or state file that is missing, exists already, or cannot be used here."""


class DamagedFileError(ModelFileError):
    """Model or state file with damaged contents, or a file of another kind."""


class ResumeError(CharrnnError):
    """Run that does not exist or cannot be resumed with these options. The subject is the cause."""


class UnknownCharacterError(CharrnnError):
    """Text with characters that the model never saw. The reason lists them with their code points."""


class DownloadError(CharrnnError):
    """Corpus that cannot be downloaded, or that has changed. The subject is its URL."""


class MissingPackageError(CharrnnError):
    """Optional package that is not installed. The subject is the option that needs it."""


class TrainingError(CharrnnError):
    """Training that failed and needs other settings."""


class CacheWarning(UserWarning):
    """A cache file is damaged, or cannot be read or written, and is not used."""
