"""The errors that users see: each says what was got, what was expected and what to do."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text for one line of a message: what cannot be printed is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class CmbertError(Exception):
    """Any error that this library raises on purpose; its text is one printable line, whatever it names."""

    def __str__(self) -> str:
        """Return the message."""
        return printable(super().__str__())


class ConfigError(CmbertError, ValueError):
    """A recipe, an option or an argument is wrong."""


class CorpusError(CmbertError):
    """A source cannot be read: absent, of another format, or broken and read with ``strict``."""


class EncoderError(CmbertError):
    """An encoder cannot be loaded, or its output is not usable."""


class IndexMismatchError(CmbertError, ValueError):
    """An index and what meets it (an encoder, vectors, a build to resume) do not fit together."""


class IndexCorruptError(CmbertError):
    """Files of an index are missing, changed or inconsistent with each other."""


class IndexLockedError(CmbertError):
    """Another process is writing to the index."""


class StorageError(CmbertError, OSError):
    """A file cannot be written: the disk is full, a limit was reached, or it is not ours to write."""


class MissingExtraError(CmbertError, ImportError):
    """A feature needs an optional package. The message holds the pip command.

    Attributes:
        needs: the message without what may be done instead, which depends on what was asked for.
    """

    def __init__(self, needs: str, instead: str = "") -> None:
        """Say what is needed, and what does without."""
        super().__init__(f"{needs}; {instead}" if instead else needs)
        self.needs = needs

    @classmethod
    def of(cls, feature: str, package: str, extra: str) -> MissingExtraError:
        """Return the error for a ``feature`` that needs ``package`` out of our extra ``extra``."""
        return cls(f"{feature} needs the package '{package}': pip install \"cmbert-retrieval[{extra}]\"")
