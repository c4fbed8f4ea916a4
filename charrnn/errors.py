"""The expected failures of charrnn, each of them one line for a person.

CharrnnError                    something a user can understand and mend
├── SettingError                a value that an option or a field cannot have (the shell's exit 2)
├── FileError                   a file that cannot be read or written
│   ├── BusyError               a file that another process is writing
│   ├── CorpusError             a text that cannot be read, or not be trained on
│   └── ModelFileError          a model file that is missing, in the way or not a model
│       └── DamagedFileError    one that is not what was written
├── ResumeError                 a run that cannot go on as it was asked to
├── UnknownCharacterError       a text holds characters that the model never saw
├── DownloadError               a named corpus could not be fetched whole
├── MissingPackageError         an optional package that is not installed
└── TrainingError               the training itself failed (a loss that is no number)

Everything else that escapes is a defect of ours. Knows nothing of the rest of the package.
"""


class CharrnnError(Exception):
    """An expected failure: whose fault, why, and what to do.

    Args:
        subject: the file, option or text at fault.
        reason: what is wrong with it, in a few words.
        advice: what the user can do about it.
    """

    def __init__(self, subject: str, reason: str, advice: str) -> None:
        super().__init__(subject, reason, advice)
        self.subject = subject
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}; {self.advice}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory has run out; torch says so in words alone."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in told or "out of memory" in told


class SettingError(CharrnnError):
    """A value that a setting cannot have; the subject is the field's name in ``config/``."""


class FileError(CharrnnError):
    """A file that cannot be read or written; the subject is its path."""


class BusyError(FileError):
    """A file that another process is writing."""


class CorpusError(FileError):
    """A text that cannot be read, or not be trained on."""


class ModelFileError(FileError):
    """A model file, or a state, that is missing, foreign, in the way, or of another version."""


class DamagedFileError(ModelFileError):
    """A model file, or a state, whose bytes are not those that were written, or never were ours."""


class ResumeError(CharrnnError):
    """A run that cannot go on as it was asked to: something differs, or there is none; the subject names what."""


class UnknownCharacterError(CharrnnError):
    """A text holds characters that the model never saw; the reason names them with their code points."""


class DownloadError(CharrnnError):
    """A named corpus could not be fetched whole and as it should be; the subject is its address."""


class MissingPackageError(CharrnnError):
    """An optional package is not installed; the subject is the option that needs it."""


class TrainingError(CharrnnError):
    """The training failed in a way that only other settings can mend."""
