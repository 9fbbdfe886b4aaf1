"""ModernBERT as an onnx graph of few, large operators of onnxruntime, for texts of equal length.

Torch's exporter writes 50 operators a layer; here they are 15: rotary embedding and attention are one each.
A short text costs as much as its operators cost to start; in a long one, attention without a mask takes half
the time of attention with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto
    from sentence_transformers import SentenceTransformer

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""

_MASKED = -1e9


def is_plain_modernbert(model: SentenceTransformer, *, dim: int, pooling: str) -> bool:
    """Tell whether a model is what ``modernbert_graph`` writes.

    That is a ModernBERT without biases, the mean of its tokens or its first one, and perhaps a matrix that
    this is multiplied by, and unit length.
    """
    kinds = [type(module).__name__ for module in model]
    behind = [kind for kind in kinds[2:] if kind != "Dense"]
    if kinds[:2] != ["Transformer", "Pooling"] or behind not in ([], ["Normalize"]):
        return False
    config = model[0].auto_model.config
    width = config.hidden_size
    if "Dense" in kinds:
        if kinds.count("Dense") > 1 or kinds[2] != "Dense" or not _is_plain_dense(model[2]):
            return False
        width = model[2].out_features
    turned = getattr(config, "rope_parameters", None)  # transformers 5 has it
    return (
        config.model_type == "modernbert"
        and turned is not None
        and all(parameters["rope_type"] == "default" for parameters in turned.values())
        and not (config.attention_bias or config.mlp_bias or config.norm_bias)
        and config.hidden_activation == "gelu"
        and width == dim
        and pooling in ("mean", "cls")
    )


def _is_plain_dense(module: Any) -> bool:
    return (
        type(module.activation_function).__name__ == "Identity"
        and module.linear.bias is None
        and not getattr(module, "use_residual", False)
        and module.module_input_name == module.module_output_name == "sentence_embedding"
    )


def modernbert_graph(model: SentenceTransformer, *, pooling: str, opset: int) -> ModelProto:
    """Return the graph: ``input_ids [1, tokens]`` in, ``embeddings [1, dim]`` out.

    One text, since products of floats may be rounded otherwise in a batch. Nothing in it depends on that.

    Args:
        model: one that ``is_plain_modernbert``, in float32.
        pooling: ``mean`` or ``cls``.
        opset: of the operators that are onnx's own.

    Source:
        Warner et al., "Smarter, Better, Faster, Longer", 2024 (arXiv 2412.13663), as transformers has it.
    """
    import onnx

    builder = _Builder()
    transformer = model[0].auto_model
    config = transformer.config
    weights = {name: value.detach().cpu().numpy() for name, value in transformer.state_dict().items()}
    heads, width = config.num_attention_heads, config.hidden_size
    eps = float(config.norm_eps)

    ids = "input_ids"
    hidden = builder.add("Gather", [builder.weight(weights, "embeddings.tok_embeddings.weight"), ids])
    hidden = builder.add(
        "LayerNormalization", [hidden, builder.weight(weights, "embeddings.norm.weight")], epsilon=eps
    )
    places = builder.places(ids)
    reach = config.local_attention // 2
    far = builder.some_are_far(places, reach)
    turned = {
        kind: (float(parameters["rope_theta"]), width // heads)
        for kind, parameters in config.rope_parameters.items()
    }
    tables = {pair: builder.turns(places, *pair) for pair in dict.fromkeys(turned.values())}
    per_head = {"domain": CONTRIB, "num_heads": heads}
    first = builder.constant(np.zeros(1, np.int64))
    normed = hidden
    for number, kind in enumerate(config.layer_types):
        layer = f"layers.{number}"
        query, key, value = builder.products(normed, weights, f"{layer}.attn.Wqkv.weight", 3)
        query, key = (
            builder.add("RotaryEmbedding", [side, first, *tables[turned[kind]]], **per_head)
            for side in (query, key)
        )
        if kind == "sliding_attention":
            seen = builder.near_attention([query, key, value], per_head, places, reach, far)
        else:
            seen = builder.add("MultiHeadAttention", [query, key, value], **per_head)
        (seen,) = builder.products(seen, weights, f"{layer}.attn.Wo.weight")
        normed, hidden = builder.add_and_norm(seen, hidden, weights, f"{layer}.mlp_norm.weight", eps)
        inner, gate = builder.products(normed, weights, f"{layer}.mlp.Wi.weight", 2)
        inner = builder.add("Mul", [builder.add("Gelu", [inner]), gate])
        (inner,) = builder.products(inner, weights, f"{layer}.mlp.Wo.weight")
        after = f"layers.{number + 1}.attn_norm.weight"
        after = after if after in weights else "final_norm.weight"
        normed, hidden = builder.add_and_norm(inner, hidden, weights, after, eps)
    pooled = builder.pooled(normed, pooling, places)
    for module in list(model)[2:]:
        if type(module).__name__ == "Normalize":
            pooled = builder.add("LpNormalization", [pooled], axis=-1, p=2)
        else:
            matrix = module.linear.weight.detach().cpu().numpy()
            pooled, width = builder.turned(pooled, matrix), len(matrix)
    builder.node("Identity", [pooled], ["embeddings"])

    graph = onnx.helper.make_graph(
        builder.nodes,
        "encoder",
        [onnx.helper.make_tensor_value_info(ids, onnx.TensorProto.INT64, [1, "tokens"])],
        [onnx.helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, [1, width])],
        builder.initializers,
    )
    domains = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(CONTRIB, 1)]
    made: ModelProto = onnx.helper.make_model(graph, opset_imports=domains, ir_version=10)
    return made


class _Builder:
    """Nodes and weights of a graph as it grows."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **settings: Any) -> None:
        """Add an operator with outputs that have names."""
        import onnx

        name = f"{self.prefix}{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), list(outputs), name=name, **settings))

    def add(self, kind: str, inputs: Sequence[str], **settings: Any) -> str:
        """Add an operator with one output; return it."""
        output = f"{self.prefix}{kind}_{len(self.nodes)}_output"
        self.node(kind, inputs, [output], **settings)
        return output

    def constant(self, values: NDArray[Any], name: str = "") -> str:
        """Add values; return their name."""
        import onnx

        name = name or f"{self.prefix}constant_{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def weight(self, weights: dict[str, NDArray[Any]], name: str) -> str:
        """Add one of the model's tensors; return its name."""
        return self.constant(weights[name], name)

    def products(self, side: str, weights: dict[str, NDArray[Any]], name: str, parts: int = 1) -> list[str]:
        """Multiply by the parts of a matrix that torch keeps as ``[outputs, inputs]``, of equal height.

        One product that is divided afterwards takes longer, by what it takes to copy its parts.
        """
        pieces = np.split(weights[name].T, parts, axis=1)
        names = [name] if parts == 1 else [f"{name}.{part}" for part in range(parts)]
        return [
            self.add("MatMul", [side, self.constant(piece, own)])
            for own, piece in zip(names, pieces, strict=True)
        ]

    def add_and_norm(
        self, side: str, hidden: str, weights: dict[str, NDArray[Any]], name: str, eps: float
    ) -> tuple[str, str]:
        """Return the normalised sum, and the sum."""
        # As 'Add', onnxruntime would join it with the norm into an operator that takes five times as long.
        summed = self.add("Sum", [side, hidden])
        normed = self.add("LayerNormalization", [summed, self.weight(weights, name)], epsilon=eps)
        return normed, summed

    def places(self, ids: str) -> str:
        """Return ``[tokens]``: 0, 1, 2, ... as floats."""
        count = self.add("Squeeze", [self.add("Shape", [ids], start=1, end=2)])
        zero, one = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        return self.add("Cast", [self.add("Range", [zero, count, one])], to=1)

    def turns(self, places: str, theta: float, size: int) -> tuple[str, str]:
        """Return cosines and sines of rotary embeddings, ``[tokens, size / 2]``."""
        speeds = theta ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        column = self.add("Unsqueeze", [places, self.constant(np.array([1], np.int64))])
        angles = self.add("Mul", [column, self.constant(speeds.astype(np.float32)[None])])
        return self.add("Cos", [angles]), self.add("Sin", [angles])

    def near_attention(
        self, sides: list[str], settings: dict[str, Any], places: str, reach: int, far: str
    ) -> str:
        """Return what tokens see of those at most ``reach`` away; ``far``: whether any is further."""
        import onnx

        branches = []
        for masked in (True, False):
            inner = _Builder(prefix=f"{len(self.nodes)}_{'far' if masked else 'near'}_")
            bias = ["", "", inner.near(places, reach)] if masked else []
            output = inner.add("MultiHeadAttention", [*sides, *bias], **settings)
            made = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
            branches.append(onnx.helper.make_graph(inner.nodes, inner.prefix, [], [made], inner.initializers))
        # Most texts are so short that every token is near: without a mask attention takes half the time.
        return self.add("If", [far], then_branch=branches[0], else_branch=branches[1])

    def some_are_far(self, places: str, reach: int) -> str:
        """Return whether there are tokens more than ``reach`` apart."""
        count = self.add("Size", [places])
        return self.add("Greater", [count, self.constant(np.array(reach + 1, np.int64))])

    def near(self, places: str, reach: int) -> str:
        """Return what is added to scores to hide what is further away: ``[1, 1, tokens, tokens]``."""
        rows, columns = (
            self.add("Unsqueeze", [places, self.constant(np.array([axis], np.int64))]) for axis in (1, 0)
        )
        apart = self.add("Abs", [self.add("Sub", [rows, columns])])
        far = self.add("Greater", [apart, self.constant(np.array(reach, np.float32))])
        none, masked = (self.constant(np.array(number, np.float32)) for number in (0.0, _MASKED))
        bias = self.add("Where", [far, masked, none])
        return self.add("Unsqueeze", [bias, self.constant(np.array([0, 1], np.int64))])

    def turned(self, pooled: str, matrix: NDArray[np.float32]) -> str:
        """Multiply one vector a text by a matrix ``[outputs, inputs]``, in floats."""
        last = self.constant(np.array([-1], np.int64))
        columns = self.add("Unsqueeze", [pooled, last])
        # From the left it is one product a text, rounded as if there were no other text, and left in floats.
        return self.add("Squeeze", [self.add("MatMul", [self.constant(matrix), columns]), last])

    def pooled(self, normed: str, mode: str, places: str) -> str:
        """Return one vector of all tokens."""
        if mode == "mean":
            # As a product, since 'ReduceMean' rounds otherwise where there are several texts.
            count = self.add("Shape", [places])
            share = self.add("Reciprocal", [self.add("Cast", [count], to=1)])
            line = self.add("Concat", [self.constant(np.array([1], np.int64)), count], axis=0)
            mean = self.add("MatMul", [self.add("Expand", [share, line]), normed])
            return self.add("Squeeze", [mean, self.constant(np.array([1], np.int64))])
        return self.add("Gather", [normed, self.constant(np.array(0, np.int64))], axis=1)
