"""The table behind the tests of bad input: what every reader reads, what can be wrong, and what may follow.

Run as a program, this reads cells of the table from stdin and tells what became of each: in a process of its
own, with bounds on time and memory, a reader that hangs or blows up ends that process and not the tests.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from articles import article
from code_systems import HCPCS, ICD9_DX, INDEX, MESH, MESH_ASCII, OBO, OBOGRAPHS, ORDER_CM, ORDER_PCS
from pubmed_records import article as pubmed_article
from pubmed_records import article_set, deletion

from cmbert_retrieval.corpora import guess_reader, open_corpus
from cmbert_retrieval.corpora.base import Record
from cmbert_retrieval.errors import CmbertError, printable

SECRET = "Zorgl"
"""Stands in the text of every sample, and may stand in no message. As long as what it takes the place of."""

SECONDS = 10
MEGABYTES = 300

TABULAR = """<?xml version="1.0" encoding="utf-8"?>
<ICD10CM.tabular><version>2031</version>
  <chapter><name>1</name><desc>Gardens (G00-G09)</desc>
    <section id="G00-G09"><desc>Cracks (G00-G09)</desc>
      <diag><name>G00</name><desc>Crack of gnome</desc><includes><note>rift of gnome</note></includes>
        <diag><name>G00.1</name><desc>Crack of hat</desc></diag></diag>
      <diag><name>G09</name><desc>Chip of gnome</desc></diag>
    </section>
  </chapter>
</ICD10CM.tabular>
"""
LINES = "".join(
    json.dumps({"_id": f"d{n}", "title": "A", "text": f"The {SECRET} {n}"}) + "\n" for n in (1, 2, 3)
)


@dataclass(frozen=True)
class Sample:
    """A small valid corpus.

    Attributes:
        reader: the reader that reads it.
        name: of its file.
        data: of its file.
        id: as it stands in the file.
        is_folder: the corpus is the folder that the file lies in.
    """

    reader: str
    name: str
    data: bytes
    id: bytes
    is_folder: bool = False


def _marked(text: str) -> bytes:
    return text.replace("gnome", SECRET).replace("Gnome", SECRET).encode()


def tar(*members: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


SAMPLES = {
    "beir": Sample("beir", "corpus.jsonl", LINES.encode(), b"d2", is_folder=True),
    "hcpcs": Sample("hcpcs", "HCPC2031_JAN_ANWEB.txt", _marked(HCPCS), b"A0001"),
    "hcpcs table": Sample(
        "hcpcs", "codes.csv", f'HCPC,LONG DESCRIPTION\nA0001,"{SECRET}, red"\nA0002,Hat\n'.encode(), b"A0001"
    ),
    "icd10cm": Sample("icd10cm", "tabular.xml", _marked(TABULAR), b"G00.1"),
    "icd10cm_index": Sample("icd10cm_index", "icd10cm_index_2031.xml", _marked(INDEX), b"G00.1"),
    "icd10cm_order": Sample("icd10cm_order", "icd10cm_order_2031.txt", _marked(ORDER_CM), b"G00101A"),
    "icd10pcs": Sample("icd10pcs", "icd10pcs_order_2031.txt", _marked(ORDER_PCS), b"0G10AZZ"),
    "icd9cm": Sample("icd9cm", "CMS32_DESC_LONG_DX.txt", _marked(ICD9_DX), b"0010"),
    "jsonl": Sample("jsonl", "a.jsonl", LINES.encode(), b"d2"),
    "mesh": Sample("mesh", "desc2031.xml", _marked(MESH), b"D900001"),
    "mesh ASCII": Sample("mesh", "d2031.bin", _marked(MESH_ASCII), b"D900001"),
    "notes": Sample(
        "notes", "discharge.csv", f'note_id,text\nd1,"The {SECRET}\nfell"\nd2,"{SECRET}"\n'.encode(), b"d2"
    ),
    "ontology": Sample("ontology", "gno.obo", _marked(OBO), b"GNO:0000001"),
    "obographs": Sample("ontology", "gno.json", _marked(json.dumps(OBOGRAPHS)), b"GNO_0000001"),
    "pmc": Sample("pmc", "a.xml", article(5, f"The {SECRET} fell."), b">5<"),
    "pmc archive": Sample(
        "pmc",
        "a.tar",
        tar(*[(f"PMC/PMC{n}.xml", article(n, f"The {SECRET} fell.")) for n in (5, 6, 7)]),
        b">5<",
    ),
    "pubmed": Sample(
        "pubmed",
        "pubmed31n0001.xml",
        article_set(pubmed_article(1, f"The {SECRET}"), deletion(9), pubmed_article(2, "fell.")),
        b">1<",
    ),
    "trec": Sample(
        "trec",
        "a.trec",
        "".join(f"<DOC><DOCNO>d{n}</DOCNO><TEXT>The {SECRET}</TEXT></DOC>\n" for n in (1, 2)).encode(),
        b"d2",
    ),
    "smart": Sample("trec", "med.all", f".I 1\n.T\nA\n.W\nThe {SECRET}\n.I 2\n.W\nfell\n".encode(), b".I 2"),
    "datasets": Sample("datasets", "a.jsonl", LINES.encode(), b"d2", is_folder=True),
    "datasets CSV": Sample(
        "datasets",
        "a.csv",
        f'_id,text\nd1,"The {SECRET}\nfell"\nd2,"{SECRET}"\n'.encode(),
        b"d2",
        is_folder=True,
    ),
    "datasets Parquet": Sample("datasets", "a.parquet", b"", b"d2", is_folder=True),
    "datasets Arrow": Sample("datasets", "a.arrow", b"", b"d2", is_folder=True),
    "parquet": Sample("parquet", "a.parquet", b"", b"d2"),
}
WITH_AN_EXTRA = tuple(row for row in SAMPLES if row.startswith(("datasets", "parquet")))


def sample(row: str) -> Sample:
    """Return the sample of a row; those of Parquet and Arrow are written where they are asked for."""
    found = SAMPLES[row]
    if found.data:
        return found
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = io.BytesIO()
    table = pa.Table.from_pylist([json.loads(line) for line in LINES.splitlines()])
    if found.name.endswith(".parquet"):
        pq.write_table(table, packed)
    else:
        with pa.ipc.new_stream(packed, table.schema) as writer:
            writer.write_table(table)
    return Sample(found.reader, found.name, packed.getvalue(), found.id, found.is_folder)


# --- faults: each writes a corpus that is wrong in one way and returns the path to give to the reader ---

Fault = Callable[[Sample, Path], Path]


def _write(one: Sample, folder: Path, data: bytes, name: str | bytes = "") -> Path:
    path = folder / os.fsdecode(name or one.name)
    path.write_bytes(data)
    return folder if one.is_folder and os.fsencode(path.name).startswith(one.name.encode()) else path


def _changed(change: Callable[[bytes], bytes]) -> Fault:
    return lambda one, folder: _write(one, folder, change(one.data))


def _packed(change: Callable[[bytes], bytes]) -> Fault:
    return lambda one, folder: _write(one, folder, change(gzip.compress(one.data, mtime=0)), f"{one.name}.gz")


def _named(name: bytes, change: Callable[[bytes], bytes] = bytes) -> Fault:
    def write(one: Sample, folder: Path) -> Path:
        suffix = one.name[one.name.index(".") :].encode()
        return _write(one, folder, change(one.data), name[: 255 - len(suffix)] + suffix)

    return write


def _text(instead: bytes) -> Fault:
    return _changed(lambda data: data.replace(SECRET.encode(), instead))


def _id(instead: bytes) -> Fault:
    def write(one: Sample, folder: Path) -> Path:
        inside = one.id.strip(b"<>").removeprefix(b".I ")
        return _write(one, folder, one.data.replace(one.id, one.id.replace(inside, instead)))

    return write


def _bomb(part: bytes, before: bool = False) -> Fault:
    def write(one: Sample, folder: Path) -> Path:
        block = gzip.compress(part * (2**24 // len(part)), mtime=0)
        start = gzip.compress(one.data[: len(one.data) // 2], mtime=0) if before else b""
        return _write(one, folder, start + block * 25, f"{one.name}.gz")

    return write


def _folder(one: Sample, folder: Path) -> Path:
    (folder / one.name).mkdir()
    return folder if one.is_folder else folder / one.name


def _file(one: Sample, folder: Path) -> Path:
    (folder / one.name).write_bytes(one.data)
    return folder / one.name


def _only_folder(one: Sample, folder: Path) -> Path:
    (folder / one.name).write_bytes(one.data)
    return folder


def _pipe(one: Sample, folder: Path) -> Path:
    os.mkfifo(folder / one.name)
    return folder if one.is_folder else folder / one.name


def _packed_pipe(one: Sample, folder: Path) -> Path:
    os.mkfifo(folder / f"{one.name}.gz")
    return folder if one.is_folder else folder / f"{one.name}.gz"


def _pipe_in_folder(one: Sample, folder: Path) -> Path:
    os.mkfifo(folder / one.name)
    return folder


def _device(one: Sample, folder: Path) -> Path:
    (folder / one.name).symlink_to("/dev/zero")
    return folder if one.is_folder else folder / one.name


def _loop(one: Sample, folder: Path) -> Path:
    (folder / one.name).symlink_to(one.name)
    return folder if one.is_folder else folder / one.name


def _loop_of_folders(one: Sample, folder: Path) -> Path:
    (folder / "loop").symlink_to(folder)
    (folder / one.name).write_bytes(one.data)
    return folder


def _unreadable(one: Sample, folder: Path) -> Path:
    (folder / one.name).write_bytes(one.data)
    (folder / one.name).chmod(0)
    return folder if one.is_folder else folder / one.name


def _prolog(doctype: str, text: bytes) -> Fault:
    def change(data: bytes) -> bytes:
        data = data.replace(SECRET.encode(), text)
        if not data.startswith(b"<?xml"):
            return doctype.encode() + data
        end = data.index(b"?>") + 2
        rest = data[end:]
        if b"<!DOCTYPE" in rest:
            rest = rest[rest.index(b">", rest.index(b"<!DOCTYPE")) + 1 :]
        return data[:end] + doctype.encode() + rest

    return _changed(change)


def _parts(one: int, of: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: len(data) * one // of]


def _another(row: str) -> Fault:
    return lambda one, folder: _write(one, folder, sample(row).data)


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
_NOISE = random.Random(7).randbytes(4096)
_MARK = SECRET.encode()

FAULTS: dict[str, Fault] = {
    "nothing wrong": _changed(bytes),
    "empty": _changed(lambda _: b""),
    "white space": _changed(lambda _: b" \n\t\n" * 1000),
    "noise": _changed(lambda _: _NOISE),
    "a third": _changed(_parts(1, 3)),
    "two thirds": _changed(_parts(2, 3)),
    "packed": _packed(bytes),
    "packed, a third": _packed(_parts(1, 3)),
    "packed, two thirds": _packed(_parts(2, 3)),
    "packed, empty": _packed(lambda _: b""),
    "packed, another checksum": _packed(lambda data: data[:-8] + b"checksum"),
    "packed, noise": _packed(lambda _: _NOISE),
    "packed without the suffix": _changed(gzip.compress),
    "packed, not so named": _packed(gzip.decompress),
    "NUL bytes": _text(b"Zo\0gl"),
    "NUL bytes only": _changed(lambda _: bytes(10_000)),
    "UTF-16": _changed(lambda data: data.decode("latin-1").encode("utf-16")),
    "UTF-16 big-endian": _changed(lambda data: b"\xfe\xff" + data.decode("latin-1").encode("utf-16-be")),
    "Latin-1": _text(_MARK + b"\xe9\xa0"),
    "no encoding": _text(_MARK + b"\x81\x8d"),
    "byte order mark": _changed(lambda data: b"\xef\xbb\xbf" + data),
    "carriage returns": _changed(lambda data: data.replace(b"\r\n", b"\n").replace(b"\n", b"\r")),
    "half a surrogate": _text(rb"Zo\ud800gl"),
    "half a surrogate in UTF-8": _text(_MARK + b"\xed\xa0\x80"),
    "line separators": _text("Zo\u2028gl\x85Zo\x1cgl".encode()),
    "quotes": _text(b'Zorgl" "Zorgl'),
    "a long line": _text(b"Zorgl " * 500_000),
    "a folder": _folder,
    "a file": _file,
    "the folder of it": _only_folder,
    "a pipe": _pipe,
    "a packed pipe": _packed_pipe,
    "a pipe in a folder": _pipe_in_folder,
    "a device": _device,
    "a link to itself": _loop,
    "a link to the folder above": _loop_of_folders,
    "may not be read": _unreadable,
    "like an option": _named(b"-rf"),
    "a line end in the name": _named(b"a\nb"),
    "a line end in the name, empty": _named(b"a\nb", lambda _: b""),
    "a line end in the name, cut": _named(b"a\nb", _parts(1, 3)),
    "a line end in the name, noise": _named(b"a\nb", lambda _: _NOISE),
    "a terminal's commands in the name": _named(b"a\x1b]0;b\x07", _parts(1, 3)),
    "a name that is no text": _named(b"\xff\xfe"),
    "a name that is no text, cut": _named(b"\xff\xfe", _parts(1, 3)),
    "a long name": _named(b"n" * 255),
    "id with white space": _id(b"a b\tc"),
    "id with control characters": _id(b"a\x07\x1b[2Jb"),
    "id with escapes": _id(rb"a\u0007\nb"),
    "id out of the folder": _id(b"../../etc/passwd"),
    "empty id": _id(b""),
    "long id": _id(b"9" * 10_000_000),
    "id with half a surrogate": _id(rb"a\ud800"),
    "deep XML": _text(b"<a>" * 100_000 + b"</a>" * 100_000),
    "deep JSON": _text(b'", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "y": "'),
    "only brackets": _changed(lambda _: b"[" * 1_000_000),
    "only tags": _changed(lambda _: b"<a>" * 300_000),
    "a long number": _text(b'", "x": ' + b"9" * 100_000 + b', "y": "'),
    "billion laughs": _prolog(f'<!DOCTYPE x [<!ENTITY l0 "Zorgl">{_LAUGHS}]>', b"&l9;"),
    "an external entity": _prolog('<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>', b"&x;"),
    "an external subset": _prolog('<!DOCTYPE x SYSTEM "file:///etc/passwd">', b"&x;"),
    "the secret as a tag": _text(b"<Zorgl>"),
    "the secret as an entity": _text(b"&Zorgl;"),
    "prose": _changed(lambda _: b"The Zorgl fell; it did!\n" * 2000),
    **{f"the data of {row}": _another(row) for row in SAMPLES if row not in WITH_AN_EXTRA},
}
BOMBS: dict[str, Fault] = {
    "zeros": _bomb(b"\0"),
    "white space in the middle": _bomb(b" ", before=True),
}
"""More than may be held, in half a megabyte."""

# --- the oracle ---


def violations(message: str | None) -> Iterator[str]:
    """Yield what is wrong with a message for users."""
    if not message:
        yield "no message"
    elif not message.isprintable():
        yield f"not one printable line: {message!r:.300}"
    elif SECRET in message:
        yield f"quotes the text: {message:.300}"


def wrong_record(record: Record) -> Iterator[str]:
    """Yield what is wrong with a record."""
    if record.deleted:
        return
    if record.document is None:
        yield from violations(record.problem)
        return
    document = record.document
    if not document.id or " " in document.id or not document.id.isprintable():
        yield f"the id {document.id[:40]!r}"
    for value in (
        document.id,
        document.title,
        document.text,
        json.dumps(dict(document.metadata), default=str),
    ):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield "text that cannot be stored"
    if "root:x:" in document.text:
        yield "the text of another file"


@dataclass
class Outcome:
    """What became of one cell."""

    documents: int = 0
    problems: int = 0
    error: str = ""
    broken: list[str] | None = None


def outcome(reader: str, path: Path, **options: Any) -> Outcome:
    """Read all of a corpus, and ask for what a build asks for; exceptions of any kind are told."""
    result = Outcome(broken=[])
    broken = result.broken
    assert broken is not None

    def failed(what: str, error: Exception) -> None:
        if not isinstance(error, CmbertError):
            broken.append(f"{what}: {type(error).__name__}: {error!s:.300}")
            return
        message = result.error = str(error)
        broken.extend(f"{what}: {wrong}" for wrong in violations(message))
        names = {
            printable(name)
            for name in (path.name, *(one.name for one in (path.iterdir() if path.is_dir() else ())))
        }
        if not any(name[:100] in printable(message) for name in names):
            broken.append(f"{what}: does not name the file: {message:.300}")

    try:
        guess_reader(path)
    except Exception as error:
        failed("guessing", error)
        result.error = ""
    try:
        corpus = open_corpus(reader, path, **options)
    except Exception as error:
        failed("opening", error)
        return result
    for what, ask in (("sources", corpus.sources), ("total", corpus.total)):
        try:
            ask()
        except Exception as error:
            failed(what, error)
    result.error = ""
    try:
        for record in corpus.records():
            result.documents += record.document is not None
            result.problems += record.problem is not None
            if len(broken) < 5:
                broken.extend(wrong_record(record))
    except Exception as error:
        failed("reading", error)
    return result


class _TooLongError(BaseException):
    """Not an Exception: none of our own handlers may take it for theirs."""


def _too_long(*_: object) -> None:
    raise _TooLongError(f"more than {SECONDS} s")


def peak_megabytes() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def main() -> None:
    """Read ``[row, fault]`` pairs as JSON from stdin; print what became of each, one JSON object a line."""
    signal.signal(signal.SIGALRM, _too_long)
    cells = json.load(sys.stdin)
    root = Path(sys.argv[1])
    prepared = []
    for number, (row, fault) in enumerate(cells):
        folder = root / str(number)
        folder.mkdir()
        prepared.append((row, fault, ({**FAULTS, **BOMBS})[fault](sample(row), folder)))
    for row in dict.fromkeys(row for row, _ in cells):  # what readers import is not a cell's doing
        (root / f"warm {row}").mkdir()
        outcome(SAMPLES[row].reader, FAULTS["nothing wrong"](sample(row), root / f"warm {row}"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if used:  # far above what is allowed: this only keeps a blow-up from the rest of the machine
        limit = used * resource.getpagesize() + 4 * MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for row, fault, path in prepared:
        began, before = time.monotonic(), peak_megabytes()
        signal.alarm(SECONDS)
        try:
            result = outcome(SAMPLES[row].reader, path)
        except BaseException as error:
            result = Outcome(broken=[f"{type(error).__name__}"])
        signal.alarm(0)
        told = {
            "row": row,
            "fault": fault,
            "seconds": time.monotonic() - began,
            "megabytes": peak_megabytes() - before,
            **vars(result),
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
