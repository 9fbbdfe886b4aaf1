"""PubMed's update files, brought into an index in their order, each once.

An index knows by the names and checksums of its sources which files it has had. A file that follows on the
last one is applied; one that was applied already is passed over; all else would lose revisions or put old
ones back, and is refused unless it is forced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora.files import existing, file_source
from cmbert_retrieval.corpora.pubmed import PubmedCorpus
from cmbert_retrieval.corpora.pubmed_files import FileNumber, file_number, list_pubmed
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import CorpusError, IndexMismatchError
from cmbert_retrieval.indexes.manifest import Manifest, read_manifest
from cmbert_retrieval.indexes.report import Report
from cmbert_retrieval.indexes.shards import Notify
from cmbert_retrieval.indexes.writer import IndexWriter, silent

_FORCE = "or add --force to apply it nevertheless"


@dataclass(frozen=True, slots=True)
class Update:
    """A file that was asked for.

    Attributes:
        path: the file.
        applied: whether the index has had it already.
        report: what applying it did; None where that has not happened.
    """

    path: Path
    applied: bool = False
    report: Report | None = None


def plan_updates(
    root: Path, manifest: Manifest, files: Sequence[str | Path], *, force: bool = False
) -> list[Update]:
    """Return the files in the order in which they are to be applied; nothing is changed.

    Numbered files come by their number, the others behind them as they were given.

    Args:
        root: the index's folder, for the messages.
        manifest: its last commit.
        files: of PubMed, or folders of them.
        force: take files that do not follow on what was applied.

    Raises:
        IndexMismatchError: the index is not one of PubMed, or a file does not follow on what was applied.
        CorpusError: a file is not there.
    """
    reader = manifest.recipe["source"]["reader"]
    if reader != PubmedCorpus.reader:
        raise IndexMismatchError(
            f"{root} was built by the reader '{reader}' and has no updates of PubMed; "
            f"add documents to it with: cmbert index add {root} --from READER:PATH"
        )
    history = _History(manifest, force=force)
    return [Update(path, applied=not history.take(path)) for path in _in_order(files)]


def update_index(
    root: str | Path,
    files: Sequence[str | Path],
    encoder: Encoder | None,
    *,
    force: bool = False,
    strict: bool = False,
    restart: bool = False,
    notify: Notify = silent,
) -> list[Update]:
    """Apply update files of PubMed to an index that was built from PubMed; each ends in a commit of its own.

    A record takes the place of the one with its PMID, and what a file deletes goes. If all files cannot be
    applied, none is. Killed, the same call goes on where it stopped.

    Args:
        root: the index's folder.
        files: ``pubmed26n1500.xml.gz`` and its like, or folders of them, in any order.
        encoder: the index's encoder; None where it holds words only.
        force: apply files that do not follow on what was applied: behind a gap, older ones, a changed one.
        strict: stop at the first record that cannot be used.
        restart: throw away what an unfinished run did.
        notify: called with a phase and how many more are done.

    Returns:
        the files in the order of their application, with what each of them did.

    Raises:
        IndexMismatchError: a file does not follow on what was applied, or another encoder than the index's.
        CorpusError: a file is not there, not PubMed's, or damaged; those before it have been applied.
    """
    root = Path(root)
    read_manifest(root)  # a writer would make the folder
    done = []
    with IndexWriter(root, notify=notify) as writer:
        manifest = read_manifest(root)
        options = IndexRecipe.from_json(manifest.recipe).source.options
        for update in plan_updates(root, manifest, files, force=force):
            report = None
            if not update.applied:
                corpus = PubmedCorpus(update.path, **options)
                report = writer.update(corpus, encoder, strict=strict, restart=restart)
            done.append(Update(update.path, update.applied, report))
    return done


def _in_order(files: Sequence[str | Path]) -> list[Path]:
    paths: list[Path] = []
    for file in files:
        path = existing(file)
        names = list_pubmed(path)
        if not names:
            raise CorpusError(f"{file}: no .xml or .xml.gz file found; expected those of PubMed")
        paths += [path] if path.is_file() else [path / name for name in names]
    numbered = [(number, path) for path in paths if (number := file_number(path.name))]
    others = [path for path in paths if file_number(path.name) is None]
    return [path for _, path in sorted(numbered)] + others


class _History:
    """The files that an index has had, and those that are about to be applied."""

    def __init__(self, manifest: Manifest, *, force: bool) -> None:
        self._force = force
        # Not by the content alone: two days may have the same deletions, or nothing at all.
        self._applied = {
            (file_number(str(source["path"])), str(source["checksum"])) for source in manifest.sources
        }
        self._numbers = {number for number, _ in self._applied if number is not None}

    def take(self, path: Path) -> bool:
        """Note that a file is applied next; return False where it was applied already.

        Raises:
            IndexMismatchError: it does not follow on the last one.
        """
        number = file_number(path.name)
        file = (number, file_source(path, str(path)).checksum)
        if file in self._applied:
            return False
        reason = "" if self._force else self._objection(number)
        if reason:
            raise IndexMismatchError(f"{path.name}: {reason}")
        self._applied.add(file)
        if number is not None:
            self._numbers.add(number)
        return True

    def _objection(self, number: FileNumber | None) -> str:
        """Return why a file may not be applied next, or ""."""
        last = max(self._numbers, default=None)
        if number is None:
            return (
                "its name has no number, so its place among the updates is not known; "
                f"expected a name like pubmed26n1500.xml.gz, {_FORCE}"
            )
        if last is None:
            return (
                "the files that the index was built from have no numbers, so it is not known whether this "
                f"one follows on them; build it from PubMed's baseline, {_FORCE}"
            )
        if number.year > last.year:
            return (
                f"is of 20{number.year:02d}, the index of 20{last.year:02d} (last: {last}); a new year's "
                f"baseline replaces all before it: build a new index from that, {_FORCE}"
            )
        if number in self._numbers:
            return (
                "a file of this number with another content (checksum) was applied already; "
                f"compare it with what PubMed publishes, {_FORCE}"
            )
        if number < last:
            return (
                f"is older than {last}, which was applied, and would put old revisions back; "
                f"leave it out, {_FORCE}"
            )
        if number.number > last.number + 1:
            first, until = (FileNumber(last.year, n) for n in (last.number + 1, number.number - 1))
            missing = f"{first} has" if first == until else f"{first} to {until} have"
            return f"{missing} not been applied (the last was {last}); give that file as well, {_FORCE}"
        return ""
