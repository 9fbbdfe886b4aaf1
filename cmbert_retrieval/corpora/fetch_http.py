"""One server, spoken to politely: HTTPS with kept connections, deadlines and repeated attempts.

Python's own ``http.client`` does it. No HTTP library belongs to the base install on its own account:
huggingface-hub has brought a different one with each of its major versions. ``urllib`` opens a connection for
every file, which doubles the time for millions of small ones. And only here can every redirect and every wait
be bounded.
"""

from __future__ import annotations

import base64
import http.client
import logging
import random
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

from cmbert_retrieval.corpora.fetch_address import (
    Address,
    FetchError,
    TransientError,
    UnreachableError,
    offline_variable,
    seconds_to_wait,
    why,
)
from cmbert_retrieval.errors import ConfigError

logger = logging.getLogger(__name__)
T = TypeVar("T")

CHUNK_BYTES = 2**16
MIN_BYTES = 2**15
"""What has to arrive within each timeout; a server that sends less counts as one that does not answer."""
MAX_REDIRECTS = 5
MAX_WAIT_S = 300.0
"""The longest pause that a server's ``Retry-After`` is granted."""
_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class Client:
    """Fetches from one server, from any number of threads; each thread keeps its own connection."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 60.0,
        attempts: int = 5,
        wait_s: float = 1.0,
        spacing_s: float = 0.0,
    ) -> None:
        """Make a client; nothing is connected yet.

        Args:
            base_url: what all paths are below; https, or http for a server on this machine.
            timeout_s: seconds for an answer to begin, and for every further ``MIN_BYTES`` of it.
            attempts: how often something is tried until it counts as failed.
            wait_s: the pause before the second attempt; it doubles with each further one.
            spacing_s: the least time between the beginnings of two requests, of all threads together.

        Raises:
            ConfigError: the address is none of these, or a variable forbids the network (``HF_HUB_OFFLINE``);
                servers on this machine are no network.
        """
        from cmbert_retrieval import __version__

        self._address = Address.parse(base_url)
        if (variable := offline_variable()) and not self._address.is_loopback:
            raise ConfigError(
                f"{variable} is set, so nothing is fetched; unset it, or fetch on another machine"
            )
        if timeout_s <= 0:
            raise ConfigError(f"timeout is {timeout_s}; expected a positive number of seconds")
        self.base_url = base_url
        self.host = self._address.host
        self._timeout_s, self._attempts, self._wait_s = timeout_s, attempts, wait_s
        self._user_agent = f"cmbert-retrieval/{__version__} (corpus fetch)"
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._own = threading.local()
        self._connections: set[http.client.HTTPConnection] = set()
        self._deadlines: dict[http.client.HTTPConnection, tuple[float, socket.socket]] = {}
        self._not_before = 0.0
        self._spacing_s, self._next = spacing_s, 0.0
        self._watching: threading.Thread | None = None
        self._tls: ssl.SSLContext | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all requests and connections."""
        self.stop()
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def stop(self) -> None:
        """End all requests of all threads now: each raises ``FetchError``."""
        self._stop.set()
        with self._lock:
            for _, sock in self._deadlines.values():
                _shut(sock)

    def get(self, path: str, *, max_bytes: int, query: Mapping[str, str] | None = None) -> Reply:
        """Return a small document whole.

        Args:
            path: below the base address; not quoted yet.
            max_bytes: more than this is refused.
            query: parameters of the address.

        Raises:
            FetchError: the server has none, or a larger one.
            UnreachableError: it did not answer in any of the attempts.
        """

        name = path or self.base_url

        def attempt() -> Reply:
            with self.open(path, query=query) as reply:
                if reply.status != 200:
                    raise FetchError(f"{name}: HTTP {reply.status}, expected 200", reply.status)
                if reply.length is not None and reply.length > max_bytes:
                    raise FetchError(f"{name}: {reply.length:,} bytes, expected at most {max_bytes:,}")
                parts, size = [], 0
                for chunk in reply.chunks():
                    size += len(chunk)
                    if size > max_bytes:
                        raise FetchError(f"{name}: more than the expected {max_bytes:,} bytes")
                    parts.append(chunk)
            reply.data = b"".join(parts)
            return reply

        return self.patiently(name, attempt)

    def patiently(self, name: str, attempt: Callable[[], T]) -> T:
        """Call ``attempt`` until it returns, with pauses that grow; give up after the client's attempts.

        Raises:
            UnreachableError: every attempt ended in a ``TransientError``.
            FetchError: as ``attempt`` raised it, or the client was stopped.
        """
        failures = 0
        while True:
            try:
                return attempt()
            except TransientError as error:
                failures = 1 if error.progressed else failures + 1
                if self._stop.is_set():
                    raise FetchError(f"{name}: stopped") from None
                if failures >= self._attempts:
                    raise UnreachableError(f"{name}: {error} ({failures} attempts)") from None
                pause = self._wait_s * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
                if error.retry_after_s > pause:
                    pause = min(error.retry_after_s, MAX_WAIT_S)
                    with self._lock:  # a server that asks to wait means all of our connections
                        self._not_before = max(self._not_before, time.monotonic() + pause)
                logger.info("%s: %s; trying again in %.1f s", name, error, pause)
                self._stop.wait(pause)

    @contextmanager
    def open(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        statuses: Collection[int] = (200, 206, 416),
    ) -> Iterator[Reply]:
        """Give the beginning of an answer whose status is one of ``statuses``. One attempt.

        Raises:
            FetchError: any other status, a redirect to elsewhere, or a certificate that cannot be checked.
            TransientError: the server did not answer, or asks to come again.
        """
        target, name = self._address.target(path, query), path or self.base_url
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._request(name, target, headers or {})
            try:
                if reply.status in _REDIRECTS:
                    try:
                        target = self._address.redirected(target, reply.headers.get("Location", ""))
                    except ValueError:
                        raise FetchError(
                            f"{name}: the server sends us elsewhere; expected to stay on {self.host}",
                            reply.status,
                        ) from None
                    reply.drain()
                    continue
                if reply.status not in statuses:
                    reply.drain()
                    _refuse(name, reply)
                yield reply
                return
            finally:
                reply.close()
        raise FetchError(f"{name}: more than {MAX_REDIRECTS} redirects")

    def _await_turn(self) -> None:
        """Wait as long as the server asked for, and then for a turn among the requests of all threads."""
        with self._lock:
            begin = max(time.monotonic(), self._not_before, self._next if self._spacing_s else 0.0)
            self._next = begin + self._spacing_s
        self._stop.wait(max(0.0, begin - time.monotonic()))

    def _request(self, name: str, target: str, headers: Mapping[str, str]) -> Reply:
        sent = {"User-Agent": self._user_agent, "Accept": "*/*", **headers}
        while True:
            self._await_turn()
            if self._stop.is_set():
                raise FetchError(f"{name}: stopped")
            connection, used = self._connection()
            watched = False
            try:
                if connection.sock is None:
                    connection.connect()
                self._extend(connection, connection.sock)
                watched = True
                connection.request("GET", target, headers=sent)
                raw = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                expired = self._drop(connection) and watched
                if used and not expired and isinstance(error, ConnectionError):
                    continue  # the server had closed a connection that we kept
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise FetchError(
                        f"{self.host}: its certificate cannot be checked; name your own authorities in "
                        "SSL_CERT_FILE"
                    ) from None
                raise TransientError(why(error, expired=expired)) from None
            return Reply(self, connection, raw)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return this thread's connection, and whether it has been used before."""
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None and kept.sock is not None:
            return kept, True
        made = self._connect()
        self._own.connection = made
        with self._lock:
            self._connections.add(made)
            if kept is not None:
                self._connections.discard(kept)
        return made, False

    def _connect(self) -> http.client.HTTPConnection:
        host, port, timeout = self._address.host, self._address.port, self._timeout_s
        if self._address.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout)
        if self._tls is None:
            self._tls = ssl.create_default_context()
        proxy = "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https", "")
        if not proxy or self._address.is_loopback:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        there = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if there.scheme != "http" or not there.hostname:
            raise ConfigError("HTTPS_PROXY: expected http://host:port, the only kind that is spoken here")
        connection = http.client.HTTPSConnection(
            there.hostname, there.port or 80, timeout=timeout, context=self._tls
        )
        headers = {}
        if there.username is not None:
            words = f"{urllib.parse.unquote(there.username)}:{urllib.parse.unquote(there.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
        connection.set_tunnel(host, port, headers=headers)
        return connection

    def _extend(self, connection: http.client.HTTPConnection, sock: socket.socket | None = None) -> None:
        """Give the other side another timeout. Sockets' own timeouts never end a server that drips."""
        with self._lock:
            watched = sock or (self._deadlines[connection][1] if connection in self._deadlines else None)
            if watched is not None:
                self._deadlines[connection] = time.monotonic() + self._timeout_s, watched
            if self._watching is None:
                self._watching = threading.Thread(target=self._watch, name="fetch-deadlines", daemon=True)
                self._watching.start()

    def _settle(self, connection: http.client.HTTPConnection) -> bool:
        """End watching; return whether the deadline had passed."""
        with self._lock:
            return self._deadlines.pop(connection, None) is None

    def _drop(self, connection: http.client.HTTPConnection) -> bool:
        expired = self._settle(connection)
        with self._lock:
            self._connections.discard(connection)
        connection.close()
        return expired

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._timeout_s / 4)):
            now = time.monotonic()
            with self._lock:
                for connection in [one for one, (end, _) in self._deadlines.items() if end < now]:
                    _shut(self._deadlines.pop(connection)[1])


class Reply:
    """An answer whose body may still be on its way.

    Attributes:
        status: the HTTP status.
        headers: as the server sent them.
        length: the body's size in bytes, where the server says it.
        framed: whether a body that was cut can be told from a whole one.
        data: the body, once ``Client.get`` has read it.
    """

    def __init__(
        self, client: Client, connection: http.client.HTTPConnection, raw: http.client.HTTPResponse
    ) -> None:
        self.status: int = raw.status
        self.headers = raw.headers
        self.length: int | None = raw.length
        self.framed = raw.length is not None or bool(raw.chunked)
        self.data = b""
        self._client, self._connection, self._raw = client, connection, raw
        self._whole = False

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            TransientError: it was cut, or comes too slowly.
        """
        size = fresh = 0
        while True:
            try:
                chunk = self._raw.read1(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise TransientError(why(error, expired=self._client._settle(self._connection))) from None
            if not chunk:
                break
            size += len(chunk)
            fresh += len(chunk)
            if fresh >= MIN_BYTES:
                self._client._extend(self._connection)
                fresh = 0
            yield chunk
        expired = self._client._settle(self._connection)
        if expired or (self.length is not None and size < self.length):
            raise TransientError(why(ConnectionError(), expired=expired))
        self._whole = True

    def drain(self) -> None:
        """Read a short body that nobody wants, so that the connection can be kept."""
        if self.length is not None and self.length <= CHUNK_BYTES:
            with suppress(TransientError):
                for _ in self.chunks():
                    pass

    def close(self) -> None:
        """Keep the connection when the body was read to its end, close it otherwise."""
        if self._whole or (self.length == 0 and not self._raw.will_close):
            self._client._settle(self._connection)
            self._raw.close()
        else:
            self._client._drop(self._connection)


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits for this connection; it sees the end of the data."""
    with suppress(OSError):
        socket.socket.shutdown(
            sock, socket.SHUT_RDWR
        )  # a TLS socket's own method is not made for two threads


def _refuse(name: str, reply: Reply) -> None:
    if reply.status in _TRANSIENT:
        wait = seconds_to_wait(reply.headers.get("Retry-After", ""))
        raise TransientError(f"HTTP {reply.status}", retry_after_s=wait)
    reason = {404: "not there", 403: "not there, or not for us", 410: "not there any more"}
    raise FetchError(f"{name}: {reason.get(reply.status, 'refused')} (HTTP {reply.status})", reply.status)
