"""Uploads to a hub and downloads from it, by its own client, over the loopback interface."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_cache import OPENING, cached, printed, run_python
from hub_server import LoopbackHub, Repo, loopback_hub
from samples import SMALL, add, build, documents

from cmbert_retrieval import Retriever, load_encoder
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.indexes.manifest import Manifest

LOADING = """
import json, sys
from cmbert_retrieval import CmbertError, load_encoder
try:
    encoder = load_encoder(sys.argv[1], **json.loads(sys.argv[2]))
    print(json.dumps(encoder.identity.revision))
except CmbertError as error:
    print(json.dumps(str(error)))
"""

PUSHING = """
import json, sys
from cmbert_retrieval import CmbertError, Retriever
folder, name, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    with Retriever.from_pretrained(folder) as retriever:
        print(json.dumps(retriever.push_to_hub(name, **options)))
except CmbertError as error:
    print(json.dumps(str(error)))
"""

TOKEN = {"token": "hf_loopback"}


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path: Path) -> Encoder:
    return load_encoder(tiny_encoder_path)


@pytest.fixture
def index(tmp_path: Path, encoder: Encoder) -> Path:
    build(tmp_path / "index", documents(12), encoder, *SMALL)
    return tmp_path / "index"


@pytest.fixture
def published(tmp_path: Path, index: Path) -> Path:
    """The index as it is uploaded."""
    with Retriever.from_pretrained(index) as opened:
        opened.save_pretrained(tmp_path / "published")
    return tmp_path / "published"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with loopback_hub() as served:
        yield served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def ask(hub: LoopbackHub, home: Path, code: str, *args: Any, **variables: str) -> Any:
    """Run code against the hub and return what it prints; what it asked stays in ``hub.requests``."""
    hub.requests.clear()
    given = [arg if isinstance(arg, str | Path) else json.dumps(arg) for arg in args]
    return printed(run_python(code, *given, home=home, endpoint=hub.url, **variables))


# --- up and down ---


def test_what_is_pushed_opens_by_its_id_as_it_was(hub: LoopbackHub, home: Path, index: Path) -> None:
    expected = printed(run_python(OPENING, index, "{}", home=home))
    address = ask(hub, home, PUSHING, index, "me/notes", TOKEN)
    repo = hub.repos["me/notes"]
    assert address == f"{hub.url}/me/notes/commit/{repo.branches['main']}"
    assert repo.private
    assert 'from_pretrained("me/notes")' in repo.commits[repo.branches["main"]]["README.md"].decode()
    assert ask(hub, home, OPENING, "me/notes", TOKEN) == expected
    # Once fetched: a branch is asked for, in one request; a commit is not; and offline nobody is.
    assert ask(hub, home, OPENING, "me/notes", TOKEN) == expected
    assert hub.requests == ["GET /api/models/me/notes/revision/main"]
    assert ask(hub, home, OPENING, "me/notes", {"revision": repo.branches["main"]}) == expected
    assert ask(hub, home, OPENING, "me/notes", {}, HF_HUB_OFFLINE="1") == expected
    assert ask(hub, home, OPENING, "me/notes", {"local_files_only": True}) == expected
    assert hub.requests == []


def test_only_what_the_manifest_names_is_fetched(hub: LoopbackHub, home: Path, published: Path) -> None:
    manifest = Manifest.from_bytes((published / "manifest.json").read_bytes(), published)
    for name in ("big.bin", "segments/00099/vectors.faiss", "encoder/optimizer.pt", "commits/00099"):
        (published / name).parent.mkdir(parents=True, exist_ok=True)
        (published / name).write_bytes(b"x")
    hub.publish("me/notes", published)
    assert len(ask(hub, home, OPENING, "me/notes", {})) == 5
    # The commit's own copy of the manifest has the same bytes, so it need not be sent twice.
    assert hub.downloaded("me/notes") - {"commits/00001"} == {"manifest.json", *manifest.files}


@pytest.mark.slow
def test_a_branch_that_moves_is_followed_and_a_commit_is_not(
    hub: LoopbackHub, home: Path, published: Path, encoder: Encoder
) -> None:
    first = hub.publish("me/notes", published)
    before = ask(hub, home, OPENING, "me/notes", {})
    add(published, [document for document in documents(40) if document.id not in before], encoder)
    second = hub.publish("me/notes", published)
    after = ask(hub, home, OPENING, "me/notes", {})
    assert after != before
    assert ask(hub, home, OPENING, "me/notes", {}, HF_HUB_OFFLINE="1") == after
    for commit, expected in ((first, before), (second, after)):
        assert ask(hub, home, OPENING, "me/notes", {"revision": commit}, HF_HUB_OFFLINE="1") == expected


@pytest.mark.slow
def test_a_commit_that_was_fetched_by_its_name_is_found_as_a_branch_afterwards(
    hub: LoopbackHub, home: Path, published: Path
) -> None:
    commit = hub.publish("me/notes", published)
    expected = ask(hub, home, OPENING, "me/notes", {"revision": commit})
    assert ask(hub, home, OPENING, "me/notes", {}) == expected
    assert hub.downloaded("me/notes") == set()
    assert ask(hub, home, OPENING, "me/notes", {}, HF_HUB_OFFLINE="1") == expected


@pytest.mark.slow
def test_a_download_that_was_cut_off_is_completed(hub: LoopbackHub, home: Path, published: Path) -> None:
    hub.publish("me/notes", published)
    expected = ask(hub, home, OPENING, "me/notes", {})
    snapshots = home / "hf" / "hub" / "models--me--notes" / "snapshots"
    store = next(snapshots.glob("*/segments/*/documents.sqlite"))
    store.resolve().unlink()
    store.unlink()
    message = ask(hub, home, OPENING, "me/notes", {}, HF_HUB_OFFLINE="1")
    assert "holds only a part of it, and HF_HUB_OFFLINE is set" in message
    message = printed(run_python(OPENING, "me/notes", "{}", home=home))
    assert "holds only a part of it, and the hub (http://127.0.0.1:9) cannot be reached" in message
    assert ask(hub, home, OPENING, "me/notes", {}) == expected
    assert hub.downloaded("me/notes") == {store.relative_to(store.parents[2]).as_posix()}


# --- encoders ---


@pytest.mark.slow
def test_one_form_of_an_encoder_s_weights_is_fetched_and_no_pickle(
    hub: LoopbackHub, home: Path, tmp_path: Path, tiny_encoder_path: Path
) -> None:
    import shutil

    shutil.copytree(tiny_encoder_path, tmp_path / "model")
    for name in ("pytorch_model.bin", "checkpoint-5/model.safetensors", "modeling_own.py", "onnx/old.pt"):
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(b"x")
    commit = hub.publish("me/encoder", tmp_path / "model")
    assert ask(hub, home, LOADING, "me/encoder", {}) == commit
    fetched = hub.downloaded("me/encoder")
    assert "onnx/model.onnx" in fetched and "tokenizer.json" in fetched and "1_Pooling/config.json" in fetched
    assert not [name for name in fetched if name.endswith((".bin", ".pt", ".py", ".safetensors"))]
    assert ask(hub, home, LOADING, "me/encoder", {"revision": commit}) == commit
    assert ask(hub, home, LOADING, "me/encoder", {}, HF_HUB_OFFLINE="1") == commit
    assert hub.requests == []


@pytest.mark.slow
def test_a_compact_encoder_is_fetched_with_the_weights_that_its_graph_lacks(
    hub: LoopbackHub, home: Path, tmp_path: Path, tiny_compact_path: Path
) -> None:
    commit = hub.publish("me/encoder", tiny_compact_path)
    assert ask(hub, home, LOADING, "me/encoder", {}) == commit
    assert {"onnx/model_int8.onnx", "model.safetensors"} <= set(hub.downloaded("me/encoder"))
    assert ask(hub, home, LOADING, "me/encoder", {}, HF_HUB_OFFLINE="1") == commit
    assert hub.requests == []


@pytest.mark.slow
def test_what_a_repository_is_not_is_said_before_anything_is_fetched(
    hub: LoopbackHub, home: Path, published: Path, tiny_encoder_path: Path
) -> None:
    hub.publish("me/encoder", tiny_encoder_path)
    hub.publish("me/notes", published)
    hub.repos["me/pickle"], hub.repos["me/other"] = Repo(), Repo()
    hub.repos["me/pickle"].commit({"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.repos["me/other"].commit({"data.csv": b"x"})
    for code, name, expected in (
        (OPENING, "me/encoder", "'me/encoder' is an encoder: say what to search"),
        (OPENING, "me/other", "'me/other': the repository holds neither an index"),
        (LOADING, "me/notes", "'me/notes' is an index, expected an encoder"),
        (LOADING, "me/other", "'me/other': the repository holds no encoder"),
        (LOADING, "me/pickle", "'me/pickle': its weights are a pickle (pytorch_model.bin)"),
    ):
        assert ask(hub, home, code, name, {}).startswith(expected)
        assert hub.downloaded(name) == set()


# --- refusals ---


REFUSALS: list[tuple[str, dict[str, str], str]] = [
    ("me/nothing", {}, "the hub has no repository of that name, or it is private; check the name, or"),
    ("me/private", {}, "or it is private"),
    ("me/private", {"token": "hf_wrong"}, "or it is private"),
    ("me/gated", {}, "access to it is restricted; ask for it at http"),
    ("me/notes", {"revision": "v9"}, "the hub has no revision 'v9' of it; expected a branch, a tag"),
    ("me/notes", {"revision": "f" * 40}, f"the hub has no revision '{'f' * 40}' of it"),
]

REFUSED = """
import json, sys
from cmbert_retrieval import CmbertError, Retriever
for name, options in json.loads(sys.argv[1]):
    try:
        Retriever.from_pretrained(name, **options)
    except CmbertError as error:
        print(json.dumps(str(error)), end=",")
"""


def test_the_hub_s_refusals_are_one_line_without_the_token(
    hub: LoopbackHub, home: Path, published: Path
) -> None:
    hub.publish("me/notes", published)
    hub.publish("me/private", published, private=True)
    hub.publish("me/gated", published, gated=True)
    cases = json.dumps([(name, options) for name, options, _ in REFUSALS])
    done = run_python(REFUSED, cases, home=home, endpoint=hub.url)
    messages = json.loads(f"[{done.stdout.rstrip(',')}]")
    for (name, _, expected), message in zip(REFUSALS, messages, strict=True):
        assert message.startswith(f"'{name}': ") and expected in message
        assert "\n" not in message and "hf_wrong" not in message
    assert done.stderr == ""


@pytest.mark.slow
def test_a_token_may_come_from_the_environment(hub: LoopbackHub, home: Path, published: Path) -> None:
    hub.publish("me/private", published, private=True)
    assert len(ask(hub, home, OPENING, "me/private", {}, HF_TOKEN="hf_loopback")) == 5
    assert "none is kept on this machine" in ask(hub, home, OPENING, "me/other", {"token": True})


# --- a hub that does not answer ---


@pytest.mark.slow
def test_a_hub_that_is_down_leaves_what_was_fetched_before(
    hub: LoopbackHub, home: Path, published: Path
) -> None:
    commit = hub.publish("me/notes", published)
    expected = ask(hub, home, OPENING, "me/notes", {})
    for status, address in ((503, hub.url), (500, hub.url), (None, None)):  # None: nobody listens
        hub.status = status
        begun = time.monotonic()
        done = run_python(OPENING, "me/notes", "{}", home=home, endpoint=address)
        assert printed(done) == expected
        assert "cannot be reached" in done.stderr and f"(commit {commit[:8]})" in done.stderr
        assert done.stderr.count("\n") == 1
        assert time.monotonic() - begun < 10  # the hub's client alone tries for 24 seconds
    hub.status = None
    message = ask(hub, home, OPENING, "me/notes", {"revision": "v9"})
    assert "has no revision 'v9'" in message  # an answer, so what was fetched before is not taken


def test_a_hub_that_cannot_be_reached_is_one_line_after_a_few_seconds(home: Path) -> None:
    for code, name in ((OPENING, "me/notes"), (LOADING, "encoder")):
        for revision in (None, "f" * 40):
            begun = time.monotonic()
            done = run_python(code, name, json.dumps({"revision": revision}), home=home)
            message = printed(done)
            assert time.monotonic() - begun < 10
            assert "cannot be reached" in message and "hf download" in message and "\n" not in message
            assert done.stderr == ""


SILENT_NAMES = """
import socket, time
socket.getaddrinfo = lambda *args, **kwargs: time.sleep(60)
"""


def test_a_hub_that_never_answers_is_given_up(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for code, endpoint in ((OPENING, address), (SILENT_NAMES + OPENING, "http://hub.invalid")):
            begun = time.monotonic()
            done = run_python(code, "me/notes", "{}", home=home, endpoint=endpoint, HF_HUB_ETAG_TIMEOUT="1")
            assert time.monotonic() - begun < 10
            assert "cannot be reached" in printed(done)


def test_a_commit_in_the_cache_of_an_older_client_opens_though_nobody_answers(
    home: Path, tiny_encoder_path: Path
) -> None:
    snapshot = cached(home / "hf" / "hub", "me/encoder", tiny_encoder_path)
    done = run_python(LOADING, "me/encoder", json.dumps({"revision": snapshot.name}), home=home)
    assert printed(done) == snapshot.name
    assert "taken as it was fetched before" in done.stderr


# --- uploads ---


@pytest.mark.slow
def test_pushing_again_replaces_the_index_and_keeps_a_card_of_one_s_own(
    hub: LoopbackHub, home: Path, index: Path, tmp_path: Path, encoder: Encoder
) -> None:
    ask(hub, home, PUSHING, index, "me/notes", TOKEN)
    repo = hub.repos["me/notes"]
    repo.commit({**repo.commits[repo.branches["main"]], "README.md": b"mine", "figure.png": b"x"})
    build(tmp_path / "other", documents(5, seed=1), encoder)
    ask(hub, home, PUSHING, tmp_path / "other", "me/notes", TOKEN)
    files = repo.commits[repo.branches["main"]]
    manifest = Manifest.from_bytes(files["manifest.json"], Path("manifest.json"))
    ours = {"manifest.json", "commits/00001", *manifest.files}
    assert set(files) == ours | {"README.md", "figure.png", ".gitattributes"}
    assert files["README.md"] == b"mine"
    assert manifest.documents == 5


def test_nothing_is_uploaded_to_a_public_repository_by_default(
    hub: LoopbackHub, home: Path, index: Path
) -> None:
    hub.repos["me/public"] = Repo()
    before = hub.repos["me/public"].commit({"README.md": b"x"})
    message = ask(hub, home, PUSHING, index, "me/public", TOKEN)
    assert "'me/public' is there and public" in message and "private=False" in message
    assert hub.repos["me/public"].branches["main"] == before
    ask(hub, home, PUSHING, index, "me/public", {**TOKEN, "private": False})
    assert "manifest.json" in hub.repos["me/public"].commits[hub.repos["me/public"].branches["main"]]


@pytest.mark.slow
def test_a_branch_is_made_by_pushing_to_it(hub: LoopbackHub, home: Path, index: Path) -> None:
    ask(hub, home, PUSHING, index, "me/notes", {**TOKEN, "revision": "v1"})
    repo = hub.repos["me/notes"]
    assert "manifest.json" in repo.commits[repo.branches["v1"]]
    assert "manifest.json" not in repo.commits[repo.branches["main"]]
    assert len(ask(hub, home, OPENING, "me/notes", {**TOKEN, "revision": "v1"})) == 5


def test_an_upload_that_is_refused_is_one_line(hub: LoopbackHub, home: Path, index: Path) -> None:
    for options in ({}, {"token": "hf_wrong"}):
        message = ask(hub, home, PUSHING, index, "me/notes", options)
        assert message.startswith("'me/notes': the hub refuses the token, or asks for one (status 401)")
        assert "\n" not in message and "hf_wrong" not in message
    assert hub.repos == {}
    assert "HF_HUB_OFFLINE is set" in ask(hub, home, PUSHING, index, "me/notes", TOKEN, HF_HUB_OFFLINE="1")
    assert hub.requests == []
    done = run_python(PUSHING, index, "me/notes", "{}", home=home)
    assert "cannot be reached" in printed(done) and done.stderr == ""
