"""One file over a bad line: continued, checked, in its place at once or not at all, never waited for long."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from publishers import Handler, Publisher, cut, dripping, md5, other, serving, silent, status

from cmbert_retrieval.corpora.fetch_address import FetchError, UnreachableError
from cmbert_retrieval.corpora.fetch_files import RemoteFile, download
from cmbert_retrieval.corpora.fetch_http import Client

DATA = random.Random(1).randbytes(1_000_000)
OTHER = random.Random(2).randbytes(1_000_000)


@pytest.fixture
def server() -> Iterator[Publisher]:
    with serving(Publisher(files={"a.bin": DATA})) as publisher:
        yield publisher


class Place:
    """A folder to fetch ``a.bin`` into."""

    def __init__(self, folder: Path, url: str) -> None:
        self.target, self.parts, self.url = folder / "a.bin", folder / "parts", url
        self.parts.mkdir()

    def get(self, *, checksum: str = md5(DATA), limit: int = 2_000_000, **options: Any) -> int:
        """Fetch with a client of its own, as a new process would; return the bytes that came."""
        with Client(self.url, **{"timeout_s": 5, "wait_s": 0.01, **options}) as client:
            return download(client, RemoteFile("a.bin", self.target, limit, checksum), self.parts)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.parts.iterdir())


@pytest.fixture
def place(server: Publisher, tmp_path: Path) -> Place:
    return Place(tmp_path, server.url)


def test_a_file_arrives_whole_and_leaves_nothing_else(server: Publisher, place: Place) -> None:
    assert place.get() == len(DATA)
    assert place.target.read_bytes() == DATA
    assert place.left() == []
    assert server.log == [("a.bin", "")]


def test_a_cut_file_is_continued_where_it_was_cut(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [cut(400_000), cut(300_000)]
    received = place.get()
    assert place.target.read_bytes() == DATA
    assert server.ranges_of("a.bin") == ["", "bytes=400000-", "bytes=700000-"]
    assert received == len(DATA)


def test_a_later_process_goes_on_where_an_earlier_one_ended(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [cut(600_000)]
    with pytest.raises(UnreachableError):
        place.get(attempts=1)
    assert place.left() == ["a.bin.part", "a.bin.part.json"] and not place.target.exists()
    assert place.get() == 400_000
    assert place.target.read_bytes() == DATA


def test_a_file_that_lacks_only_its_last_step_costs_one_byte(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [cut(600_000)]
    with pytest.raises(UnreachableError):
        place.get(attempts=1)
    (place.parts / "a.bin.part").write_bytes(DATA)
    assert place.get() == 1
    assert place.target.read_bytes() == DATA


def test_a_server_that_ignores_ranges_sends_the_whole_again(server: Publisher, place: Place) -> None:
    server.ranges = False
    server.faults["a.bin"] = [cut(400_000)]
    assert place.get() == 1_400_000
    assert place.target.read_bytes() == DATA


def test_without_etag_and_date_a_file_is_begun_anew(server: Publisher, place: Place) -> None:
    server.etags = False
    server.faults["a.bin"] = [lambda handler: handler.answer(200, DATA, cut=400_000)]
    place.get()
    assert server.ranges_of("a.bin") == ["", ""]
    assert place.target.read_bytes() == DATA


@pytest.mark.parametrize("checksum", ["", md5(OTHER)])
def test_a_file_that_changed_in_between_is_fetched_anew(
    server: Publisher, place: Place, checksum: str
) -> None:
    server.faults["a.bin"] = [cut(600_000)]
    with pytest.raises(UnreachableError):
        place.get(attempts=1, checksum="")
    server.files["a.bin"] = OTHER
    place.get(checksum=checksum)
    assert place.target.read_bytes() == OTHER
    # A checksum of something else tells that without asking.
    assert server.ranges_of("a.bin") == ["", "" if checksum else "bytes=600000-"]


def test_a_server_that_sends_the_rest_of_a_changed_file_is_not_believed(
    server: Publisher, place: Place
) -> None:
    def ignoring_if_range(handler: Handler) -> None:
        del handler.headers["If-Range"]
        handler.give()

    server.faults["a.bin"] = [cut(600_000), ignoring_if_range]
    with pytest.raises(UnreachableError):
        place.get(attempts=1, checksum="")
    server.files["a.bin"] = OTHER
    place.get(checksum="")
    assert place.target.read_bytes() == OTHER


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-999999/1000000"},
        {"Content-Range": "bytes 400000-999999/2000000"},
        {"Content-Range": "bytes 400000-499999/1000000"},
        {"Content-Range": "bytes x"},
        {},
    ],
)
def test_a_wrong_range_is_not_put_behind_what_is_there(
    server: Publisher, place: Place, headers: dict[str, str]
) -> None:
    wrong = {"ETag": f'"{md5(DATA)}"', **headers}
    server.faults["a.bin"] = [cut(400_000), lambda handler: handler.answer(206, DATA[400_000:], wrong)]
    place.get(checksum="")
    assert place.target.read_bytes() == DATA


def test_a_wrong_checksum_after_a_continuation_is_put_right(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [cut(600_000)]
    with pytest.raises(UnreachableError):
        place.get(attempts=1)
    part = place.parts / "a.bin.part"
    part.write_bytes(b"\0" * part.stat().st_size)  # as a power cut leaves files
    place.get()
    assert place.target.read_bytes() == DATA


def test_a_wrong_checksum_is_tried_once_more_and_then_an_error(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [other(OTHER)]
    place.get()
    assert place.target.read_bytes() == DATA
    place.target.unlink()
    server.log.clear()
    with pytest.raises(FetchError, match=f"a.bin: the checksum does not agree, twice; .* MD5 {md5(OTHER)}"):
        place.get(checksum=md5(OTHER))
    assert len(server.log) == 2
    assert place.left() == [] and not place.target.exists()


def test_an_earlier_file_stays_until_the_new_one_is_whole(server: Publisher, place: Place) -> None:
    place.target.write_bytes(b"before")
    server.faults["a.bin"] = [cut(600_000)]
    with pytest.raises(UnreachableError):
        place.get(attempts=1)
    assert place.target.read_bytes() == b"before"
    place.get()
    assert place.target.read_bytes() == DATA


def test_a_damaged_note_of_an_unfinished_file_begins_it_anew(server: Publisher, place: Place) -> None:
    for note in (b"", b"[]", b"{}", b"\0" * 50, b'{"path": "a.bin", "length": "x"}'):
        server.faults["a.bin"] = [cut(600_000)]
        with pytest.raises(UnreachableError):
            place.get(attempts=1)
        (place.parts / "a.bin.part.json").write_bytes(note)
        place.get()
        assert place.target.read_bytes() == DATA
        place.target.unlink()


# --- servers in trouble ---


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(server: Publisher, place: Place, code: int) -> None:
    server.faults["a.bin"] = [status(code), status(code)]
    place.get()
    assert place.target.read_bytes() == DATA and len(server.log) == 3


def test_it_is_asked_no_more_than_the_attempts(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [status(503)] * 10
    with pytest.raises(UnreachableError, match=r"a\.bin: HTTP 503 \(3 attempts\)"):
        place.get(attempts=3)
    assert len(server.log) == 3


def test_retry_after_is_waited_for(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [status(429, Retry_After="1")]
    began = time.monotonic()
    place.get()
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 418])
def test_what_is_refused_is_not_asked_for_again(server: Publisher, place: Place, code: int) -> None:
    server.faults["a.bin"] = [status(code)] * 5
    with pytest.raises(FetchError, match=f"HTTP {code}"):
        place.get()
    assert len(server.log) == 1


@pytest.mark.parametrize("fault", [silent(9), dripping(9)])
def test_a_server_that_is_too_slow_is_left_in_time(server: Publisher, place: Place, fault: Any) -> None:
    server.faults["a.bin"] = [fault]
    began = time.monotonic()
    place.get(timeout_s=0.4)
    assert time.monotonic() - began < 7
    assert place.target.read_bytes() == DATA


def test_headers_that_drip_are_left_in_time(server: Publisher, place: Place) -> None:
    def drip(handler: Handler) -> None:
        try:
            for _ in range(180):
                handler.wfile.write(b"H")
                time.sleep(0.05)
        except OSError:
            pass
        handler.close_connection = True

    server.faults["a.bin"] = [drip]
    began = time.monotonic()
    place.get(timeout_s=0.4)
    assert time.monotonic() - began < 7


def test_a_server_that_is_always_cut_ends(server: Publisher, place: Place) -> None:
    server.ranges = False
    server.faults["a.bin"] = [lambda handler: handler.answer(200, DATA, cut=400_000)] * 50
    with pytest.raises(UnreachableError, match="the connection was cut"):
        place.get(attempts=3)
    assert len(server.log) <= 5


def test_attempts_count_anew_while_something_is_gained(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [cut(100_000)] * 9
    place.get(attempts=2)
    assert place.target.read_bytes() == DATA


def test_what_is_not_http_is_one_error(server: Publisher, place: Place) -> None:
    def junk(handler: Handler) -> None:
        handler.wfile.write(b"\x00\x01\x02 not http \n" * 10)
        handler.close_connection = True

    server.faults["a.bin"] = [junk] * 5
    with pytest.raises(UnreachableError, match="not an HTTP answer"):
        place.get()


def test_nobody_listening_is_one_error(tmp_path: Path) -> None:
    with serving(Publisher()) as server:
        url = server.url
    with pytest.raises(UnreachableError, match=r"a\.bin: the connection was refused \(5 attempts\)"):
        Place(tmp_path, url).get()


# --- sizes ---


def test_a_file_that_is_too_large_is_not_read(server: Publisher, place: Place) -> None:
    with pytest.raises(FetchError, match=r"a\.bin: 1,000,000 bytes, expected at most 999,999"):
        place.get(limit=999_999)
    assert place.left() == []


def test_a_file_of_unknown_length_is_refused(server: Publisher, place: Place) -> None:
    def unsaid(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(DATA)

    server.faults["a.bin"] = [unsaid]
    with pytest.raises(FetchError, match="the server does not say how long it is"):
        place.get()


def test_bytes_behind_the_announced_end_reach_no_file(server: Publisher, place: Place) -> None:
    def chatty(handler: Handler) -> None:
        handler.answer(200, DATA)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")

    server.files["b.bin"] = OTHER
    server.faults["a.bin"] = [chatty]
    with Client(server.url, timeout_s=5, wait_s=0.01) as client:
        for name, data in (("a.bin", DATA), ("b.bin", OTHER)):
            target = place.target.with_name(name)
            download(client, RemoteFile(name, target, 2_000_000, md5(data)), place.parts)
            assert target.read_bytes() == data


def test_an_empty_file_arrives_empty(server: Publisher, place: Place) -> None:
    server.files["a.bin"] = b""
    place.get(checksum=md5(b""))
    assert place.target.read_bytes() == b""


def test_memory_stays_far_below_the_size_of_a_file(server: Publisher, place: Place) -> None:
    import tracemalloc

    size = 40_000_000

    def large(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for _ in range(size // 1_000_000):
            handler.wfile.write(DATA)

    server.faults["a.bin"] = [large]
    tracemalloc.start()
    try:
        place.get(checksum=hashlib.md5(DATA * 40).hexdigest(), limit=size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size + 5_000_000  # the oracle itself made one copy of 40 MB
    assert place.target.stat().st_size == size


# --- where it leads ---


def test_a_redirect_on_the_same_server_is_followed(server: Publisher, place: Place) -> None:
    server.files["b/c d.bin"] = DATA
    server.faults["a.bin"] = [status(301, Location="/b/c%20d.bin")]
    place.get()
    assert [path for path, _ in server.log] == ["a.bin", "b/c d.bin"]


@pytest.mark.parametrize(
    "location", ["http://localhost:{port}/a.bin", "https://example.org/a.bin", "//example.org/", "file:///etc/passwd",
                 "http://[::1", "gopher://127.0.0.1:{other}/", "http://127.0.0.1:{other}/a.bin"],
)  # fmt: skip
def test_a_redirect_to_elsewhere_is_refused_and_not_asked(
    server: Publisher, place: Place, location: str
) -> None:
    with serving(Publisher(files={"a.bin": DATA})) as elsewhere:
        ports = {"port": server.url.split(":")[2].strip("/"), "other": elsewhere.url.split(":")[2].strip("/")}
        server.faults["a.bin"] = [status(302, Location=location.format(**ports))]
        with pytest.raises(FetchError, match="the server sends us elsewhere"):
            place.get()
        assert elsewhere.log == []
    assert len(server.log) == 1 and not place.target.exists()


def test_redirects_in_a_circle_end(server: Publisher, place: Place) -> None:
    server.faults["a.bin"] = [status(302, Location="/a.bin")] * 50
    with pytest.raises(FetchError, match="more than 5 redirects"):
        place.get()


def test_a_connection_is_kept_for_the_next_file(server: Publisher, place: Place) -> None:
    ports: set[int] = set()

    def note(handler: Handler) -> None:
        ports.add(handler.client_address[1])
        handler.give()

    server.faults["a.bin"] = [note] * 5
    with Client(server.url) as client:
        for _ in range(5):
            client.get("a.bin", max_bytes=2_000_000)
    assert len(ports) == 1


def test_a_connection_that_the_server_closed_meanwhile_costs_no_attempt(
    server: Publisher, place: Place
) -> None:
    def give_and_close(handler: Handler) -> None:
        handler.give()
        handler.close_connection = True  # without saying so

    server.faults["a.bin"] = [give_and_close] * 3
    with Client(server.url, attempts=1) as client:
        for _ in range(4):
            assert client.get("a.bin", max_bytes=2_000_000).data == DATA
            time.sleep(0.05)


def test_a_client_that_is_stopped_leaves_a_silent_server_at_once(server: Publisher) -> None:
    server.faults["a.bin"] = [silent(9)]
    with Client(server.url, timeout_s=60) as client:
        timer = threading.Timer(0.3, client.stop)
        timer.start()
        began = time.monotonic()
        with pytest.raises(FetchError, match="stopped"):
            client.get("a.bin", max_bytes=2_000_000)
        assert time.monotonic() - began < 7
