"""Large XML files of many records, read one record after the other in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from cmbert_retrieval.corpora.files import GZIP_ERRORS, UnusableError, open_binary
from cmbert_retrieval.corpora.xmltree import xml_reason
from cmbert_retrieval.errors import CorpusError

MAX_RECORD_BYTES = 32 * 2**20
"""What may stand between the ends of two records; the largest record of MeSH has a hundredth of it."""

_CHUNK = 2**17


def stream_records(
    path: Path, tags: tuple[str, ...], *, roots: tuple[str, ...], max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[Any]:
    """Yield the elements of these names in document order; an element is gone when the next one is asked for.

    Args:
        path: the file, ``.gz`` or not.
        tags: names of the elements that are records. Records within records are not expected.
        roots: names that the root may have.
        max_record_bytes: more than that without the end of a record is refused.

    Raises:
        CorpusError: another root, not well-formed XML, entities, too large a record, or damaged gzip data.
            The records before that place have been yielded.
    """
    parser = etree.XMLPullParser(
        events=("start", "end"),
        tag=(*roots, *tags),
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    events: Any = parser.read_events()
    root: Any = None
    fed = 0
    try:
        with open_binary(path) as stream:
            while chunk := stream.read(_CHUNK):
                fed += len(chunk)
                parser.feed(chunk)
                for event, element in events:
                    if root is None:
                        root = element.getroottree().getroot()
                        _check_root(path, root, roots)
                    if event == "end" and element.tag in tags:
                        fed = 0
                        yield element
                        _forget(element)
                if fed > max_record_bytes and root is None:
                    _check_root(path, None, roots)
                if fed > max_record_bytes:
                    raise CorpusError(
                        f"{path}: more than {max_record_bytes:,} bytes without the end of a record; refused"
                    )
            parser.close()
        if root is None:
            _check_root(path, None, roots)
    except etree.XMLSyntaxError as error:
        raise CorpusError(f"{path}:{error.lineno or 1}: not well-formed XML ({xml_reason(error)})") from None
    except (ValueError, LookupError):
        raise CorpusError(f"{path}: not well-formed XML (unknown encoding)") from None
    except GZIP_ERRORS:
        raise CorpusError(f"{path}: truncated or damaged gzip data; fetch the file again") from None
    except UnusableError as error:
        raise CorpusError(f"{path}: {error}") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None


def _check_root(path: Path, root: Any, roots: tuple[str, ...]) -> None:
    dtd = root.getroottree().docinfo.internalDTD if root is not None else None
    if dtd is not None and any(True for _ in dtd.iterentities()):
        raise CorpusError(f"{path}: declares entities; refused")
    if root is None or root.tag not in roots:
        expected = " or ".join(f"<{name}>" for name in roots)
        raise CorpusError(f"{path}: another root element than expected: {expected}")


def _forget(element: Any) -> None:
    """Free an element and what stands before it; its parents keep nothing that was read."""
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]
