"""From a name to an open retriever, and back: folders, encoders, hub ids, and what is none of these."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from samples import SMALL, Wrapper, add, build, delete, documents, queries

from cmbert_retrieval import CodeSearcher, Document, Retriever, load_encoder
from cmbert_retrieval.config import IndexRecipe
from cmbert_retrieval.corpora import open_corpus
from cmbert_retrieval.encoders.base import Encoder
from cmbert_retrieval.encoders.onnx import OnnxEncoder
from cmbert_retrieval.errors import CmbertError, ConfigError, EncoderError, IndexMismatchError
from cmbert_retrieval.indexes.manifest import read_manifest
from cmbert_retrieval.indexes.reader import IndexReader
from cmbert_retrieval.indexes.verify import verify
from cmbert_retrieval.indexes.writer import IndexWriter
from cmbert_retrieval.opening import TemporaryFolder

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Answers = list[list[tuple[str, float]]]


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path: Path) -> Encoder:
    return load_encoder(tiny_encoder_path)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    folder = tmp_path_factory.mktemp("opening") / "index"
    build(folder, documents(12), encoder, *SMALL)
    add(folder, documents(4, first=20), encoder)
    delete(folder, ["note-3"])
    return folder


def answers(retriever: Retriever) -> Answers:
    return [
        [(hit.id, hit.score) for hit in hits]
        for mode in ("lexical", "dense", "hybrid")
        for hits in retriever.search(queries(3), 5, mode=mode)
    ]


# --- folders ---


def test_a_folder_opens_with_the_encoder_that_it_names(index: Path, encoder: Encoder) -> None:
    with Retriever.from_pretrained(index) as opened, Retriever(IndexReader(index), encoder) as expected:
        assert answers(opened) == answers(expected)
        assert opened.encoder is not None and opened.encoder.identity == encoder.identity
    with Retriever.from_pretrained(str(index)) as opened:
        assert len(opened) == 15


def test_opening_loads_no_encoder_until_a_query_needs_it(index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "index")
    manifest = read_manifest(tmp_path / "index")
    assert manifest.encoder is not None
    with Retriever.from_pretrained(tmp_path / "index") as opened:
        assert opened.search("heart", mode="lexical")
        assert opened._encoder is None


def test_the_encoder_may_be_named(index: Path, tiny_encoder_path: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_encoder_path, tmp_path / "copy")
    with Retriever.from_pretrained(index) as expected:
        for opened in (
            Retriever.from_pretrained(index, encoder=tmp_path / "copy"),
            Retriever.from_pretrained(tmp_path / "copy", index=index),
            Retriever.from_pretrained(str(tmp_path / "copy"), index=str(index), threads=1),
        ):
            with opened:
                assert answers(opened) == answers(expected)
    with pytest.raises(ConfigError, match="give the encoder once"):
        Retriever.from_pretrained(tmp_path / "copy", index=index, encoder=tmp_path / "copy")


def test_another_encoder_is_refused_when_it_is_named(index: Path, tiny_encoder_path: Path) -> None:
    with pytest.raises(IndexMismatchError, match="max_tokens"):
        Retriever.from_pretrained(index, encoder=tiny_encoder_path, max_tokens=32)
    with pytest.raises(IndexMismatchError, match="prompts"):
        Retriever.from_pretrained(tiny_encoder_path, index=index, prompts={"query": "q: "})


def test_saving_makes_a_folder_that_opens_anywhere(index: Path, tmp_path: Path) -> None:
    with Retriever.from_pretrained(index) as opened:
        expected = answers(opened)
        opened.save_pretrained(tmp_path / "saved")
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "saved").rename(tmp_path / "elsewhere" / "moved")
    assert (moved / "encoder" / "config.json").is_file()
    manifest = read_manifest(moved)
    assert manifest.encoder is not None and manifest.encoder.source == "encoder"
    assert any(name.startswith("encoder/") for name in manifest.files)
    result = verify(moved)
    assert result.problems == result.leftovers == []
    with Retriever.from_pretrained(moved) as opened:
        assert answers(opened) == expected
        assert opened.encoder is not None and opened.encoder.source == str(moved / "encoder")
        opened.save_pretrained(tmp_path / "again")
    with Retriever.from_pretrained(tmp_path / "again") as opened:
        assert answers(opened) == expected
    # It is an index like any other.
    with Retriever.from_pretrained(moved) as opened:
        again = opened.encoder
    add(moved, documents(2, first=50), again)
    assert verify(moved, encoder=again).problems == []
    assert (moved / "encoder" / "config.json").is_file()


def test_saving_an_index_whose_encoder_came_from_the_hub_opens_the_copy_inside(
    tmp_path: Path, encoder: Encoder
) -> None:
    from_hub = Wrapper(encoder, name="someone/encoder", revision=COMMIT)
    build(tmp_path / "index", documents(4), from_hub)
    with Retriever(IndexReader(tmp_path / "index"), from_hub) as opened:
        expected = answers(opened)
        opened.save_pretrained(tmp_path / "saved")
    with Retriever.from_pretrained(tmp_path / "saved") as opened:
        assert answers(opened) == expected


def test_saving_without_the_encoder_and_of_words_alone(
    index: Path, tmp_path: Path, tiny_encoder_path: Path
) -> None:
    with Retriever.from_pretrained(index) as opened:
        expected = answers(opened)
        opened.save_pretrained(tmp_path / "whole")
        opened.save_pretrained(tmp_path / "bare", with_encoder=False)
    with Retriever.from_pretrained(tmp_path / "whole") as opened:
        opened.save_pretrained(tmp_path / "bare again", with_encoder=False)
    for folder in (tmp_path / "bare", tmp_path / "bare again"):
        assert not (folder / "encoder").exists()
        with Retriever.from_pretrained(folder, encoder=tiny_encoder_path) as opened:
            assert answers(opened) == expected
        with Retriever.from_pretrained(folder) as opened:
            assert opened.search("heart", mode="lexical")
            with pytest.raises(EncoderError, match="'tiny-encoder' from a folder, which is not here; name"):
                opened.search("heart", mode="dense")
    with Retriever.from_documents(documents(3), encoder="none") as opened:
        opened.save_pretrained(tmp_path / "words")
    with Retriever.from_pretrained(tmp_path / "words") as opened:
        assert len(opened) == 3 and opened.encoder is None


@pytest.mark.parametrize("with_encoder", [True, False])
def test_what_is_saved_knows_where_the_encoder_is_on_the_hub(
    tmp_path: Path, encoder: Encoder, with_encoder: bool
) -> None:
    class FromHub(Wrapper):
        source = "someone/encoder"

    build(tmp_path / "index", documents(4), FromHub(encoder, name="someone/encoder", revision=COMMIT))
    with Retriever(IndexReader(tmp_path / "index"), FromHub(encoder)) as opened:
        opened.save_pretrained(tmp_path / "saved", with_encoder=with_encoder)
    entry = read_manifest(tmp_path / "saved").encoder
    assert entry is not None and (entry.source, entry.identity.revision) == ("someone/encoder", COMMIT)


def test_what_is_saved_names_no_folder_of_this_machine(tmp_path: Path, tiny_encoder_path: Path) -> None:
    shutil.copytree(tiny_encoder_path, tmp_path / "private" / "model")
    texts = tmp_path / "private" / "notes.jsonl"
    texts.write_text("".join(f'{{"id": "{n}", "text": "heart {n}"}}\n' for n in range(5)))
    recipe = IndexRecipe.for_corpus(
        "jsonl", texts, overrides=[f"encoder.model={tmp_path / 'private' / 'model'}", "passages=none"]
    )
    with IndexWriter(tmp_path / "index") as writer:
        corpus = open_corpus(recipe.source.reader, recipe.source.path)
        writer.build(corpus, recipe, load_encoder(tmp_path / "private" / "model"))
    for with_encoder in (True, False):
        saved = tmp_path / f"saved-{with_encoder}"
        with Retriever.from_pretrained(tmp_path / "index") as opened:
            opened.save_pretrained(saved, with_encoder=with_encoder)
        for path in saved.rglob("*"):
            assert path.is_dir() or b"private" not in path.read_bytes(), path
        manifest = read_manifest(saved)
        assert manifest.recipe["source"]["path"] == manifest.sources[0]["path"] == "notes.jsonl"
        assert manifest.recipe["encoder"]["model"] == "model"
        assert verify(saved).problems == []
    with Retriever.from_pretrained(tmp_path / "saved-True") as opened:
        assert opened.search("heart", mode="dense")


def test_an_encoder_that_was_named_by_a_relative_folder_is_found_from_anywhere(
    tmp_path: Path, tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_encoder_path, tmp_path / "models" / "tiny")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Retriever.from_documents(documents(3), encoder="models/tiny", path=tmp_path / "index"):
        pass
    monkeypatch.chdir(tmp_path / "elsewhere")
    with Retriever.from_pretrained(tmp_path / "index") as opened:
        assert opened.search("heart", mode="dense")


def test_an_index_opens_with_the_prompts_and_the_length_that_made_its_vectors(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    own = load_encoder(tiny_encoder_path, prompts={"query": "query: "}, max_tokens=32)
    build(tmp_path / "index", documents(6), own)
    with Retriever(IndexReader(tmp_path / "index"), own) as expected:
        for options in ({}, {"encoder": tiny_encoder_path}):
            with Retriever.from_pretrained(tmp_path / "index", **options) as opened:
                assert answers(opened) == answers(expected)
        expected.save_pretrained(tmp_path / "saved")
        with Retriever.from_pretrained(tmp_path / "saved") as opened:
            assert answers(opened) == answers(expected)
    # What is asked for by name wins, and is refused.
    with (
        Retriever.from_pretrained(tmp_path / "index", max_tokens=16) as opened,
        pytest.raises(IndexMismatchError, match=r"max_tokens 32.* 16"),
    ):
        opened.search("heart")


def test_a_pooling_that_the_export_has_built_in_needs_no_torch(tiny_encoder_path: Path) -> None:
    same = load_encoder(tiny_encoder_path, pooling="mean")
    assert isinstance(same, OnnxEncoder)
    with pytest.raises(EncoderError, match=r"pooling='cls', but the export has 'mean' built in"):
        load_encoder(tiny_encoder_path, backend="onnx", pooling="cls")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_ends_leaves_the_temporary_index_to_its_parent(tmp_path: Path) -> None:
    folder = TemporaryFolder("cmbert-test-")
    child = os.fork()
    if child == 0:
        try:
            folder.cleanup()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert Path(folder.name).is_dir()
    folder.cleanup()
    assert not Path(folder.name).exists()


def test_saving_over_something_is_refused(index: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with Retriever.from_pretrained(index) as opened:
        for target in (tmp_path / "full", tmp_path / "file", index):
            with pytest.raises(ConfigError, match="not empty; choose a new folder"):
                opened.save_pretrained(target)
        opened.save_pretrained(tmp_path / "empty")
    assert verify(tmp_path / "empty").problems == []


def test_saving_while_the_index_goes_on_saves_the_commit_that_is_open(index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "index")
    with Retriever.from_pretrained(tmp_path / "index") as opened:
        expected = answers(opened)
        delete(tmp_path / "index", ["note-1", "note-2"])
        opened.save_pretrained(tmp_path / "saved")
    with Retriever.from_pretrained(tmp_path / "saved") as opened:
        assert answers(opened) == expected


# --- what is no index ---


def test_an_encoder_alone_names_both_ways_on(tiny_encoder_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Retriever.from_pretrained(tiny_encoder_path)
    message = str(caught.value)
    assert message.startswith(f"'{tiny_encoder_path}' is an encoder: say what to search")
    assert "index='icd10cm'" in message and "cmbert index build" in message and "\n" not in message


def test_an_empty_folder_and_a_missing_one_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CmbertError, match=r"no manifest\.json"):
        Retriever.from_pretrained(tmp_path)
    for name in (tmp_path / "nowhere", f"{tmp_path}/no/where", "./nowhere", "~nobody/nowhere"):
        with pytest.raises(ConfigError, match=r"no such folder, no bundled recipe"):
            Retriever.from_pretrained(name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CmbertError):
        Retriever.from_pretrained(tmp_path / "file")


@pytest.mark.parametrize(
    "name", ["icd10", "nobody", "a/b/c", "", " ", "no body/x", "../x", "x" * 300, "x" * 300 + "/x", "a\0b"]
)
def test_an_unknown_name_names_the_bundled_recipe(name: str) -> None:
    with pytest.raises(CmbertError, match=r"icd10cm|no index in \.") as caught:
        Retriever.from_pretrained(name, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_index_may_be_a_folder_a_recipe_or_a_hub_id_but_nothing_else(
    tiny_encoder_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(CmbertError, match=r"no index in .* \(no manifest\.json\)"):
        Retriever.from_pretrained(tiny_encoder_path, index=tmp_path)
    for name in ("icd11", "./icd11", "a/b/c", Path("a/b")):
        with pytest.raises(
            ConfigError, match=r"neither a folder with a manifest\.json nor a bundled recipe nor a hub id"
        ):
            Retriever.from_pretrained(tiny_encoder_path, index=name)


def test_a_revision_of_what_has_none_is_refused(index: Path, tiny_encoder_path: Path) -> None:
    for name, what in ((index, "a folder"), ("icd10cm", "a bundled recipe")):
        with pytest.raises(ConfigError, match=f"revision is 'main'; expected none for {what}"):
            Retriever.from_pretrained(name, revision="main")


def test_an_unfinished_build_says_to_finish_it(tmp_path: Path, encoder: Encoder) -> None:
    bad = Wrapper(encoder)
    bad.poison["Zoonosis"] = float("nan")
    with pytest.raises(EncoderError):
        build(tmp_path / "index", [*documents(9), Document("bad", "Zoonosis")], bad, *SMALL)
    with pytest.raises(CmbertError, match="run it again to finish it"):
        IndexReader(tmp_path / "index")


# --- bundled recipes ---


def test_a_bundled_recipe_is_built_of_words_alone_where_there_is_no_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMBERT_CACHE", str(tmp_path / "built"))
    with Retriever.from_pretrained("icd10cm", encoder="none", cache_folder=tmp_path / "hub") as retriever:
        assert retriever.reader.path.is_relative_to(tmp_path / "built")
        assert retriever.encoder is None
        assert CodeSearcher(retriever).search("heart attack", 1)[0].code.code == "I21"


def test_no_encoder_for_an_index_with_vectors_is_an_error_that_names_the_mode(index: Path) -> None:
    with pytest.raises(ConfigError, match=r"has vectors; to search it by its words alone.*--mode lexical"):
        Retriever.from_pretrained(index, encoder="none")
