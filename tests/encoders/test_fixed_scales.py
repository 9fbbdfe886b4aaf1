from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cmbert_retrieval.encoders.fixed_scales import Reach
from cmbert_retrieval.errors import EncoderError

onnx = pytest.importorskip("onnx", reason="the extra 'train' is not installed")
pytestmark = pytest.mark.slow

WEIGHTS = np.array([[1.0, -64.0], [0.5, 32.0], [0.25, 0.0]], np.float32)
TABLE = np.array([[0.0, 0.0, 0.0], [1.0, -0.25, 0.5], [-1.0, 2.0, 3.0], [9.0, 9.0, 9.0]], np.float32)


def write(path: Path, table: NDArray[np.float32] = TABLE) -> Path:
    """Write ``table[input_ids] @ WEIGHTS``, the mean over the tokens."""
    made = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
            onnx.helper.make_node("MatMul", ["looked_up", "weights"], ["multiplied"], "product"),
            onnx.helper.make_node("ReduceMean", ["multiplied", "axis"], ["embeddings"], keepdims=0),
        ],
        "graph",
        [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, [1, "tokens"])],
        [onnx.helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, [1, 2])],
        [
            onnx.numpy_helper.from_array(table, "table"),
            onnx.numpy_helper.from_array(WEIGHTS, "weights"),
            onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    domains = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    onnx.save(onnx.helper.make_model(made, opset_imports=domains, ir_version=10), str(path))
    return path


def reach(low: float, high: float) -> Reach:
    return Reach(np.array([low, 0, 0], np.float32), np.array([0, high, 0], np.float32), ("weights",))


def run(graph: Path, rows: list[list[int]]) -> NDArray[np.float32]:
    from cmbert_retrieval.encoders.onnx import open_session

    (found,) = open_session(graph, {}).run(["embeddings"], {"input_ids": np.array(rows, np.int64)})
    return np.asarray(found, np.float32)


@pytest.mark.parametrize(
    "texts, low, high",
    [
        ([[0, 1], [1]], [0, -0.25, 0], [1, 0, 0.5]),
        ([[1], [2, 0]], [-1, -0.25, 0], [1, 2, 3]),
        ([[3]], [0, 0, 0], [9, 9, 9]),  # 0 is always within, or it had no step
        ([], [0, 0, 0], [0, 0, 0]),
    ],
)
def test_a_channel_reaches_from_its_lowest_to_its_highest_value_in_all_texts(
    tmp_path: Path, texts: list[list[int]], low: list[float], high: list[float]
) -> None:
    from cmbert_retrieval.encoders.fixed_scales import activation_reach

    found = activation_reach(write(tmp_path / "float.onnx"), texts)
    assert list(found) == ["looked_up"]
    reach = found["looked_up"]
    assert (reach.low.tolist(), reach.high.tolist(), reach.weights) == (low, high, ("weights",))


def test_few_values_far_beyond_all_others_are_cut_where_steps_get_too_large_by_them(tmp_path: Path) -> None:
    from cmbert_retrieval.encoders.fixed_scales import activation_reach, fix_scales

    random = np.random.default_rng(0)
    table = random.normal(size=(200, 3)).astype(np.float32) * np.float32(0.05)
    table[0] = 9.0
    graph = write(tmp_path / "float.onnx", table)
    texts = [[number] for number in range(200)]
    even = activation_reach(graph, texts[1:])["looked_up"]
    found = activation_reach(graph, texts)["looked_up"]
    assert (even.cut, found.cut, found.high.tolist()) == (1.0, 0.6, [9, 9, 9])
    errors = []
    for cut in (found, replace(found, cut=1.0)):
        fix_scales(graph, tmp_path / "int8.onnx", {"looked_up": cut})
        given = [(run(tmp_path / "int8.onnx", [ids]), run(graph, [ids])) for ids in texts[1:]]
        errors.append(float(np.mean([np.square(one - other).sum() for one, other in given])))
    assert errors[0] < errors[1]


def test_products_are_those_of_activations_in_256_steps_cut_at_the_range(tmp_path: Path) -> None:
    from cmbert_retrieval.encoders.fixed_scales import fix_scales

    fix_scales(write(tmp_path / "float.onnx"), tmp_path / "int8.onnx", {"looked_up": reach(-1.0, 3.0)})
    step = 4.0 / 255
    rows = [[1, 2], [3, 3], [0, 0]]
    found = run(tmp_path / "int8.onnx", rows)
    reached = np.clip(TABLE, -64 * step, 191 * step)  # 0 is step 64
    expected = (np.rint(reached / step) * step) @ (np.rint(WEIGHTS * 64 / [1, 64]) / 64 * [1, 64])
    assert np.allclose(found, np.array([expected[row].mean(axis=0) for row in rows]), atol=1e-4)
    assert found[2].tolist() == [0, 0]


def test_a_text_has_the_same_bytes_alone_and_in_a_batch(tmp_path: Path) -> None:
    from cmbert_retrieval.encoders.fixed_scales import fix_scales
    from cmbert_retrieval.encoders.onnx import open_session, takes_several

    fix_scales(write(tmp_path / "float.onnx"), tmp_path / "int8.onnx", {"looked_up": reach(-1.0, 3.0)})
    together = run(tmp_path / "int8.onnx", [[1, 2], [3, 0]])
    assert together[0].tobytes() == run(tmp_path / "int8.onnx", [[1, 2]])[0].tobytes()
    assert takes_several(open_session(tmp_path / "int8.onnx", {}))
    assert not takes_several(open_session(tmp_path / "float.onnx", {}))


def test_activations_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    from cmbert_retrieval.encoders.fixed_scales import activation_reach

    graph = write(tmp_path / "float.onnx", np.full((4, 3), np.inf, np.float32))
    with pytest.raises(EncoderError, match="the activations looked_up are not finite"):
        activation_reach(graph, [[1]])


def test_what_never_differs_from_0_has_a_step_all_the_same(tmp_path: Path) -> None:
    from cmbert_retrieval.encoders.fixed_scales import fix_scales

    fix_scales(write(tmp_path / "float.onnx"), tmp_path / "int8.onnx", {"looked_up": reach(0.0, 0.0)})
    assert np.isfinite(run(tmp_path / "int8.onnx", [[0, 1]])).all()
