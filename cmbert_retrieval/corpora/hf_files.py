"""The files of a dataset in a local folder, looked over before the package ``datasets`` trusts them.

Its parser of JSON (of pyarrow) calls itself for every bracket and ends the process where JSON is nested very
deeply; what is not JSON lines is held in memory several times over, as any line is. Arrow files are mapped
into memory, and a wrong offset in one of them ends the process as well.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from cmbert_retrieval.corpora.files import UnusableError
from cmbert_retrieval.corpora.json_blocks import NestingCheck, json_blocks

if TYPE_CHECKING:
    from datasets import DatasetBuilder

_SUFFIXES = (".json", ".jsonl", ".ndjson")
_ARROW_FILE = b"ARROW1"  # how the format begins that can be read from any place; the other is a stream
_ADVICE = "which the package datasets would hold in memory; write a record a line, or raise max_bytes"
_BLOCK_BYTES = 2**18


def check_files(builder: DatasetBuilder, *, longest: int) -> None:
    """Read the JSON, CSV and Arrow files that a builder of ``datasets`` will read, packed or not.

    Files of other formats are passed over, and those that are not here but on a server. JSON is read at about
    200 MB a second; nothing is held.

    Args:
        builder: of a dataset in a local folder, before any of its files was read.
        longest: bytes above which a line of JSON, a cell, or JSON that is not JSON lines is refused.

    Raises:
        UnusableError: a file is damaged or nested too deeply, or too much would be held; with its name.
        Exception: a file cannot be opened or unpacked; whatever ``datasets`` and the readers below it raise.
    """
    check_arrow_files(file for file in _local_files(builder) if file.lower().endswith(".arrow"))
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.json.json import Json
    from datasets.utils.file_utils import xopen

    is_json, is_csv = isinstance(builder, Json), isinstance(builder, Csv)
    encoding = builder.config.encoding if is_json else "utf-8"
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    for name in _text_files(builder, all_of_them=is_json or is_csv):
        try:
            with xopen(name, "rb") as stream:
                if is_csv:
                    _check_cells(stream, longest)
                else:
                    decoded = codecs.EncodedFile(stream, "utf-8", encoding, "replace")
                    _check_json(stream if is_utf8 else decoded, longest)
        except UnusableError as error:
            raise UnusableError(f"{_file_name(name)}: {error}") from None


def check_arrow_files(names: Iterable[str]) -> None:
    """Read Arrow files batch by batch, and check every offset and text in them.

    Raises:
        UnusableError: one is damaged; with its name.
    """
    import pyarrow as pa

    for name in names:
        try:
            with pa.OSFile(name) as file:
                for batch in _batches(file):
                    batch.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise UnusableError(f"{PurePosixPath(name).name}: damaged ({type(error).__name__})") from None


def _batches(file: Any) -> Iterator[Any]:
    import pyarrow as pa

    is_stream = file.read(len(_ARROW_FILE)) != _ARROW_FILE
    file.seek(0)
    if is_stream:
        yield from pa.ipc.open_stream(file)
    else:
        reader = pa.ipc.open_file(file)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))


def _text_files(builder: DatasetBuilder, *, all_of_them: bool) -> Iterator[str]:
    """Yield all files, or only those named as JSON, as ``xopen`` takes them: ``/a.jsonl``, ``gzip://a.jsonl::/a.jsonl.gz``."""
    from datasets import StreamingDownloadManager

    manager = StreamingDownloadManager(base_path=builder.base_path)
    for file in _local_files(builder):
        # Other builders read JSON, too: of what belongs to images, perhaps packed with them.
        if all_of_them or _has_json_suffix(file) or file.lower().endswith(".zip"):
            for name in manager.iter_files(manager.extract(manager.download(file))):
                if all_of_them or _has_json_suffix(name.partition("::")[0]):
                    yield name


def _local_files(builder: DatasetBuilder) -> Iterator[str]:
    for files in (builder.config.data_files or {}).values():
        yield from (file for file in files if "://" not in file)


def _has_json_suffix(name: str) -> bool:
    return any(suffix.lower() in _SUFFIXES for suffix in PurePosixPath(name).suffixes)


def _file_name(name: str) -> str:
    return PurePosixPath(name.partition("::")[0]).name


def _check_json(stream: IO[bytes], longest: int) -> None:
    nesting, size, line = NestingCheck(), 0, 0
    for block in json_blocks(stream, longest=longest):
        nesting.check(block)
        first, last = block.find(b"\n"), block.rfind(b"\n")
        if line + (first if first >= 0 else len(block)) > longest:
            raise UnusableError(f"a line of more than {longest:,} bytes, {_ADVICE}")
        line = line + len(block) if last < 0 else len(block) - last - 1
        size += len(block)
        if size > longest and nesting.goes_over_lines:
            raise UnusableError(f"more than {longest:,} bytes that are not JSON lines, {_ADVICE}")


def _check_cells(stream: IO[bytes], longest: int) -> None:
    """Refuse a table with a cell that goes on and on, as behind a quote that is never closed."""
    size = quotes = 0
    while block := stream.read(_BLOCK_BYTES):
        ends = b'"' in block or (b"\n" in block and quotes % 2 == 0)
        size = 0 if ends else size + len(block)
        quotes += block.count(b'"')
        if size > longest:
            raise UnusableError(f"a cell of more than {longest:,} bytes, {_ADVICE}")
