"""Indexes and encoders by their hub ids out of a cache, with nobody asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hub_cache import COMMIT, OPENING, cached, listing, printed, run_python
from hypothesis import given
from hypothesis import strategies as st
from samples import SMALL, build, documents, queries

from cmbert_retrieval import Retriever, load_encoder
from cmbert_retrieval.cli import main
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.errors import ConfigError, EncoderError, IndexCorruptError
from cmbert_retrieval.hub import is_hub_id
from cmbert_retrieval.hub.repository import covering_patterns
from cmbert_retrieval.indexes.manifest import read_manifest
from cmbert_retrieval.indexes.verify import verify

OTHER = "f" * 40

WITHOUT_NETWORK = """
import os, socket

def refuse(*args, **kwargs):
    os.write(2, f"a connection was tried: {args!r}".encode())
    os._exit(99)  # whatever would catch an exception

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
"""


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path: Path) -> Encoder:
    return load_encoder(tiny_encoder_path)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    """An index as it is published, with its encoder inside."""
    folder = tmp_path_factory.mktemp("offline")
    build(folder / "index", documents(12), encoder, *SMALL)
    with Retriever.from_pretrained(folder / "index") as opened:
        opened.save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture
def hub(tmp_path: Path, index: Path, tiny_encoder_path: Path) -> Path:
    """A cache with an index and an encoder."""
    cached(tmp_path / "hub", "someone/notes-index", index)
    cached(tmp_path / "hub", "someone/encoder", tiny_encoder_path)
    return tmp_path / "hub"


def answers(retriever: Retriever) -> list[list[tuple[str, float]]]:
    return [
        [(hit.id, hit.score) for hit in hits]
        for mode in ("lexical", "dense", "hybrid")
        for hits in retriever.search(queries(3), 5, mode=mode)
    ]


def message_of(name: str | Path, **options: Any) -> str:
    """Return the error of opening something, which is one line."""
    with pytest.raises(ConfigError) as caught:
        Retriever.from_pretrained(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what opens ---


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "refs/pr/3", COMMIT])
def test_an_index_opens_by_its_id(index: Path, hub: Path, revision: str | None) -> None:
    for ref in ("v1.0", "refs/pr/3"):
        path = hub / "models--someone--notes-index" / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(COMMIT)
    with (
        Retriever.from_pretrained(
            "someone/notes-index", cache_folder=hub, revision=revision, local_files_only=True
        ) as opened,
        Retriever.from_pretrained(index) as expected,
    ):
        assert answers(opened) == answers(expected)
        assert opened.reader.path.name == COMMIT
        assert opened.encoder is not None
        assert opened.encoder.source == str(opened.reader.path / "encoder")


def test_an_encoder_opens_by_its_id_and_knows_its_commit(hub: Path, encoder: Encoder) -> None:
    opened = load_encoder("someone/encoder", cache_folder=hub, local_files_only=True)
    assert (opened.source, opened.identity.revision) == ("someone/encoder", COMMIT)
    assert (opened.encode_query(["fever"]) == encoder.encode_query(["fever"])).all()


def test_index_and_encoder_may_both_be_hub_ids(index: Path, hub: Path) -> None:
    where: dict[str, Any] = {"cache_folder": hub, "local_files_only": True}
    with Retriever.from_pretrained(index) as retriever:
        expected = answers(retriever)
    for opened in (
        Retriever.from_pretrained("someone/encoder", index="someone/notes-index", **where),
        Retriever.from_pretrained("someone/encoder", index="someone/notes-index", revision=COMMIT, **where),
        Retriever.from_pretrained("someone/encoder", index=index, **where),
        Retriever.from_pretrained("someone/notes-index", encoder="someone/encoder", **where),
        Retriever.from_pretrained("someone/notes-index", encoder="someone/encoder", revision="main", **where),
        Retriever.from_pretrained(index, encoder="someone/encoder", **where),
    ):
        with opened:
            assert answers(opened) == expected
            assert opened.encoder is not None and opened.encoder.source == "someone/encoder"


def test_an_index_without_its_encoder_finds_it_by_its_id_and_commit(tmp_path: Path, hub: Path) -> None:
    where: dict[str, Any] = {"cache_folder": hub, "local_files_only": True}
    by_id = load_encoder("someone/encoder", **where)
    build(tmp_path / "index", documents(6), by_id)
    with Retriever.from_pretrained(tmp_path / "index", **where) as opened:
        expected = answers(opened)
        opened.save_pretrained(tmp_path / "bare", with_encoder=False)
    cached(hub, "someone/bare-index", tmp_path / "bare")
    # The main branch has moved on: the commit that made the vectors is what counts.
    (hub / "models--someone--encoder" / "refs" / "main").write_text(OTHER)
    with Retriever.from_pretrained("someone/bare-index", **where) as opened:
        assert answers(opened) == expected


def test_an_encoder_s_id_builds_a_bundled_recipe(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path / "built"))
    with pytest.raises(ConfigError, match="max_tokens"):  # found, opened and asked, without a build
        Retriever.from_pretrained(
            "someone/encoder", index="icd10cm", cache_folder=hub, local_files_only=True, max_tokens=10**6
        )


def test_searching_a_snapshot_writes_nothing_into_it(hub: Path) -> None:
    before = listing(hub)
    with Retriever.from_pretrained("someone/notes-index", cache_folder=hub, local_files_only=True) as opened:
        answers(opened)
        opened.search("heart", filter="year>=2010")
        assert verify(opened.reader.path, encoder=opened.encoder).problems == []
    assert listing(hub) == before


def test_a_folder_of_the_same_name_comes_first(
    index: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_encoder_path: Path
) -> None:
    shutil.copytree(index, tmp_path / "someone" / "notes-index")
    shutil.copytree(tiny_encoder_path, tmp_path / "someone" / "encoder")
    monkeypatch.chdir(tmp_path)
    with Retriever.from_pretrained("someone/notes-index", cache_folder=hub, local_files_only=True) as opened:
        assert opened.reader.path == tmp_path / "someone" / "notes-index"
    assert load_encoder("someone/encoder", cache_folder=hub).source == str(tmp_path / "someone" / "encoder")


def test_saving_a_snapshot_makes_a_folder_without_links(hub: Path, tmp_path: Path) -> None:
    with Retriever.from_pretrained("someone/notes-index", cache_folder=hub, local_files_only=True) as opened:
        expected = answers(opened)
        opened.save_pretrained(tmp_path / "saved")
    shutil.rmtree(hub)
    assert not any(path.is_symlink() for path in (tmp_path / "saved").rglob("*"))
    with Retriever.from_pretrained(tmp_path / "saved") as opened:
        assert answers(opened) == expected


# --- nobody is asked ---


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({}, {"HF_HUB_OFFLINE": "1"}),
        ({"local_files_only": True}, {}),
        ({"revision": COMMIT}, {}),
        ({"encoder": "someone/encoder"}, {"HF_HUB_OFFLINE": "1"}),
    ],
)
def test_no_connection_is_tried(
    hub: Path, tmp_path: Path, options: dict[str, Any], variables: dict[str, str]
) -> None:
    done = run_python(
        WITHOUT_NETWORK + OPENING,
        "someone/notes-index",
        json.dumps(options),
        home=tmp_path,
        HF_HUB_CACHE=str(hub),
        **variables,
    )
    assert len(printed(done)) == 5
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["./my-indx", "my-indx", "~/my-indx", "a/b/c", "/nowhere/x", "x y/z"])
def test_what_is_no_hub_id_asks_nobody(tmp_path: Path, name: str) -> None:
    done = run_python(WITHOUT_NETWORK + OPENING, name, "{}", home=tmp_path)
    assert f"'{name}': no such folder, no bundled recipe and no hub id" in printed(done)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_kernel_sees_no_connection_to_another_machine(hub: Path, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    trace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(log)]
    if subprocess.run([*trace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not run here")
    code = f"import subprocess, sys; sys.exit(subprocess.call({[*trace, sys.executable]!r} + sys.argv[1:]))"
    done = run_python(
        code,
        "-c",
        OPENING,
        "someone/notes-index",
        "{}",
        home=tmp_path,
        HF_HUB_OFFLINE="1",
        HF_HUB_CACHE=str(hub),
    )
    assert len(printed(done)) == 5
    assert [line for line in log.read_text().splitlines() if re.search(r"AF_INET|sin6?_addr", line)] == []


def test_a_typed_path_is_told_from_an_id() -> None:
    assert is_hub_id("someone/notes-index") and is_hub_id("BAAI/bge-m3") and is_hub_id("a/b.c_d")
    for name in ("./x", "../x", "~/x", "/x/y", "x", "a/b/c", "", "a/", "/b", "a b/c", "a/b\n", "-/x", "a\\b"):
        assert not is_hub_id(name), name
    assert not is_hub_id(Path("someone/notes-index"))


# --- one line for what does not open ---


def test_an_encoder_alone_says_what_to_search(hub: Path) -> None:
    message = message_of("someone/encoder", cache_folder=hub, local_files_only=True)
    assert message.startswith("'someone/encoder' is an encoder: say what to search")
    assert "index='icd10cm'" in message and "cmbert index build" in message


def test_an_index_is_no_encoder(hub: Path) -> None:
    with pytest.raises(EncoderError, match=r"'someone/notes-index' is an index, expected an encoder"):
        load_encoder("someone/notes-index", cache_folder=hub, local_files_only=True)


def test_what_is_neither_index_nor_encoder_says_so(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "README.md").write_text("hello")
    cached(hub, "someone/plain", tmp_path / "plain")
    message = message_of("someone/plain", cache_folder=hub, local_files_only=True)
    assert "holds neither an index (no manifest.json) nor an encoder" in message


def test_what_was_never_fetched_says_how_to_fetch_it(hub: Path) -> None:
    message = message_of("someone/nothing", cache_folder=hub, local_files_only=True)
    assert message.startswith("'someone/nothing': no such folder, no bundled recipe, and the hub's cache")
    assert f"hf download someone/nothing --cache-dir {hub}" in message
    with pytest.raises(EncoderError, match=r"hf download someone/nothing --revision v2 --cache-dir"):
        load_encoder("someone/nothing", revision="v2", cache_folder=hub, local_files_only=True)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x" * 300 + "/y", "a\nb", "", " ", "a..b/c--d"])
def test_a_name_that_nothing_can_have_is_one_line(hub: Path, name: str) -> None:
    with pytest.raises(EncoderError) as caught:
        load_encoder(name, cache_folder=hub, local_files_only=True)
    assert len(str(caught.value).replace(name, "").splitlines()) == 1


def test_a_typo_in_a_folder_s_name_is_seen_in_the_message(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "indexes").mkdir()
    monkeypatch.chdir(tmp_path)
    message = message_of("indexes/my-indx", cache_folder=hub, local_files_only=True)
    assert "no such folder ('indexes' is a folder here, without 'my-indx'), no bundled recipe" in message


def test_an_unknown_revision_names_those_that_are_there(hub: Path, index: Path) -> None:
    cached(hub, "someone/notes-index", index, commit=OTHER, ref="v1")
    cached(hub, "someone/notes-index", index, commit="a" * 40, ref=None)
    for revision in ("v2", "b" * 40, "../../x", "", "a\0b", "x" * 300):
        message = message_of(
            "someone/notes-index", revision=revision or "''", cache_folder=hub, local_files_only=True
        )
        assert f"holds 'main' ({COMMIT[:8]}), 'v1' ({OTHER[:8]}), '{'a' * 40}' of it, not" in message
        assert "take one of these with revision=" in message


def test_a_part_of_an_index_is_not_opened(hub: Path) -> None:
    snapshot = hub / "models--someone--notes-index" / "snapshots" / COMMIT
    next(snapshot.glob("segments/*/vectors.faiss")).unlink()
    message = message_of("someone/notes-index", cache_folder=hub, local_files_only=True)
    assert "holds only a part of it" in message and "hf download someone/notes-index" in message


def test_a_part_of_an_encoder_is_not_opened(hub: Path) -> None:
    (hub / "models--someone--encoder" / "snapshots" / COMMIT / "onnx" / "model.onnx").unlink()
    with pytest.raises(EncoderError, match="holds only a part of it"):
        load_encoder("someone/encoder", cache_folder=hub, local_files_only=True)


def test_a_file_of_another_size_is_refused_before_anything_opens_it(hub: Path) -> None:
    snapshot = hub / "models--someone--notes-index" / "snapshots" / COMMIT
    store = next(snapshot.glob("segments/*/documents.sqlite"))
    store.resolve().write_bytes(b"no database at all")
    with pytest.raises(IndexCorruptError, match=r"documents\.sqlite has 18 bytes, expected [\d,]+; tell its"):
        Retriever.from_pretrained("someone/notes-index", cache_folder=hub, local_files_only=True)


NAMES = st.lists(st.sampled_from(["a", "b*", "[c]", "d?", "e-f", "[!g]", "]"]), min_size=1, max_size=3)


@given(
    st.sets(NAMES.map("/".join), max_size=12),
    st.sets(NAMES.map(lambda parts: "/".join(parts) + "/x"), min_size=1, max_size=6),
)
def test_patterns_match_what_is_wanted_and_nothing_else(others: set[str], wanted: set[str]) -> None:
    files = wanted | others
    patterns = covering_patterns(wanted, files)
    assert {file for file in files if any(fnmatchcase(file, one) for one in patterns)} == wanted


def test_a_folder_that_is_wanted_whole_is_one_pattern() -> None:
    wanted = [f"segments/00007/vectors-{number:05d}.npy" for number in range(5000)]
    assert covering_patterns(wanted, [*wanted, "README.md"]) == ["segments/00007/*"]
    assert len(covering_patterns(wanted, [*wanted, "segments/00007/foreign"])) == 5000


# --- the card, and the command ---


def test_a_saved_index_has_a_card_that_counts_and_names_but_tells_no_text(index: Path) -> None:
    import yaml

    card = (index / "README.md").read_text()
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "cmbert-retrieval"
    manifest = read_manifest(index)
    assert f"12 documents in {manifest.rows:,} rows" in body
    assert "| not named by the source | 12 |" in body and "tiny-encoder" in body and "32 dimensions" in body
    assert not any(document.text[:30] in card or document.title in card for document in documents(12))
    assert "README.md" not in manifest.files
    result = verify(index)
    assert result.problems == result.leftovers == []


def test_the_command_takes_a_hub_id(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from cmbert_retrieval.cli import main; sys.exit(main())"
    asked = ("search", "someone/notes-index", "heart failure", "-k", "3", "--local-files-only")
    done = run_python(code, *asked, "--revision", COMMIT, home=tmp_path, HF_HUB_CACHE=str(hub))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 3
    done = run_python(code, *asked, "--revision", "v7", home=tmp_path, HF_HUB_CACHE=str(hub))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "not 'v7'" in done.stderr
    assert main(["codes", "--index", "./nothing", "--local-files-only", "fever"]) == 1
    assert "no such folder" in capsys.readouterr().err
