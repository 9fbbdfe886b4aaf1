"""Where may be fetched from, and why something could not be fetched."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import os
import socket
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from cmbert_retrieval.errors import ConfigError, CorpusError

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Variables by which users keep the ecosystem, and this library, off the network."""


class FetchError(CorpusError):
    """Something could not be fetched, and trying again right now would not help.

    Attributes:
        status: the server's HTTP status, 0 where there was none.
    """

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class UnreachableError(FetchError):
    """The server did not answer, or not with what was asked for, however often it was tried."""


class TransientError(Exception):
    """One attempt failed, and the next may not.

    Attributes:
        retry_after_s: how long the server asks to wait, if it does.
        progressed: whether something was gained, so that attempts are counted anew.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 0.0, progressed: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.progressed = progressed


_PORTS = {"https": 443, "http": 80}


def offline_variable() -> str | None:
    """Return the name of the variable that forbids the network, or None."""
    yes = ("1", "on", "yes", "true")
    return next((name for name in OFFLINE if os.environ.get(name, "").strip().lower() in yes), None)


@dataclass(frozen=True, slots=True)
class Address:
    """A folder on a server: https, or http on this machine."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Return what an address says.

        Raises:
            ConfigError: it is none that may be fetched from.
        """
        expected = "expected an address like https://host/folder/"
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError(f"base URL {url!r}: not well-formed; {expected}") from None
        host = (parts.hostname or "").rstrip(".")
        if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment:
            raise ConfigError(f"base URL {url!r}: {expected}")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("base URL: user names and passwords are not sent; leave them out")
        if parts.scheme == "http" and not _is_loopback(host):
            raise ConfigError(
                f"base URL {url!r}: plain http may be read and changed on its way; {expected} (http is for "
                "servers on this machine)"
            )
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], parts.path or "/")

    @property
    def is_loopback(self) -> bool:
        """Whether this is a server on this machine."""
        return _is_loopback(self.host)

    def target(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """Return the request target of a path below the address; the path is not quoted yet."""
        target = self.path.rstrip("/") + "/" + urllib.parse.quote(path)
        return f"{target}?{urllib.parse.urlencode(query)}" if query else target

    def redirected(self, target: str, location: str) -> str:
        """Return the request target that a redirect leads to.

        Raises:
            ValueError: it leads to another server, or to another port or scheme: nobody asked for that.
        """
        here = f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        there = urllib.parse.urlsplit(urllib.parse.urljoin(here + target, location))
        port = there.port or _PORTS.get(there.scheme, 0)
        if (there.scheme, there.hostname, port) != (self.scheme, self.host, self.port):
            raise ValueError("another server")
        query = f"?{urllib.parse.quote(there.query, safe='/?:@!$&()*+,;=%-._~')}" if there.query else ""
        return urllib.parse.quote(there.path or "/", safe="/%:@!$&()*+,;=~") + query


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def why(error: Exception, *, expired: bool = False) -> str:
    """Return what happened to a connection, in words of our own: no server chooses what we print."""
    if expired or isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "the host's name is not known here"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, ConnectionError | http.client.IncompleteRead):
        return "the connection was cut"
    if isinstance(error, http.client.HTTPException):
        return "not an HTTP answer"
    return str(getattr(error, "strerror", None) or "the connection failed").lower()


def seconds_to_wait(retry_after: str) -> float:
    """Return the seconds of a ``Retry-After`` header, which may be a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after[:9])
    try:
        then = email.utils.parsedate_to_datetime(retry_after)
        return max(0.0, then.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
