"""Fine-tuning runs: what is learnt, resumed to the last digit, shared out among processes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("accelerate", "datasets", "sentence_transformers"):
    pytest.importorskip(package)

from cmbert_retrieval.encoders import load_encoder  # noqa: E402
from cmbert_retrieval.errors import ConfigError  # noqa: E402
from cmbert_retrieval.finetuning.recipe import FinetuneRecipe  # noqa: E402
from cmbert_retrieval.finetuning.stages import prepare_all, run  # noqa: E402
from cmbert_retrieval.finetuning.students import Teacher  # noqa: E402
from cmbert_retrieval.finetuning.tables import Table  # noqa: E402
from cmbert_retrieval.pretraining.callbacks import NoBar  # noqa: E402

pytestmark = pytest.mark.slow  # torch

WORDS = "heart lung kidney skin liver brain knee pain rash stone attack cancer fever cough edema".split()


def sources(folder: Path) -> dict[str, Any]:
    random = np.random.default_rng(3)
    lines = []
    for number in range(300):
        title = " ".join(random.choice(WORDS, 3))
        seen = [" ".join(random.choice(WORDS, 4)) for _ in range(6)]
        text = " ".join(f"The {words} of {title} was seen again." for words in seen)
        lines.append(json.dumps({"_id": f"d{number}", "title": title, "text": text}))
    path = folder / "documents.jsonl"
    path.write_text("\n".join(lines))
    return {"articles": {"reader": "jsonl", "path": str(path), "texts": True,
                         "pairs": ["title-text", "sentence-context"]}}  # fmt: skip


def recipe(folder: Path, tiny: Path, **changes: Any) -> FinetuneRecipe:
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {"sources": sources(folder), "held_out": 0.2},
        "teacher": {"model": str(tiny), "max_tokens": 64},
        "negatives": {"count": 2, "margin": 1.0},
        "model": {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 48, "window": 16,
                  "max_tokens": 128, "length": 64, "tokenizer": "teacher"},
        "stages": [
            {"texts": 960, "text_batch": 32, "learning_rate": 3e-3, "tokens": 64},
            {"pairs": 240, "texts": 64, "pair_batch": 16, "text_batch": 32, "learning_rate": 1e-3,
             "negatives": 2, "tokens": 64},
        ],
        "training": {"precision": "fp32", "checkpoint_steps": 4, "evaluate_steps": 10, "log_steps": 1},
    }  # fmt: skip
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    return FinetuneRecipe.model_validate(values)


def finetune(made: FinetuneRecipe, folder: Path, out: str = "run") -> Path | None:
    return run(made, folder / "data", folder / out, bars=lambda *about: nullcontext(NoBar())).folder


def column(path: Path, name: str) -> list[float]:
    with path.open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finetuning")


@pytest.fixture(scope="module")
def model(folder: Path, tiny_encoder_path: Path) -> Path:
    made = finetune(recipe(folder, tiny_encoder_path), folder)
    assert made == folder / "run/stage-2/model"
    return made


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMBERT_CACHE", str(folder / "cache"))


def test_the_student_comes_near_its_teacher(model: Path, folder: Path, tiny_encoder_path: Path) -> None:
    losses = column(folder / "run/stage-1/training.csv", "loss")
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2
    teacher = load_encoder(tiny_encoder_path)
    texts = [" ".join(np.random.default_rng(seed).choice(WORDS, 5)) for seed in range(20)]
    wanted = teacher.encode_document(texts)
    cosines = {
        name: (load_encoder(folder / name).encode_document(texts) * wanted).sum(1).mean()
        for name in ("run/start", "run/stage-1/model")
    }
    assert cosines["run/stage-1/model"] > cosines["run/start"] + 0.2


def test_the_model_opens_plainly_and_is_exported(model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from cmbert_retrieval.encoders.export import export_encoder

    plain = SentenceTransformer(str(model), device="cpu")
    assert plain.max_seq_length == 64
    assert [type(module).__name__ for module in plain] == ["Transformer", "Pooling", "Normalize"]
    report = export_encoder(model, tmp_path / "exported")
    assert report.agreement.min_cosine > 0.98
    texts = ["heart attack", "the kidney stone was seen again " * 20]
    here = load_encoder(tmp_path / "exported", backend="onnx", dtype="auto").encode_document(texts)
    there = plain.encode(texts, normalize_embeddings=True)
    assert (here * there).sum(1).min() > 0.98


def test_vectors_are_whitened_by_what_pairs_differ_by(
    model: Path, folder: Path, tiny_encoder_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    how = {"sources": ["articles"], "pairs": 200, "ridge": 0.1}
    made = recipe(folder, tiny_encoder_path, whitening=how)
    shutil.copytree(folder / "run", folder / "whitened-run", dirs_exist_ok=True)
    (folder / "whitened-run/run.json").unlink()
    out = finetune(made, folder, "whitened-run")
    assert out == folder / "whitened-run/whitened/model"
    before, after = (SentenceTransformer(str(path), device="cpu") for path in (model, out))
    assert [type(module).__name__ for module in after] == ["Transformer", "Pooling", "Dense", "Normalize"]
    matrix = after[2].linear.weight.detach().numpy()
    table = Table(folder / "data/train/articles.arrow")
    sides = [table.take(column, range(len(table))) for column in ("anchor", "positive")]
    vectors = [before.encode(side) for side in sides]
    turned = [side @ matrix for side in vectors]
    turned = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in turned]
    np.testing.assert_allclose(after.encode(sides[0]), turned[0], atol=1e-5)

    def spread(one: Any, other: Any) -> float:
        variances = np.linalg.eigvalsh((one - other).T @ (one - other))
        return float(variances.max() / variances.mean())

    assert spread(*turned) < spread(*vectors)
    assert len(column(folder / "whitened-run/whitened/held_out.csv", "pairs_articles")) == 1
    assert finetune(made, folder, "whitened-run") == out
    with pytest.raises(ConfigError, match="run of whitening"):
        finetune(recipe(folder, tiny_encoder_path), folder, "whitened-run")


def test_held_out_pairs_are_measured(model: Path, folder: Path) -> None:
    shares = column(folder / "run/stage-1/held_out.csv", "pairs_articles")
    assert len(shares) == 3  # at steps 10, 20 and 30
    assert all(0 <= share <= 1 for share in shares)


def test_texts_behind_each_other_are_as_texts_padded(model: Path) -> None:
    from cmbert_retrieval.finetuning import packing
    from cmbert_retrieval.finetuning.students import open_student

    padded = open_student(model, attention="sdpa", tokens=64)
    packed = open_student(model, attention=packing.register(), tokens=64)
    packing.pack_inputs(packed)
    texts = ["heart", "lung cancer and fever " * 12, "knee pain", "kidney stone attack of the skin"]
    np.testing.assert_allclose(packed.encode(texts), padded.encode(texts), atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile takes a C++ compiler: g++")
def test_compiled_layers_learn_the_same(model: Path) -> None:
    from cmbert_retrieval.finetuning import packing
    from cmbert_retrieval.finetuning.losses import TeacherLoss
    from cmbert_retrieval.finetuning.students import open_student

    found = []
    for compiled in (False, True):
        student = open_student(
            model, attention=packing.register(compiled=compiled), tokens=64, compiled=compiled
        )
        packing.pack_inputs(student)
        student.train()
        losses = []
        for texts in (["heart", "lung cancer"], ["fever " * 9, "knee pain", "skin " * 30]):  # other lengths
            features = student.preprocess(texts)
            labels = torch.eye(len(texts), student.get_embedding_dimension())
            loss = TeacherLoss(student, similarity=1.0)([features], labels)
            loss.backward()
            losses.append(float(loss.detach()))
        found.append((losses, [weight.grad for weight in student.parameters()]))
    (plain, theirs), (compiled_losses, ours) = found
    np.testing.assert_allclose(compiled_losses, plain, rtol=1e-5)
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    model: Path, folder: Path, tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmbert_retrieval.finetuning import training

    made = recipe(folder, tiny_encoder_path)

    class Killed(Exception):
        pass

    class Killing(training.StopOnSignal):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step == 6:
                raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "StopOnSignal", Killing)
        with pytest.raises(Killed):
            finetune(made, folder, "again")
    assert finetune(made, folder, "again") == folder / "again/stage-2/model"
    for stage in ("stage-1", "stage-2"):
        losses = [column(folder / out / stage / "training.csv", "loss") for out in ("run", "again")]
        assert losses[0] == losses[1]
    here, there = (
        (folder / out / "stage-2/model/model.safetensors").read_bytes() for out in ("run", "again")
    )
    assert here == there


def test_another_recipe_is_refused_by_the_name_of_its_key(
    model: Path, folder: Path, tiny_encoder_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"holds a run of model.layers=2, not 3; give that back"):
        finetune(recipe(folder, tiny_encoder_path, model__layers=3), folder)


def test_words_are_added_to_what_the_teacher_says(
    model: Path, folder: Path, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    made = recipe(folder, tiny_encoder_path, teacher__words=0.5)
    with pytest.raises(ConfigError, match=r"vectors: was made with words=0\.0, not 0\.5"):
        finetune(made, folder, "words")
    prepare_all(made, tmp_path, lambda *about: nullcontext(NoBar()))
    plain, worded = (np.load(data / "vectors/articles.npy") for data in (folder / "data", tmp_path))
    assert plain.shape == worded.shape
    cosines = (plain.astype(float) * worded.astype(float)).sum(1)
    assert 0.5 < np.nanmedian(cosines) < 0.99  # texts that no stage draws have no vector


def test_a_teacher_is_asked_about_what_stages_draw_and_no_more(
    tiny_encoder_path: Path, tmp_path: Path
) -> None:
    few, more = ({"texts": texts, "text_batch": 16, "tokens": 64} for texts in (64, 160))
    made = recipe(tmp_path, tiny_encoder_path, stages=[few])
    prepare_all(made, tmp_path / "data", lambda *about: nullcontext(NoBar()))
    path = tmp_path / "data/vectors/articles.npy"
    vectors = np.load(path)
    assert (~np.isnan(vectors[:, 0])).sum() == 64 < len(vectors)
    longer = recipe(tmp_path, tiny_encoder_path, stages=[more])
    with pytest.raises(ConfigError, match=r"96 of the 160 texts that a stage draws have no vector, since"):
        finetune(longer, tmp_path)
    prepare_all(longer, tmp_path / "data", lambda *about: nullcontext(NoBar()))
    again = np.load(path)
    there = ~np.isnan(vectors[:, 0])
    np.testing.assert_array_equal(again[there], vectors[there])
    assert (~np.isnan(again[:, 0])).sum() == 160
    shutil.rmtree(tmp_path / "run")
    assert finetune(longer, tmp_path) is not None


def test_what_two_teachers_say_is_joined(
    model: Path, folder: Path, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    made = recipe(folder, tiny_encoder_path, teacher__beside=str(model), teacher__beside_weight=0.5)
    prepare_all(made, tmp_path, lambda *about: nullcontext(NoBar()))
    joining = np.load(tmp_path / "vectors/_joining.npy")
    assert joining.shape == (64, 32)
    plain, joined = (np.load(data / "vectors/articles.npy") for data in (folder / "data", tmp_path))
    assert np.isnan(plain).any(1).tolist() == np.isnan(joined).any(1).tolist()
    there = ~np.isnan(plain[:, 0])
    texts = Table(tmp_path / "texts/articles.arrow").take("text", np.flatnonzero(there)[:50].tolist())
    both = [load_encoder(path).encode_document(texts) for path in (tiny_encoder_path, model)]
    wanted = np.hstack([both[0], both[1] * 0.5]) @ joining
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (wanted * joined[there][:50].astype(np.float32)).sum(1).min() > 0.99


def test_token_embeddings_may_be_changed_less_than_the_rest() -> None:
    from cmbert_retrieval.finetuning.training_recipe import FinetuneTrainingRecipe
    from cmbert_retrieval.pretraining.optimizers import make_optimizer

    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    settings = FinetuneTrainingRecipe(weight_decay=0.0)
    optimizer = make_optimizer(model, settings, 1e-3, embeddings_rate=0.125)
    model(torch.arange(5)).square().sum().backward()
    optimizer.step()
    moved = [
        float((after - then).abs().mean()) for after, then in zip(model.parameters(), before, strict=True)
    ]
    assert moved == pytest.approx([1e-3 / 8, 1e-3, 1e-3], rel=0.02)


def test_a_compact_model_goes_on_learning(tiny_compact_path: Path, tmp_path: Path) -> None:
    from cmbert_retrieval.finetuning.recipe import StudentRecipe
    from cmbert_retrieval.finetuning.students import build_student

    start = tmp_path / "start"
    build_student(StudentRecipe(checkpoint=str(tiny_compact_path)), None, seed=0, folder=start)
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(start), device="cpu")
    assert plain[0].model.embeddings.tok_embeddings.weight.std() < 0.1  # and no whole numbers
    texts = ["heart attack", "the kidney stone was seen again"]
    vectors = plain.encode(texts, normalize_embeddings=True)
    there = load_encoder(tiny_compact_path, backend="sentence_transformers").encode_document(texts)
    assert (vectors * there).sum(1).min() > 0.999


def test_a_model_may_begin_with_the_mean_of_several(model: Path, folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from cmbert_retrieval.finetuning.recipe import StudentRecipe
    from cmbert_retrieval.finetuning.students import build_student

    before = folder / "run/start"
    made = StudentRecipe(checkpoint=str(model), averaged_with=[str(before), str(before)])
    build_student(made, None, seed=0, folder=tmp_path / "mean")
    trained, untrained, mean = (
        load_file(path / "model.safetensors") for path in (model, before, tmp_path / "mean")
    )
    assert trained.keys() == mean.keys()
    assert any(not torch.equal(trained[key], untrained[key]) for key in trained)
    for key, tensor in mean.items():
        torch.testing.assert_close(tensor, (trained[key] + 2 * untrained[key]) / 3)
    from transformers import AutoModel

    narrower = AutoModel.from_pretrained(before)
    narrower.resize_token_embeddings(len(trained["embeddings.tok_embeddings.weight"]) + 8)
    narrower.save_pretrained(tmp_path / "other")
    made = StudentRecipe(checkpoint=str(model), averaged_with=[str(tmp_path / "other")])
    with pytest.raises(ConfigError, match=r"another shape.*tok_embeddings"):
        build_student(made, None, seed=0, folder=tmp_path / "none")


def teacher_of(folder: Path) -> Teacher:
    return Teacher(folder, load_encoder(folder).encode_document)


def test_a_model_may_begin_with_the_embeddings_of_its_teacher(
    folder: Path, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from cmbert_retrieval.finetuning.students import build_student

    made = recipe(folder, tiny_encoder_path, model__embeddings="teacher")
    build_student(made.model, teacher_of(tiny_encoder_path), seed=0, folder=tmp_path / "start")
    here, there = (load_file(path / "model.safetensors") for path in (tmp_path / "start", tiny_encoder_path))
    own = here["embeddings.tok_embeddings.weight"]
    (taught,) = (tensor for name, tensor in there.items() if name.endswith("tok_embeddings.weight"))
    ratio = own[: len(taught)] / taught
    assert torch.allclose(ratio[taught != 0], ratio[taught != 0][0].expand(1), rtol=1e-4)


def test_a_narrower_model_begins_with_the_principal_components_of_its_teachers_embeddings(
    folder: Path, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from cmbert_retrieval.finetuning.students import build_student

    made = recipe(folder, tiny_encoder_path, model__embeddings="teacher", model__hidden_size=16)
    build_student(made.model, teacher_of(tiny_encoder_path), seed=0, folder=tmp_path / "start")
    here, there = (load_file(path / "model.safetensors") for path in (tmp_path / "start", tiny_encoder_path))
    (taught,) = (tensor for name, tensor in there.items() if name.endswith("tok_embeddings.weight"))
    own = here["embeddings.tok_embeddings.weight"][: len(taught)]
    wanted = torch.linalg.svdvals(taught - taught.mean(dim=0))[:16]
    found = torch.linalg.svdvals(own)
    assert torch.allclose(found / found[0], wanted / wanted[0], rtol=1e-3)


def test_embeddings_of_a_narrower_teacher_are_refused(folder: Path, tiny_encoder_path: Path) -> None:
    made = recipe(folder, tiny_encoder_path, model__hidden_size=64, model__embeddings="teacher")
    with pytest.raises(ConfigError, match=r"the teacher's token embeddings are \[\d+, 32\]"):
        finetune(made, folder, "wide")


def test_sigterm_ends_with_a_checkpoint_and_exit_75(
    folder: Path, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    import yaml

    values = recipe(folder, tiny_encoder_path).model_dump(mode="json")
    values["stages"][0]["texts"] = 32 * 2000
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "cmbert_retrieval", "finetune", str(path),
               "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ}, stderr=subprocess.PIPE, text=True)
    table = tmp_path / "run/stage-1/training.csv"
    began = time.monotonic()
    while not table.exists() and process.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "the same command goes on" in said
    assert list((tmp_path / "run/stage-1").glob("checkpoint-*"))


def test_two_processes_are_one(model: Path, folder: Path, tiny_encoder_path: Path, tmp_path: Path) -> None:
    import yaml

    stages = [
        {"texts": 64, "pairs": 96, "pair_batch": 16, "text_batch": 16, "learning_rate": 1e-3, "negatives": 2,
         "similarity": 0.0, "tokens": 64}  # similarities are compared within a process
    ]  # fmt: skip
    values = recipe(folder, tiny_encoder_path, stages=stages).model_dump(mode="json")
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(values))
    script = Path(__file__).parents[2] / "pretraining/finetune.py"
    settings = [str(path), "--data", str(folder / "data"), "--out"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
               "--nproc-per-node", "2", str(script), *settings, str(tmp_path / "two")]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one = run(FinetuneRecipe.model_validate(values), folder / "data", tmp_path / "one",
              bars=lambda *about: nullcontext(NoBar())).folder  # fmt: skip
    assert one is not None
    found = [column(tmp_path / name / "stage-1/training.csv", "loss") for name in ("one", "two")]
    assert len(found[0]) == len(found[1]) > 5
    np.testing.assert_allclose(found[1], found[0], rtol=2e-2)
    texts = ["heart attack", "the kidney stone was seen again"]
    here, there = (
        load_encoder(tmp_path / name / "stage-1/model").encode_document(texts) for name in ("one", "two")
    )
    assert (here * there).sum(1).min() > 0.999


def test_large_batches_are_computed_in_parts(model: Path, folder: Path, tiny_encoder_path: Path) -> None:
    stages = [{"pairs": 64, "pair_batch": 32, "learning_rate": 1e-3, "negatives": 2, "tokens": 64}]
    plain = recipe(folder, tiny_encoder_path, stages=stages)
    parts = recipe(folder, tiny_encoder_path, stages=stages, training__micro_batch=4)
    found = []
    for name, made in (("whole", plain), ("parts", parts)):
        assert finetune(made, folder, name)
        found.append(column(folder / name / "stage-1/training.csv", "loss"))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)


def test_shorter_vectors_prompts_and_sets_are_taken_along(
    folder: Path, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    import gzip

    from sentence_transformers import SentenceTransformer

    data = tmp_path / "sets/nfcorpus_preprocessed"
    data.mkdir(parents=True)
    documents = [{"_id": f"d{place}", "text": f"the {word} hurts"} for place, word in enumerate(WORDS)]
    questions = [{"_id": "q1", "text": WORDS[0]}, {"_id": "q2", "text": "none"}]
    names = ("corpus.jsonl.gz", "queries.beir_case_preserved.jsonl.gz")
    for name, rows in zip(names, (documents, questions), strict=True):
        with gzip.open(data / name, "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    with gzip.open(data / "beir_qrels.validation.csv.gz", "wt") as file:
        file.write("query-id,corpus-id,score\nq1,d0,1\n")
    made = recipe(
        folder, tiny_encoder_path,
        stages=[{"pairs": 48, "texts": 64, "pair_batch": 16, "text_batch": 32, "tokens": 64}],
        model__matryoshka=[16, 8], model__query_prompt="query: ", negatives="none",
        model__name_prompt="name: ", model__name_sources=["articles"],
        measured={"data": str(tmp_path / "sets"), "sets": ["nfcorpus:validation"]},
    )  # fmt: skip
    out = finetune(made, folder, "short")
    assert out is not None
    assert 0 <= column(folder / "short/stage-1/held_out.csv", "nfcorpus")[-1] <= 1
    prompts = SentenceTransformer(str(out), device="cpu").prompts
    assert (prompts["query"], prompts["name"]) == ("query: ", "name: ")
    card = (out / "README.md").read_text()
    assert "| nfcorpus |" in card and "| 1 | 64 | 48 |" in card
    assert str(folder) not in card


def test_preparing_again_and_other_negatives(folder: Path, tiny_encoder_path: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match=r"was made with margin=1.0, not 0.5; give that back"):
        finetune(recipe(folder, tiny_encoder_path, negatives={"count": 2, "margin": 0.5}), folder, "other")
    from cmbert_retrieval.finetuning.stages import prepare_all

    made = recipe(folder, tiny_encoder_path)
    before = (folder / "data/negatives/articles/0000.npy").read_bytes()
    prepare_all(made, folder / "data", lambda *about: nullcontext(NoBar()), restart=True)
    assert (folder / "data/negatives/articles/0000.npy").read_bytes() == before


def test_negatives_are_mined_for_pairs_that_come_along(tiny_encoder_path: Path, tmp_path: Path) -> None:
    (articles,) = sources(tmp_path).values()
    more = {**articles, "path": str(tmp_path / "more.jsonl"), "pairs": ["title-text"]}
    (tmp_path / "more.jsonl").write_text('{"_id": "m", "title": "gout", "text": "Crystals in a joint."}\n')
    stage = {"pairs": 48, "pair_batch": 16, "learning_rate": 1e-3, "negatives": 2, "tokens": 64}
    both = {"data": {"sources": {"articles": articles, "more": more}, "held_out": 0.2}}
    made = recipe(tmp_path, tiny_encoder_path, **both, stages=[{**stage, "pair_weights": {"articles": 1}}])
    prepare_all(made, tmp_path / "data", lambda *about: nullcontext(NoBar()))
    assert [path.stem for path in (tmp_path / "data/negatives").glob("[am]*.json")] == ["articles"]
    with pytest.raises(ConfigError, match="nothing was mined for the pairs of 'more'; run first"):
        finetune(recipe(tmp_path, tiny_encoder_path, **both, stages=[stage]), tmp_path)
