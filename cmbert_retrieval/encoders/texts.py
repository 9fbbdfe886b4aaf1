"""Texts that every tokenizer takes."""

from __future__ import annotations

from collections.abc import Sequence

from cmbert_retrieval.errors import ConfigError


def check_texts(texts: Sequence[str]) -> None:
    """Check that ``texts`` are texts, before a tokenizer says so in words of its own.

    Raises:
        ConfigError: one string, or something in the sequence that is no string or holds half a character
            (a lone surrogate, which has no UTF-8). Its position is named, the text is not.
    """
    if isinstance(texts, str):
        raise ConfigError("got one string; expected a sequence of texts: pass [text]")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(
                f"text {position} (from 0) is a {type(text).__name__}; expected a string, "
                "empty where there is none"
            )
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ConfigError(
                    f"text {position} (from 0) has a lone surrogate at character {error.start}; expected "
                    "text that UTF-8 can hold. Replace it: text.encode('utf-8', 'replace').decode()"
                ) from None


def beginning(text: str, characters: int) -> str:
    """Return whole words from the beginning of a text: at most so many characters, or all where none fit."""
    if len(text) <= characters:
        return text
    # Not all that Python calls white space ends a word for every tokenizer.
    end = max(text.rfind(mark, 0, characters) for mark in (" ", "\n"))
    return text[:end].rstrip(" \n") or text if end > 0 else text
