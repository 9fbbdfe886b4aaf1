"""Running the real command and ending it at chosen moments; and telling what it left on the disk.

Nothing here reaches into the product: commands run in processes of their own, are killed from outside, and
what they left is read the way any user reads it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CmbertError
from cmbert_retrieval.indexes.locks import commit_name
from cmbert_retrieval.indexes.manifest import MANIFEST, Manifest, read_manifest
from cmbert_retrieval.indexes.pins import PINS
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.shard_files import ShardedVectors, shard_paths
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.retriever import Retriever

COMMAND = [sys.executable, "-m", "cmbert_retrieval"]
RENAMES = "?rename,renameat,renameat2"  # not every machine has the old calls: strace passes over "?"
QUERIES = (
    "fever and cough in winter",
    "broken left wrist",
    "insulin dose for diabetes",
    "patient with acute kidney failure and high blood pressure",
    "d17",
)
_NOUNS = (
    "fever cough pain heart kidney lung bone fracture wrist insulin diabetes aspirin placebo patient".split()
)
_OTHERS = (
    "acute chronic left right high low with without before after in of severe mild old new renal".split()
)


def environment() -> dict[str, str]:
    """Return the environment of all commands: one thread, so that equal texts give equal bytes."""
    return {**os.environ, "CMBERT_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


# --- documents ---


def invented(numbers: Sequence[int], *, seed: int) -> list[dict[str, Any]]:
    """Return one invented document a number, one in 40 of them long; always the same ones."""
    documents = []
    for number in numbers:
        draw = random.Random(f"{seed} {number}")
        words = draw.choices(_NOUNS, k=8) + draw.choices(_OTHERS, k=6)
        draw.shuffle(words)
        sentences = 1 if number % 40 else 30
        text = " ".join(f"{' '.join(draw.sample(words, k=9)).capitalize()}." for _ in range(sentences))
        title = " ".join(draw.sample(_NOUNS, k=3))
        documents.append({"id": f"d{number}", "title": title, "text": text, "year": 2000 + number % 25})
    return documents


def write_corpus(path: Path, documents: Sequence[Mapping[str, Any]]) -> Path:
    """Write documents as JSON lines."""
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


# --- commands ---


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended; ``code`` is negative for a signal."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """What it printed with ``--json``."""
        return dict(json.loads(self.out))


def start(
    arguments: Sequence[str], *, prefix: Sequence[str] = (), largest_file: int | None = None
) -> subprocess.Popen[str]:
    """Start ``cmbert ARGUMENTS`` in a process group of its own."""

    def limited() -> None:
        assert largest_file is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.Popen(
        [*prefix, *COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        preexec_fn=limited if largest_file is not None else None,
    )


def finish(process: subprocess.Popen[str], *, timeout: float = 120) -> Ended:
    """Wait for the end of a command, however it comes."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return Ended(process.returncode, out, err)


def kill(process: subprocess.Popen[str], *, with_signal: int = signal.SIGKILL) -> None:
    """Send a signal to the whole group of a command."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, with_signal)


def run(*arguments: str, largest_file: int | None = None) -> Ended:
    """Run a command to its end."""
    return finish(start(arguments, largest_file=largest_file))


def run_and_kill(arguments: Sequence[str], seconds: float) -> Ended:
    """Run a command and kill it after so many seconds, unless it has ended by then."""
    return _killed_after(start(arguments), seconds)


def _killed_after(process: subprocess.Popen[str], seconds: float) -> Ended:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        return finish(process)
    return Ended(process.returncode, out, err)


@functools.cache
def why_no_strace() -> str:
    """Return why strace cannot be used here, or ""."""
    if not sys.platform.startswith("linux"):
        return "strace is a tool of Linux"
    if shutil.which("strace") is None:
        return "there is no strace (Debian, Ubuntu: apt install strace)"
    tried = ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=rename", "true"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return f"strace may not trace here: {done.stderr.strip()[:200]}" if done.returncode else ""


def run_and_kill_at(arguments: Sequence[str], calls: str, *paths: Path, when: int = 1) -> Ended:
    """Run a command and kill it as it enters a system call, which then does not happen.

    Args:
        arguments: of the command.
        calls: names of system calls, separated by commas.
        paths: only calls on one of these files.
        when: the how-manyth such call of a thread.
    """
    chosen = [part for path in paths for part in ("-P", str(path))]
    # Without --seccomp-bpf, which is faster: strace 6.1 injects nothing with it.
    prefix = ["strace", "-f", "-o", os.devnull, *chosen, "-e", f"trace={calls}"]
    prefix += ["-e", f"inject={calls}:signal=KILL:when={when}"]
    return finish(start(arguments, prefix=prefix))


def run_slowed_and_kill(
    arguments: Sequence[str], calls: str, *paths: Path, delay: float, begins: Path, seconds: float
) -> Ended:
    """Run a command, some of whose system calls wait before they happen, and kill it in that stretch.

    What lasts microseconds is never hit by chance; stretched, any moment of it can be.

    Args:
        arguments: of the command.
        calls: names of system calls, separated by commas.
        paths: only calls on one of these files.
        delay: how many seconds each of them waits.
        begins: the file or folder with whose appearance the stretch begins.
        seconds: how long after that the command is killed, unless it has ended by then.
    """
    chosen = [part for path in paths for part in ("-P", str(path))]
    prefix = ["strace", "-f", "-o", os.devnull, *chosen, "-e", f"trace={calls}"]
    prefix += ["-e", f"inject={calls}:delay_enter={round(1e6 * delay)}"]
    process = start(arguments, prefix=prefix)
    while not begins.exists() and process.poll() is None:
        time.sleep(0.002)
    return _killed_after(process, seconds)


# --- what is on the disk ---


@dataclass(frozen=True)
class State:
    """What an index holds: live row -> (id, document's texts, indexed text), and the rows' vectors."""

    rows: Mapping[int, tuple[str, str, str]]
    vectors: bytes

    @classmethod
    def of(cls, root: Path) -> State:
        """Read the last commit."""
        with IndexReader(root) as reader:
            return cls.of_reader(reader)

    @classmethod
    def of_reader(cls, reader: IndexReader) -> State:
        """Read an open commit."""
        rows: dict[int, tuple[str, str, str]] = {}
        for segment in reader.segments:
            live = set(reader.live_rows(segment).tolist())
            sql = "SELECT document, id, title || ' ' || text || metadata FROM documents"
            documents = {number: (id_, text) for number, id_, text in segment.documents.query(sql)}
            for row in segment.documents.read_rows():
                if row.row in live:
                    rows[row.row] = (*documents[row.document], row.text)
        numbers = np.array(sorted(rows), dtype=np.int64)
        vectors = reader.vectors(numbers).tobytes() if reader.manifest.encoder else b""
        return cls(rows, vectors)

    def ids(self) -> list[str]:
        """Return the ids of the documents, in the order of their rows, each once."""
        return list(dict.fromkeys(id_ for id_, _, _ in self.rows.values()))

    def texts(self) -> dict[str, tuple[str, list[str]]]:
        """Return the documents whatever their row numbers: id -> (text, texts of its rows)."""
        texts: dict[str, tuple[str, list[str]]] = {}
        for _, (id_, text, indexed) in sorted(self.rows.items()):
            texts.setdefault(id_, (text, []))[1].append(indexed)
        return texts


def answers(root: Path, encoder: Encoder | None, *, k: int = 100) -> dict[str, list[tuple[str, float]]]:
    """Return the best ``k`` documents with their scores for some queries in each mode."""
    with Retriever(IndexReader(root), encoder) as retriever:
        modes = ("lexical", "dense", "hybrid") if encoder is not None else ("lexical",)
        queries = {str(number): text for number, text in enumerate(QUERIES)}
        found = {}
        for mode in modes:
            for number, scores in retriever.run(queries, k=k, mode=mode).items():
                found[f"{mode} {number}"] = list(scores.items())
        return found


def commit_of(root: Path) -> int:
    """Return the number of the last commit, 0 where there is none."""
    return read_manifest(root).commit if (root / MANIFEST).exists() else 0


def problems(root: Path) -> list[str]:
    """Return what ``verify`` finds; nothing where there is no index yet."""
    return verify(root).problems if commit_of(root) else []


def unfinished(root: Path) -> list[Path]:
    """Return the folders of segments that are under construction, or built and not committed."""
    named = {entry.name for entry in read_manifest(root).segments} if commit_of(root) else set()
    return sorted(path.parent for path in root.glob(f"segments/*/{PINS}") if path.parent.name not in named)


def stored_rows(folder: Path) -> int:
    """Return how many rows have their vectors in complete shard files."""
    return len(ShardedVectors(shard_paths(folder)))


BEGINNING = "before the first shard"
SHARDS = "after the first shard"
MERGING = "while merging"
WORDS = "while words are written"
LAST = "between words and the last fsync"
RENAME = "between the last fsync and the rename"
DONE = "after the commit"
PHASES = (BEGINNING, SHARDS, MERGING, WORDS, LAST, RENAME, DONE)


def phase(root: Path, commit: int) -> str:
    """Return what a command that began at ``commit`` was doing when it was killed, from what lies there."""
    following = commit_name(commit + 1)
    if commit_of(root) > commit:
        return DONE
    temporary = root / f"{MANIFEST}.tmp"
    if temporary.exists():
        try:
            Manifest.from_bytes(temporary.read_bytes(), temporary)
        except CmbertError:
            return LAST
        return RENAME
    if list(root.glob(f"commits/{following}*")) or list(root.glob(f"deleted/{following}*")):
        return LAST
    named = {entry.name for entry in read_manifest(root).segments} if commit else set()
    building = unfinished(root)
    merged = [
        path
        for path in root.glob("segments/*")
        if path.name.isdigit() and path.name not in named and not (path / PINS).exists()
    ]
    if merged and not (root / "lexical" / following).exists():
        return MERGING
    if (root / "lexical" / following).exists():
        return WORDS
    return SHARDS if any(stored_rows(folder) for folder in building) else BEGINNING


@contextlib.contextmanager
def copied(root: Path | None, target: Path) -> Iterator[Path]:
    """Copy an index (None: nothing yet) to ``target``, and remove it afterwards."""
    if root is not None:
        shutil.copytree(root, target)
    try:
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)
