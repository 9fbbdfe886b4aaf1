from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cmbert_retrieval.encoders.modules import pools_without_prompt
from cmbert_retrieval.encoders.settings import read_settings
from cmbert_retrieval.errors import EncoderError


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


CONFIG = {"model_type": "bert", "hidden_size": 8, "max_position_embeddings": 512}
MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def test_a_plain_checkpoint_gets_mean_pooling_and_is_called_untrained(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, {"config.json": CONFIG}))
    assert (settings.pooling, settings.dim, settings.max_tokens, settings.trained) == ("mean", 8, 512, False)


@pytest.mark.parametrize(
    "pooling, expected",
    [
        (
            {
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": False,
                "word_embedding_dimension": 8,
            },
            ("cls", 8),
        ),
        ({"pooling_mode": "lasttoken", "embedding_dimension": 8}, ("lasttoken", 8)),
        ({"pooling_mode": ["mean", "max"], "embedding_dimension": 8}, ("mean+max", 16)),
    ],
)
def test_old_and_new_pooling_settings_are_read(
    tmp_path: Path, pooling: Any, expected: tuple[str, int]
) -> None:
    write(tmp_path, {"config.json": CONFIG, "modules.json": MODULES, "1_Pooling/config.json": pooling})
    settings = read_settings(tmp_path)
    assert (settings.pooling, settings.dim) == expected
    assert settings.trained


def test_the_length_is_the_declared_one_and_can_be_raised_to_the_positions(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": CONFIG, "sentence_bert_config.json": {"max_seq_length": 128}})
    settings = read_settings(tmp_path)
    assert (settings.max_tokens, settings.longest) == (128, 512)


def test_an_unlimited_tokenizer_does_not_decide_the_length(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": CONFIG, "tokenizer_config.json": {"model_max_length": 10**30}})
    assert read_settings(tmp_path).max_tokens == 512


def test_roberta_has_two_positions_fewer_than_it_says(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    write(tmp_path, {"config.json": config, "tokenizer_config.json": {"model_max_length": 512}})
    assert read_settings(tmp_path).longest == 512


@pytest.mark.parametrize(
    "prompts, expected",
    [
        ({"query": "q: ", "document": "d: "}, {"query": "q: ", "document": "d: "}),
        ({"query": "q: ", "passage": "p: "}, {"query": "q: ", "document": "p: "}),
        ({"query": "", "document": ""}, {}),
        ({"query": "", "name": "n: ", "title": "t: "}, {"name": "n: "}),
    ],
)
def test_prompts_are_found_under_their_names(tmp_path: Path, prompts: Any, expected: Any) -> None:
    write(tmp_path, {"config.json": CONFIG, "config_sentence_transformers.json": {"prompts": prompts}})
    assert read_settings(tmp_path).prompts == expected


def test_only_a_declared_dot_product_keeps_the_lengths_of_vectors(tmp_path: Path) -> None:
    write(
        tmp_path, {"config.json": CONFIG, "config_sentence_transformers.json": {"similarity_fn_name": "dot"}}
    )
    assert not read_settings(tmp_path).normalized
    write(tmp_path, {"config_sentence_transformers.json": {"similarity_fn_name": "cosine"}})
    assert read_settings(tmp_path).normalized


def test_a_module_outside_the_folder_is_refused(tmp_path: Path) -> None:
    modules = [{"path": "../..", "type": "sentence_transformers.models.Transformer"}]
    with pytest.raises(EncoderError, match="leaves the folder"):
        read_settings(write(tmp_path, {"config.json": CONFIG, "modules.json": modules}))


@pytest.mark.parametrize(
    "kind", ["custom_st.Transformer", "os.system", "sentence_transformers_x.Pooling", "Transformer", "", 5]
)
def test_a_module_that_is_code_of_the_models_own_is_refused(tmp_path: Path, kind: object) -> None:
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1", "type": kind}]
    with pytest.raises(EncoderError, match=r"modules\.json: module type .* expected one of sentence_tr"):
        read_settings(write(tmp_path, {"config.json": CONFIG, "modules.json": modules}))


@pytest.mark.parametrize("modules", [{"path": ""}, ["Transformer"], [{"path": ""}], [{"type": "x"}], "x", 1])
def test_a_list_of_modules_in_another_form_is_refused(tmp_path: Path, modules: object) -> None:
    with pytest.raises(EncoderError, match=r"modules\.json: "):
        read_settings(write(tmp_path, {"config.json": CONFIG, "modules.json": modules}))


def test_a_folder_without_a_model_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no config\.json; expected"):
        read_settings(tmp_path)


def test_broken_json_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"config\.json: cannot be read as JSON"):
        read_settings(tmp_path)


def test_roberta_without_a_declared_length_is_cut_at_its_positions(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    settings = read_settings(write(tmp_path, {"config.json": config}))
    assert (settings.max_tokens, settings.longest) == (512, 512)


def test_a_declared_length_beyond_the_positions_is_lowered_to_them_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"config.json": CONFIG, "sentence_bert_config.json": {"max_seq_length": 4096}})
    settings = read_settings(tmp_path)
    assert (settings.max_tokens, settings.longest) == (512, 512)
    assert "max_seq_length is 4096, but the model has positions for 512 tokens" in caplog.text


@pytest.mark.parametrize("length", [-1, 0, 2])
def test_a_length_without_room_for_a_word_is_refused(tmp_path: Path, length: int) -> None:
    write(tmp_path, {"config.json": CONFIG, "sentence_bert_config.json": {"max_seq_length": length}})
    with pytest.raises(EncoderError, match=f"cut to {length} tokens; expected 3 or more"):
        read_settings(tmp_path)


@pytest.mark.parametrize("kind", ["StaticEmbedding", "LSTM", "WordWeights", "CLIPModel"])
def test_a_module_of_another_type_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    modules = [*MODULES, {"path": "2", "type": f"sentence_transformers.models.{kind}"}]
    with pytest.raises(EncoderError, match=f"modules of type {kind} are not supported here; expected"):
        read_settings(write(tmp_path, {"config.json": CONFIG, "modules.json": modules}))


@pytest.mark.parametrize("modules", [MODULES[:1], MODULES[1:], MODULES[::-1]])
def test_modules_that_give_no_vector_of_a_text_are_refused(tmp_path: Path, modules: Any) -> None:
    with pytest.raises(EncoderError, match="expected a Transformer, then a Pooling"):
        read_settings(write(tmp_path, {"config.json": CONFIG, "modules.json": modules}))


@pytest.mark.parametrize("similarity", ["euclidean", "manhattan"])
def test_a_similarity_by_which_no_index_ranks_is_refused(tmp_path: Path, similarity: str) -> None:
    sentence = {"similarity_fn_name": similarity}
    with pytest.raises(EncoderError, match=f"'{similarity}'; expected cosine or dot"):
        read_settings(write(tmp_path, {"config.json": CONFIG, "config_sentence_transformers.json": sentence}))


@pytest.mark.parametrize("length", [-4, 0, "16"])
def test_a_truncation_to_nothing_is_refused(tmp_path: Path, length: object) -> None:
    sentence = {"truncate_dim": length}
    with pytest.raises(EncoderError, match=r"truncate_dim is .*; expected a positive whole number"):
        read_settings(write(tmp_path, {"config.json": CONFIG, "config_sentence_transformers.json": sentence}))


def test_a_projection_of_unknown_length_is_refused(tmp_path: Path) -> None:
    modules = [*MODULES, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    write(tmp_path, {"config.json": CONFIG, "modules.json": modules, "2_Dense/config.json": {}})
    with pytest.raises(EncoderError, match="out_features is None; expected the length"):
        read_settings(tmp_path)


def test_a_pooling_that_leaves_the_prompt_out_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": CONFIG, "modules.json": MODULES, "1_Pooling/config.json": {}})
    assert not pools_without_prompt(tmp_path)
    assert pools_without_prompt(write(tmp_path, {"1_Pooling/config.json": {"include_prompt": False}}))


ROUTER = {"path": "", "type": "sentence_transformers.models.Router"}


def write_pair(folder: Path, **changes: Any) -> Path:
    types = {}
    for side in ("query", "document"):
        for order, kind in enumerate(("Transformer", "Pooling")):
            types[f"{side}_{order}_{kind}"] = f"sentence_transformers.models.{kind}"
        write(folder / f"{side}_0_Transformer", {"config.json": CONFIG})
    structure = {side: [name for name in types if name.startswith(side)] for side in ("query", "document")}
    router = {"types": types, "structure": structure, "parameters": {"route_mappings": {}}, **changes}
    return write(folder, {"modules.json": [ROUTER], "router_config.json": router})


def test_two_encoders_have_a_length_each(tmp_path: Path) -> None:
    write_pair(tmp_path)
    limits = {"max_position_embeddings": 128, "hidden_size": 8, "model_type": "bert"}
    write(tmp_path / "query_0_Transformer", {"config.json": limits})
    write(tmp_path / "query_1_Pooling", {"config.json": {"pooling_mode": "cls"}})
    settings = read_settings(tmp_path)
    assert settings.pooling == "query cls, document mean"
    assert (settings.dim, settings.query_tokens, settings.max_tokens, settings.longest) == (8, 128, 512, 512)


def test_two_encoders_of_other_lengths_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write(tmp_path / "query_0_Transformer", {"config.json": {**CONFIG, "hidden_size": 4}})
    with pytest.raises(EncoderError, match="queries have length 4, those of documents 8"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"structure": {"text": []}}, "its routes are text; expected query and document"),
        ({"parameters": {"route_mappings": {"('query', 'text')": "query"}}}, "by a mapping"),
        ({"types": {}}, "not the settings of a Router"),
        ({"structure": {"query": ["../x"], "document": []}, "types": {"../x": "os.system"}}, "model's own"),
        (
            {
                "structure": {"query": ["../x"], "document": []},
                "types": {"../x": "sentence_transformers.models.Transformer"},
            },
            "leaves the folder",
        ),
    ],
)
def test_a_router_of_something_else_is_refused(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        read_settings(write_pair(tmp_path, **changes))


def test_a_router_behind_a_shared_transformer_is_refused_by_name(tmp_path: Path) -> None:
    modules = [*MODULES, {**ROUTER, "path": "2_Router"}]
    with pytest.raises(EncoderError, match="modules of type Router are not supported here"):
        read_settings(write(tmp_path, {"config.json": CONFIG, "modules.json": modules}))
