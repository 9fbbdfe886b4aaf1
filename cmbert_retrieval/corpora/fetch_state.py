"""What a fetch knows besides the files themselves; all of it can be lost, and is then asked for again."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cmbert_retrieval.corpora.fetch_files import WORK
from cmbert_retrieval.errors import CorpusError, StorageError
from cmbert_retrieval.storage import make_folder, writing

_TABLES = """
CREATE TABLE IF NOT EXISTS listed (number INTEGER PRIMARY KEY, version INTEGER, modified TEXT, etag TEXT);
CREATE TABLE IF NOT EXISTS left_out (number INTEGER PRIMARY KEY, version INTEGER, etag TEXT, license TEXT);
CREATE TABLE IF NOT EXISTS seen (name TEXT PRIMARY KEY, stamp TEXT, md5 TEXT);
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT);
"""
_COMMIT_EVERY = 500


@dataclass(frozen=True, slots=True)
class Listed:
    """A version of an article of PMC as its publisher lists it.

    Attributes:
        number: the digits of the PMCID.
        version: the version, None for the newest, which is still to be found out.
        modified: when its metadata changed last, as ISO 8601.
        etag: of its metadata, where that is an MD5.
    """

    number: int
    version: int | None
    modified: str = ""
    etag: str = ""

    @property
    def name(self) -> str:
        """As files are named: ``PMC123.1``, or ``PMC123`` for the newest version."""
        return f"PMC{self.number}" if self.version is None else f"PMC{self.number}.{self.version}"


class State:
    """The working folder of a fetch: one process at a time, and a small database in it."""

    def __init__(self, to: Path) -> None:
        """Make and lock ``to/.fetch``.

        Raises:
            CorpusError: another process fetches into this folder.
            StorageError: it cannot be written.
        """
        self.folder = to / WORK
        with writing(self.folder):
            make_folder(self.folder)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise CorpusError(
                f"{to}: another process is fetching into it; wait for its end, or name another folder"
            ) from None
        self._path = self.folder / "state.sqlite"
        self._changes = 0
        self._database = self._open()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with writing(self._path):
                self._database.commit()
        finally:
            self._database.close()
            os.close(self._lock)

    def _open(self) -> sqlite3.Connection:
        for last in (False, True):
            database = sqlite3.connect(self._path)
            try:
                with writing(self._path):
                    database.executescript(_TABLES)
                return database
            except sqlite3.DatabaseError as error:
                database.close()
                if last or isinstance(error, sqlite3.OperationalError):
                    raise StorageError(f"{self._path}: cannot be used ({error}); remove it") from None
                self._path.unlink()  # damaged: nothing in it that cannot be asked for again
        raise AssertionError  # for mypy: the loop has returned or raised

    # --- the articles that a publisher lists ---

    def list_articles(self, articles: Iterable[Listed], *, source: str) -> None:
        """Replace the list by another one; of several versions of an article the highest stays.

        Args:
            articles: in any order, millions of them.
            source: which list this is; ``listed_from`` returns it once the list is whole.
        """
        with writing(self._path):
            self._database.execute("DELETE FROM notes WHERE key = 'listed'")
            self._database.execute("DELETE FROM listed")
            self._database.executemany(
                "INSERT INTO listed VALUES (?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET version = "
                "excluded.version, modified = excluded.modified, etag = excluded.etag "
                "WHERE excluded.version > version",
                ((one.number, one.version, one.modified, one.etag) for one in articles),
            )
            self._database.execute("INSERT INTO notes VALUES ('listed', ?)", (source,))
            self._database.commit()

    def listed_from(self) -> str | None:
        """Return which list is here, or None."""
        row = self._database.execute("SELECT value FROM notes WHERE key = 'listed'").fetchone()
        return None if row is None else str(row[0])

    def count(self, since: str = "") -> int:
        """Return how many listed articles changed at ``since`` (ISO 8601) or later."""
        row = self._database.execute(
            "SELECT count(*) FROM listed WHERE modified >= ? OR modified = ''", (since,)
        ).fetchone()
        return int(row[0])

    def articles(self, since: str = "") -> Iterator[Listed]:
        """Yield the listed articles that changed at ``since`` or later, by number."""
        number = -1
        while True:  # in pieces: other statements commit in between
            rows = self._database.execute(
                "SELECT number, version, modified, etag FROM listed WHERE number > ? "
                "AND (modified >= ? OR modified = '') ORDER BY number LIMIT 1000",
                (number, since),
            ).fetchall()
            if not rows:
                return
            yield from (Listed(*row) for row in rows)
            number = rows[-1][0]

    # --- what was found out about single ones ---

    def leave_out(self, article: Listed, license_name: str) -> None:
        """Remember the licence of an article that was not fetched for it."""
        self._change(
            "INSERT OR REPLACE INTO left_out VALUES (?, ?, ?, ?)",
            (article.number, article.version, article.etag, license_name),
        )

    def left_out(self, number: int) -> tuple[int, str, str] | None:
        """Return version, ETag and licence of an article that an earlier run left out."""
        row = self._database.execute(
            "SELECT version, etag, license FROM left_out WHERE number = ?", (number,)
        ).fetchone()
        return None if row is None else (int(row[0]), str(row[1]), str(row[2]))

    def see(self, name: str, stamp: str, md5: str) -> None:
        """Remember a file that is in place: how it was listed, and its MD5."""
        self._change("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (name, stamp, md5))

    def seen(self, name: str, stamp: str) -> str:
        """Return the MD5 of a file that was listed like this when it was fetched, or ""."""
        row = self._database.execute(
            "SELECT md5 FROM seen WHERE name = ? AND stamp = ?", (name, stamp)
        ).fetchone()
        return "" if row is None else str(row[0])

    def _change(self, statement: str, values: tuple[object, ...]) -> None:
        with writing(self._path):
            self._database.execute(statement, values)
            self._changes += 1
            if self._changes % _COMMIT_EVERY == 0:
                self._database.commit()
