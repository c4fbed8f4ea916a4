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

Any other exception is a bug. `CacheWarning` is the only warning.
"""

_MAX_SHOWN = 80  # characters of a value that an error message shows


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
    except ValueError:  # an integer with so many digits that Python does not print it
        return "a huge number"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out. Some torch errors say so only in their message."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in message or "out of memory" in message


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
    """A cache file is damaged or cannot be written; it is made again."""
