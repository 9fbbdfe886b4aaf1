from __future__ import annotations

import gzip
import json
import lzma
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmbert_retrieval.config import IndexRecipe, load_index_recipe
from cmbert_retrieval.corpora import hf_datasets, hf_files, open_corpus
from cmbert_retrieval.corpora.base import Corpus, Record
from cmbert_retrieval.errors import ConfigError, CorpusError, MissingExtraError
from cmbert_retrieval.types import Document

ROWS = [{"id": f"d{n}", "text": f"text {n}", "year": n, "nested": {"a": n}} for n in range(25)]


def opened(path: str | Path, **options: Any) -> Corpus:
    return open_corpus("datasets", path, **options)


def documents_of(corpus: Corpus) -> list[Document | None]:
    """Return all documents, having checked that reading goes on behind every record, and on from there."""
    records = list(corpus.records())
    for index, record in enumerate(records):
        rest = after(corpus, record)
        assert [r.document for r in rest] == [r.document for r in records[index + 1 :]]
        if rest:
            middle = len(rest) // 2
            again = after(corpus, rest[middle])
            assert [r.document for r in again] == [r.document for r in rest[middle + 1 :]]
    return [record.document for record in records]


def after(corpus: Corpus, record: Record) -> list[Record]:
    return list(corpus.records(json.loads(json.dumps(record.cursor))))


@pytest.fixture
def saved(tmp_path: Path, cache: None) -> Path:
    import datasets

    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    split = {"train": data.select(range(20)), "test": data.select(range(20, 25))}
    datasets.DatasetDict(split).save_to_disk(str(tmp_path / "split"))
    return tmp_path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


EXPECTED = [Document(row["id"], row["text"], "", {"year": row["year"]}) for row in ROWS]


def test_without_the_package_it_is_an_error_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    with pytest.raises(MissingExtraError, match=r"'datasets': pip install \"cmbert-retrieval\[data\]\""):
        opened("org/name")


def test_a_hub_id_stays_one_in_recipes_and_a_folder_becomes_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert IndexRecipe.for_corpus("datasets", "org/name").source.path == "org/name"
    assert IndexRecipe.for_corpus("datasets", "./org/name").source.path == str(tmp_path / "org/name")
    (tmp_path / "a.yaml").write_text("source: {reader: datasets, path: org/name}\n")
    assert load_index_recipe("a.yaml").source.path == "org/name"
    assert load_index_recipe("a.yaml", overrides=["source.path=x/y"]).source.path == "x/y"
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert IndexRecipe.for_corpus("datasets", "org/name").source.path == str(tmp_path / "org/name")
    assert IndexRecipe.for_corpus("jsonl", "x/y").source.path == str(tmp_path / "x/y")


@pytest.mark.slow
def test_a_dataset_that_was_saved_is_read(saved: Path) -> None:
    corpus = opened(saved / "saved")
    assert documents_of(corpus) == EXPECTED
    assert corpus.total() == 25


@pytest.mark.slow
def test_one_of_several_splits_has_to_be_named(saved: Path) -> None:
    corpus = opened(saved / "split", split="test")
    assert documents_of(corpus) == EXPECTED[20:]
    assert corpus.total() == 5
    with pytest.raises(CorpusError, match="several splits; there are: train, test; name one: --set source"):
        opened(saved / "split")
    with pytest.raises(CorpusError, match="no split 'dev'; there are: train, test"):
        opened(saved / "split", split="dev")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "json", "csv"])
def test_a_folder_of_data_files_is_read(kind: str, tmp_path: Path, cache: None) -> None:
    import datasets

    data = datasets.Dataset.from_list(ROWS).remove_columns("nested")
    (tmp_path / "data").mkdir()
    for number in range(3):
        part = data.shard(3, number, contiguous=True)
        getattr(part, f"to_{kind}")(str(tmp_path / "data" / f"train-{number}.{kind}"))
    assert documents_of(opened(tmp_path / "data")) == EXPECTED


@pytest.mark.slow
def test_columns_may_be_named_and_chosen(saved: Path) -> None:
    assert list(opened(saved / "saved", metadata="nested").strictly())[7].metadata == {"a": 7}
    assert list(opened(saved / "saved", metadata=["year"]).strictly()) == EXPECTED
    swapped = opened(saved / "saved", id="id", text="id", title="text", metadata=[])
    assert next(iter(swapped.strictly())) == Document("d0", "d0", "text 0")


@pytest.mark.slow
def test_a_row_that_cannot_be_used_is_a_problem_with_its_number(tmp_path: Path, cache: None) -> None:
    import datasets

    rows = [{"id": "a", "text": "x"}, {"id": "Zebedee b", "text": "x"}, {"id": "c", "text": None}]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    good, *bad = opened(tmp_path / "saved").records()
    assert good.document == Document("a", "x")
    assert [str(record.problem).partition("saved: ")[2] for record in bad] == [
        "row 2: the id holds white space or control characters; replace them",
        "row 3: column 'text' is absent, expected a string or a list of strings",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "options", "reason"),
    [
        ("org/nothing", {}, "'org/nothing' is no folder here, and not in the cache; HF_HUB_OFFLINE forbids"),
        ("nothing", {"revision": "abc"}, "'nothing' is no folder here, and not in the cache"),
        ("./nothing", {}, "'./nothing': no such folder; expected one, or a hub id such as org/name"),
        ("", {}, "reader 'datasets': the path is missing; expected datasets:PATH"),
        ("empty", {}, "'empty' cannot be opened ("),
        (
            "saved",
            {"text": "tekst"},
            "saved: no column 'tekst'; there are: id, text, year, nested",
        ),
        ("saved/state.json", {}, "'saved/state.json': not a folder"),
    ],
)
def test_what_cannot_be_opened_is_an_error_in_one_line(
    path: str, options: dict[str, Any], reason: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    (saved / "empty").mkdir()
    with pytest.raises(CorpusError) as caught:
        opened(path, **options)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_hub_dataset_that_the_cache_holds_is_read_offline(tmp_path: Path, cache: None) -> None:
    import datasets

    # The cache of the package itself, with the one difference that the hub's name makes.
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "train.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    datasets.load_dataset(str(tmp_path / "name"), split="train")
    (made,) = (tmp_path / "cache").glob("*/*/*/*/dataset_info.json")
    cached = tmp_path / "cache" / "org___name" / "default" / made.parts[-3] / made.parts[-2]
    cached.parent.mkdir(parents=True)
    made.parent.rename(cached)
    corpus = opened("org/name")
    assert documents_of(corpus) == EXPECTED
    assert corpus.sources()[0].checksum == f"revision:{cached.name}"


@pytest.mark.slow
def test_options_that_do_not_fit_are_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match="option 'revision' is for hub ids"):
        opened(saved / "saved", revision="main")
    with pytest.raises(ConfigError, match="option 'split': got 3, expected a text"):
        opened(saved / "saved", split=3)


@pytest.mark.slow
def test_data_that_break_on_the_way_are_an_error_without_their_text(tmp_path: Path, cache: None) -> None:
    lines = [json.dumps({"id": str(n), "text": "Zebedee", "year": n}) for n in range(100_000)]
    lines[-1] = '{"id": "last", "text": "Zebedee'
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(CorpusError, match="cannot be read on") as caught:
        for _ in opened(tmp_path / "data").records():
            pass
    assert "Zebedee" not in str(caught.value)


@pytest.mark.slow
def test_code_that_comes_with_a_dataset_is_not_run(tmp_path: Path, cache: None) -> None:
    folder = tmp_path / "tricky"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(ROWS[0]))
    (folder / "tricky.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    try:
        list(opened(folder).records())
    except CorpusError as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_local_dataset_is_read_without_any_connection(saved: Path) -> None:
    data = saved / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    program = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): print('connected'); raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from cmbert_retrieval.corpora import open_corpus\n"
        "for path in sys.argv[1:]: print(sum(1 for _ in open_corpus('datasets', path).strictly()))\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(saved / "home")}
    command = [sys.executable, "-c", program, str(saved / "saved"), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["25", "25"]


GOOD = json.dumps({"id": "a", "text": "b"}) + "\n"
DEEP = GOOD + '{"id": "Zebedee", "x": ' + "[" * 100_000 + "\n"


def zipped(path: Path, **members: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.jsonl", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        lambda folder: (folder / "a.json").write_text(f"[{DEEP}]"),
        lambda folder: [(folder / f"{n}.jsonl").write_text(text) for n, text in enumerate([GOOD, DEEP])],
        lambda folder: [(folder / f"{n}.jsonl").write_text(t) for n, t in (("train", GOOD), ("test", DEEP))],
        lambda folder: (folder / "a.jsonl.gz").write_bytes(gzip.compress(DEEP.encode())),
        lambda folder: (folder / "a.ndjson.xz").write_bytes(lzma.compress(DEEP.encode())),
        lambda folder: zipped(folder / "a.zip", good=GOOD, deep=DEEP),
        lambda folder: [
            (folder / "a.png").write_bytes(b""),
            (folder / "metadata.jsonl").write_text(DEEP.replace('"id"', '"file_name"')),
        ],
    ],
    ids=["a list", "another file", "another split", "gzip", "xz", "zip", "of images"],
)
def test_json_that_is_nested_very_deeply_is_refused_before_it_ends_the_process(
    write: Callable[[Path], Any], tmp_path: Path, cache: None
) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    with pytest.raises(
        CorpusError, match=r"cannot be read \(\w+\.\w+: JSON nested too deeply: more"
    ) as caught:
        opened(tmp_path / "data", split="train")
    assert "\n" not in str(caught.value) and "Zebedee" not in str(caught.value)


@pytest.mark.slow
def test_json_of_another_encoding_is_looked_over_in_that_encoding(tmp_path: Path, cache: None) -> None:
    card = "---\nconfigs:\n- config_name: default\n  data_files: a.jsonl\n  encoding: utf-16-le\n---\n"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text(card)
    path = tmp_path / "data" / "a.jsonl"
    path.write_bytes((GOOD + r'{"id": "\"", "text": "c"}').encode("utf-16-le"))
    assert [document.id for document in opened(tmp_path / "data").strictly()] == ["a", '"']
    path.write_bytes(r'{"id": "\"", "x": '.encode("utf-16-le") + ("[" * 100_000).encode("utf-16-le"))
    with pytest.raises(CorpusError, match="JSON nested too deeply"):
        opened(tmp_path / "data")


@pytest.mark.slow
def test_json_that_would_be_held_in_memory_is_refused_unless_asked_for(
    tmp_path: Path, cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_datasets, "MAX_BYTES", 1000)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a.json"
    row = {"id": "a", "text": "b", "list": ["c"] * 300}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(CorpusError, match=r"a\.json: a line of more than 1,000 bytes, which the package"):
        opened(tmp_path / "data", max_bytes=100)
    assert len(list(opened(tmp_path / "data", max_bytes=10_000).strictly())) == 1
    path.write_text("[" + ",\n".join([GOOD] * 100) + "]")
    with pytest.raises(CorpusError, match=r"a\.json: more than 1,000 bytes that are not JSON lines"):
        opened(tmp_path / "data", max_bytes=100)
    assert len(list(opened(tmp_path / "data", max_bytes=10_000).strictly())) == 100
    path.write_text(GOOD * 100)
    assert len(list(opened(tmp_path / "data", max_bytes=100).strictly())) == 100
    path.unlink()
    monkeypatch.setattr(hf_files, "_BLOCK_BYTES", 100)
    path = tmp_path / "data" / "a.csv"
    path.write_text('id,text\n"a","b"\n' + "c,d\n" * 1000)
    assert len(list(opened(tmp_path / "data", max_bytes=100).strictly())) == 1001
    path.write_text('id,text\n"a","b\n' + "c,d\n" * 1000)
    with pytest.raises(CorpusError, match=r"a\.csv: a cell of more than 1,000 bytes"):
        opened(tmp_path / "data", max_bytes=100)


@pytest.mark.slow
def test_offsets_that_point_out_of_an_arrow_file_are_refused_before_they_end_the_process(
    tmp_path: Path, cache: None
) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS[:3]).save_to_disk(str(tmp_path / "saved"))
    (path,) = (tmp_path / "saved").glob("*.arrow")
    whole = path.read_bytes()
    offsets = struct.pack("<4i", 0, 2, 4, 6)  # of the ids d0, d1, d2
    assert whole.count(offsets) == 1
    (tmp_path / "files").mkdir()
    for folder, name in ((tmp_path / "saved", path.name), (tmp_path / "files", "a.arrow")):
        for damaged in (whole.replace(offsets, struct.pack("<4i", 0, 2, 4, 2**30)), whole[: len(whole) // 2]):
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(damaged)
            with pytest.raises(CorpusError, match=r"cannot be (read|opened) \(") as caught:
                opened(folder)
            assert "\n" not in str(caught.value)
        (folder / name).unlink()
        (folder / name).write_bytes(whole)
        assert len(list(opened(folder).strictly())) == 3
