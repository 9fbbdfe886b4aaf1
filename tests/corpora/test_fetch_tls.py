"""HTTPS with certificates, and through the proxies that hospitals have."""

from __future__ import annotations

import http.server
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from publishers import Publisher, cut, dripping, md5, serving

from cmbert_retrieval.corpora.fetch_address import FetchError, UnreachableError
from cmbert_retrieval.corpora.fetch_files import RemoteFile, download
from cmbert_retrieval.corpora.fetch_http import Client

DATA = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority for this machine and for a name that only a proxy knows."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pmc.test",
         "-addext", "subjectAltName=DNS:pmc.test,IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def server(certificate: Path) -> Iterator[Publisher]:
    with serving(Publisher(files={"a.bin": DATA}), certificate=certificate) as publisher:
        yield publisher


def get(url: str, folder: Path, **options: float) -> bytes:
    target = folder / "a.bin"
    with Client(url, **{"timeout_s": 5, "wait_s": 0.01, **options}) as client:  # type: ignore[arg-type]
        download(client, RemoteFile("a.bin", target, len(DATA), md5(DATA)), folder)
    return target.read_bytes()


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(server: Publisher, tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match=r"127\.0\.0\.1: its certificate cannot be checked; .* SSL_CERT_FILE"
    ):
        get(server.url, tmp_path)
    assert server.log == []


def test_with_the_authority_named_files_come_and_are_continued(
    server: Publisher, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    server.faults["a.bin"] = [cut(500_000)]
    assert get(server.url, tmp_path) == DATA
    assert server.ranges_of("a.bin") == ["", "bytes=500000-"]


def test_a_server_that_drips_through_tls_is_left_in_time(
    server: Publisher, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    server.faults["a.bin"] = [dripping(9)]
    began = time.monotonic()
    with Client(server.url, timeout_s=0.4, wait_s=0.01) as client:
        assert client.get("a.bin", max_bytes=2_000_000).data == DATA
    assert time.monotonic() - began < 7


@contextmanager
def proxy(port: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A proxy that leads every tunnel to one port of this machine; gives its address and its log."""
    asked: list[tuple[str, str]] = []

    class Tunnel(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_CONNECT(self) -> None:
            asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
            if "evil" in self.path:
                self.send_error(403)
                return
            there = socket.create_connection(("127.0.0.1", port))
            self.send_response(200)
            self.end_headers()
            pair = {self.connection: there, there: self.connection}
            while True:
                for ready in select.select(list(pair), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        there.close()
                        self.close_connection = True
                        return
                    pair[ready].sendall(data)

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tunnel)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://me:se%40cret@127.0.0.1:{listening.server_port}", asked
    finally:
        listening.shutdown()
        listening.server_close()


def test_https_goes_through_the_proxy_that_the_environment_names(
    server: Publisher, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with proxy(urllib.parse.urlsplit(server.url).port or 0) as (url, asked):
        monkeypatch.setenv("https_proxy", url)
        assert get("https://pmc.test/", tmp_path) == DATA
        assert asked == [("pmc.test:443", "Basic bWU6c2VAY3JldA==")]
        with pytest.raises(UnreachableError) as caught:
            get("https://evil.test/", tmp_path)
        assert "secret" not in str(caught.value) and "cret" not in str(caught.value)
        assert get(server.url, tmp_path) == DATA  # this machine needs no proxy
        assert all(path == "evil.test:443" for path, _ in asked[1:])


def test_the_server_of_the_tests_really_speaks_tls(server: Publisher) -> None:
    context = ssl.create_default_context()
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        socket.create_connection(("127.0.0.1", int(server.url.split(":")[2].strip("/")))) as plain,
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
