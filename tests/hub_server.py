"""A small hub on the loopback interface: the few endpoints by which repositories are made, read and written.

It keeps everything in memory and speaks what the hub's own client asks for, so that the client itself is
under test: ``HF_ENDPOINT`` of a process points here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repo:
    """Commits and branches of a repository."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str = "main") -> str:
        known = json.dumps([sorted(files), len(self.commits), branch]).encode()
        oid = hashlib.sha1(known + b"".join(files[name] for name in sorted(files))).hexdigest()
        self.commits[oid] = dict(files)
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


class LoopbackHub:
    """What the server serves, and what it was asked.

    Attributes:
        repos: by id.
        requests: ``"GET /path"``, in order.
        token: whoever sends this one may read private and gated repositories and write to all.
        status: answered to every request instead, where it is set.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.token = "hf_loopback"
        self.status: int | None = None
        self.url = ""

    def publish(self, name: str, folder: Path, *, branch: str = "main", **more: Any) -> str:
        """Put the files of a folder into a repository; return the commit."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return self.repos.setdefault(name, Repo(**more)).commit(files, branch)

    def downloaded(self, name: str) -> set[str]:
        """Return the files of a repository that somebody fetched."""
        found = (re.fullmatch(rf"GET /{name}/resolve/[^/]+/(.+)", request) for request in self.requests)
        return {unquote(match[1]) for match in found if match}


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    """Serve an empty hub."""
    hub = LoopbackHub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.served.requests.append(f"{self.command} {path}")
        if self.served.status is not None:
            return self._send(self.served.status, {"error": "down"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/([a-z]+)(?:/(.+))?)?", path):
            return self._api(found[1], found[2] or "revision", unquote(found[3] or "main"), body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(found[1], unquote(found[2]), unquote(found[3]))
        return self._send(404, {"error": "no such page"})

    @property
    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.served.token}"

    def _create(self, asked: dict[str, Any]) -> None:
        if not self._may_write:
            return self._send(401, {"error": "Invalid username or password."})
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.served.url}/{name}"
        if name in self.served.repos:
            return self._send(409, {"error": "You already created this model repo", "url": url})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.served.repos[name] = Repo(private=private)
        self.served.repos[name].commit({".gitattributes": b""})
        return self._send(200, {"url": url, "name": name})

    def _repo(self, name: str) -> Repo | None:
        """Return a repository, or refuse as the hub does and return None."""
        repo = self.served.repos.get(name)
        if repo is None or (repo.private and not self._may_write):
            # Whoever may not see a private repository is not told that it is there.
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repo

    def _api(self, name: str, what: str, revision: str, body: bytes) -> None:
        repo = self._repo(name)
        if repo is None:
            return None
        if self.command == "POST" and not self._may_write:
            return self._send(403, {"error": "Forbidden"})
        if what == "branch":
            if revision in repo.branches:
                return self._send(409, {"error": "Reference already exists"})
            repo.branches[revision] = repo.branches["main"]
            return self._send(200, {})
        commit = repo.resolve(revision)
        if commit is None:
            return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        files = repo.commits[commit]
        if what == "revision":
            siblings = [{"rfilename": path} for path in sorted(files)]
            info = {"id": name, "modelId": name, "sha": commit, "private": repo.private, "tags": []}
            return self._send(200, {**info, "downloads": 0, "likes": 0, "siblings": siblings})
        if what == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in sorted(files.items())
            ]
            return self._send(200, entries)
        if what == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self._send(200, {"files": modes})
        if what == "commit":
            return self._commit(name, repo, revision, body)
        return self._send(404, {"error": "no such page"})

    def _commit(self, name: str, repo: Repo, branch: str, body: bytes) -> None:
        files = dict(repo.commits[repo.branches[branch]])
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(files, branch)
        url = f"{self.served.url}/{name}/commit/{oid}"
        return self._send(200, {"commitUrl": url, "commitOid": oid, "pullRequestUrl": None})

    def _file(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return None
        if repo.gated and not self._may_write:
            return self._send(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        commit = repo.resolve(revision)
        data = repo.commits[commit].get(path) if commit is not None else None
        if data is None:
            code = "RevisionNotFound" if commit is None else "EntryNotFound"
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": code})
        etag = hashlib.sha1(data).hexdigest()
        return self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": str(commit)})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if isinstance(content, dict) and "error" in content:
            self.send_header("X-Error-Message", str(content["error"]))
        self.send_header(
            "Content-Type", "application/octet-stream" if data is content else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
