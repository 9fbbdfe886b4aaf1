"""A server on this machine with the layouts of PMC's cloud service and PubMed; misbehaves on demand."""

from __future__ import annotations

import gzip
import hashlib
import json
import ssl
import sys
import threading
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

Fault = Callable[["Handler"], None]
INVENTORY = "inventory-reports/pmc-oa-opendata/metadata/"


def article(number: int, text: str) -> bytes:
    """Return the XML of a small article."""
    return (
        '<article article-type="research-article"><front><article-meta><article-id pub-id-type="pmc">'
        f"{number}</article-id><title-group><article-title>A title</article-title></title-group>"
        f"</article-meta></front><body><p>{text}</p></body></article>"
    ).encode()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@dataclass
class Publisher:
    """What a server has, how it misbehaves, and what it was asked for.

    Attributes:
        files: path -> content.
        modified: path -> ISO date of the last change, in listings.
        faults: path -> what to do instead of answering, one a request, used up in their order.
        log: the requests: path with query, and the value of Range.
        page: keys in a page of a bucket listing.
        etags: whether ETag and Last-Modified are sent.
        ranges: whether Range is honoured.
        listing: what answers a bucket listing instead.
        records: PMID -> record, as efetch gives them.
        requests: the parameters of the requests to efetch, and when they came.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    modified: dict[str, str] = field(default_factory=lambda: defaultdict(lambda: "2026-01-08T11:47:59.000Z"))
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    log: list[tuple[str, str]] = field(default_factory=list)
    page: int = 1000
    etags: bool = True
    ranges: bool = True
    listing: Callable[[Handler, dict[str, str]], None] | None = None
    records: dict[int, bytes] = field(default_factory=dict)
    requests: list[tuple[dict[str, str], float]] = field(default_factory=list)
    url: str = ""

    # --- content ---

    def add_article(
        self, number: int, version: int = 1, *, license: str | None = "CC BY", text: str = "Some words.",
        published_md5: bool = True, **values: Any,
    ) -> str:  # fmt: skip
        """Publish an article; return its name."""
        name = f"PMC{number}.{version}"
        xml = article(number, text)
        self.files[f"{name}/{name}.xml"] = xml
        query = f"?md5={md5(xml)}" if published_md5 else ""
        metadata = {
            "pmcid": f"PMC{number}", "version": version, "license_code": license, "is_retracted": False,
            "xml_url": f"s3://pmc-oa-opendata/{name}/{name}.xml{query}", **values,
        }  # fmt: skip
        self.files[f"metadata/{name}.json"] = json.dumps(metadata).encode()
        return name

    def add_inventory(self, date: str = "2026-01-18T01-00Z", *, lines: str = "", **manifest: Any) -> str:
        """Publish an inventory of the metadata that are there now, in no order; return its file's path."""
        keys = [key for key in self.files if key.startswith("metadata/")]
        rows = [
            f'"pmc-oa-opendata","{key}","{self.modified[key]}","{md5(self.files[key])}"\n'
            for key in sorted(keys, key=lambda key: md5(key.encode()))
        ]
        data = gzip.compress(("".join(rows) + lines).encode())
        path = f"{INVENTORY}data/8f5c5e61-02eb-4ee2-b846-{md5(date.encode())[:12]}.csv.gz"
        self.files[path] = data
        self.files[f"{INVENTORY}{date}/manifest.json"] = json.dumps(
            {
                "sourceBucket": "pmc-oa-opendata", "version": "2016-11-30", "fileFormat": "CSV",
                "fileSchema": "Bucket, Key, LastModifiedDate, ETag",
                "files": [{"key": path, "size": len(data), "MD5checksum": md5(data)}], **manifest,
            }
        ).encode()  # fmt: skip
        self.files[f"{INVENTORY}{date}/manifest.checksum"] = b"0"
        self.files[f"{INVENTORY}hive/dt={date}/symlink.txt"] = b"0"
        return path

    def add_pubmed(self, folder: str, number: int, data: bytes, *, year: int = 26, date: str = "") -> str:
        """Publish a file of PubMed with its checksum; return its path."""
        name = f"pubmed{year}n{number:04}.xml.gz"
        path = f"{folder}/{name}"
        self.files[path] = data
        self.files[f"{path}.md5"] = f"MD5({name})= {md5(data)}\n".encode()
        self.modified[path] = self.modified[f"{path}.md5"] = date or "2026-01-29 14:48"
        return path

    # --- what it was asked for ---

    def asked(self) -> list[str]:
        """The paths asked for, without listings and inventories, in alphabetical order."""
        return sorted(
            path for path, _ in self.log
            if "?" not in path and not path.endswith("/") and not path.startswith("inventory")
        )  # fmt: skip

    def ranges_of(self, path: str) -> list[str]:
        """The values of Range in the requests for a path."""
        return [asked for name, asked in self.log if name == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    publisher: Publisher

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path).removeprefix("/")
        named = path + (f"?{parts.query}" if parts.query else "")
        self.publisher.log.append((named, self.headers.get("Range", "")))
        self.data = self.publisher.files.get(path)
        if path.endswith("efetch.fcgi"):
            self.publisher.requests.append((dict(urllib.parse.parse_qsl(parts.query)), time.monotonic()))
        if self.publisher.faults[path]:
            self.publisher.faults[path].pop(0)(self)
        elif path.endswith("efetch.fcgi"):
            self.efetch(dict(urllib.parse.parse_qsl(parts.query))["id"].split(","))
        elif "list-type=2" in parts.query:
            query = dict(urllib.parse.parse_qsl(parts.query))
            (self.publisher.listing or Handler.list_bucket)(self, query)
        elif path.endswith("/"):
            self.index(path)
        elif self.data is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self.give()

    def give(self) -> None:
        """Send the file, or the range of it that is asked for."""
        assert self.data is not None
        asked = self.headers.get("Range", "")
        headers = {"ETag": f'"{md5(self.data)}"', "Last-Modified": "Thu, 08 Jan 2026 11:47:59 GMT"}
        same = self.headers.get("If-Range") in (None, *headers.values())
        if not self.publisher.etags:
            headers = {}
        if not asked or not self.publisher.ranges or not same:
            self.answer(200, self.data, headers)
            return
        first = int(asked.removeprefix("bytes=").partition("-")[0])
        if first >= len(self.data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(self.data)}"})
            return
        headers["Content-Range"] = f"bytes {first}-{len(self.data) - 1}/{len(self.data)}"
        self.answer(206, self.data[first:], headers)

    def answer(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, *, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True

    def efetch(self, pmids: list[str], *, cut: int | None = None) -> None:
        """Answer as E-utilities do: in pieces, without a length, and without a word of what is not there."""
        records = b"".join(self.publisher.records.get(int(pmid), b"") for pmid in pmids)
        data = (
            b'<?xml version="1.0" ?>\n<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st '
            b'January 2025//EN" "https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n'
            b"<PubmedArticleSet>\n" + records + b"</PubmedArticleSet>"
        )[:cut]
        self.send_response(200)
        self.send_header("Content-Type", "text/xml; charset=UTF-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    def list_bucket(self, query: dict[str, str]) -> None:
        """Answer ListObjectsV2 as S3 does."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found: dict[str, str] = {}
        for key in sorted(self.publisher.files):
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                if delimiter and delimiter in rest:
                    folder = prefix + rest[: rest.index(delimiter) + 1]
                    found[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                else:
                    found[key] = (
                        f"<Contents><Key>{escape(key)}</Key>"
                        f"<LastModified>{self.publisher.modified[key]}</LastModified>"
                        f"<ETag>&quot;{md5(self.publisher.files[key])}&quot;</ETag>"
                        f"<Size>{len(self.publisher.files[key])}</Size></Contents>"
                    )
        begin = int(query.get("continuation-token", "page-0").removeprefix("page-"))
        end = begin + self.publisher.page
        more = len(found) > end
        token = f"<NextContinuationToken>page-{end}</NextContinuationToken>" if more else ""
        entries = "".join(list(found.values())[begin:end])
        self.answer(200, bucket_page(entries, truncated=more, token=token))

    def index(self, folder: str) -> None:
        """Answer with an index page as NCBI's server shows it."""
        rows = "".join(
            f'<a href="{name}">{name}</a>     {self.publisher.modified[folder + name]}   19M\n'
            for name in sorted(
                key.removeprefix(folder) for key in self.publisher.files if key.startswith(folder)
            )
        )
        page = (
            f"<html><head><title>Index of /pubmed/{folder}</title></head><body>"
            f"<h1>Index of /pubmed/{folder}</h1><pre>Name                     Last modified      Size  <hr>"
            f'<a href="/pubmed/">Parent Directory</a>'
            f'                              -\n<a href="README.txt">README.txt</a>   2026-01-10 10:29  4.5K\n'
            f"{rows}<hr></pre></body></html>"
        )
        self.answer(200, page.encode(), {"Content-Type": "text/html"})


def bucket_page(entries: str, *, truncated: bool = False, token: str = "") -> bytes:
    """Return a page of a bucket listing."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>pmc-oa-opendata</Name>'
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{entries}{token}</ListBucketResult>"
    ).encode()


# --- faults ---


def status(code: int, **headers: str) -> Fault:
    """Answer with a status; ``Retry_After`` is written with a hyphen."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(code, b"", sent)


def cut(after: int, *, size: int | None = None) -> Fault:
    """Send so many bytes of the file, then close the connection."""

    def send(handler: Handler) -> None:
        data = handler.data or b""
        asked = handler.headers.get("Range", "")
        headers = {"ETag": f'"{md5(data)}"', "Last-Modified": "Thu, 08 Jan 2026 11:47:59 GMT"}
        first = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        handler.answer(206 if asked else 200, data[first:], headers, cut=after)

    return send


def other(data: bytes, **headers: str) -> Fault:
    """Send other bytes under the file's name."""
    return lambda handler: handler.answer(200, data, headers)


def silent(seconds: float) -> Fault:
    """Say nothing for a while, then close."""

    def wait(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return wait


def dripping(seconds: float) -> Fault:
    """Send a byte of the body now and then."""

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                handler.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        handler.close_connection = True

    return drip


class _Server(ThreadingHTTPServer):
    context: ssl.SSLContext | None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is not None:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):  # clients are killed on purpose
            super().handle_error(request, client_address)


@contextmanager
def serving(publisher: Publisher, *, certificate: Path | None = None) -> Iterator[Publisher]:
    """Serve on a free port of the loopback interface; with TLS, when there is a certificate with its key."""
    handler = type("OneHandler", (Handler,), {"publisher": publisher})
    server = _Server(("127.0.0.1", 0), handler)
    server.context = None
    if certificate is not None:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    publisher.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}/"
    try:
        yield publisher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
