"""Checkpoints that are refused, each with a sentence that names what is wrong, before any work starts."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import config_entries, random_weights, tokenizer, write_checkpoint
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from onnxlens.export import _checkpoint as module
from onnxlens.export import export
from onnxlens.export._checkpoint import read_checkpoint
from onnxlens.export.families.gpt2 import GPT2
from onnxlens.runtime.errors import CheckpointError

Weights = dict[str, np.ndarray]


def refused(source: Path, pattern: str, **options: Any) -> str:
    """Checks that reading fails with one line that the pattern matches; returns the line."""
    with pytest.raises(CheckpointError, match=pattern) as caught:
        read_checkpoint(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def with_weights(folder: Path, change: Callable[[Weights], object]) -> Path:
    weights = random_weights(config_entries())
    change(weights)
    return write_checkpoint(folder, weights=weights)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        (
            {"model_type": "bert"},
            r"config\.json: model_type is 'bert', and onnxlens knows the families gpt2, llama, mistral\. Begin another",
        ),
        ({"model_type": None}, "model_type is None"),
        ({"add_cross_attention": True}, "'add_cross_attention' is set; models with cross-attention cannot be exported"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config' is set; models with quantised weights"),
        ({"auto_map": {"AutoModel": "m.M"}}, "'auto_map' is set; models with code of its own"),
        ({"pruned_heads": {"0": [1]}}, "'pruned_heads' is set"),
        ({"use_kernels": True}, "'use_kernels' is set; models with kernels in place of its layers"),
        ({"fusion_config": {"patch_embeddings": True}}, "'fusion_config' is set"),
        ({"transformers_weights": "other.safetensors"}, "is set; models with weights in a file of another name"),
        (
            {"attn_implementation": "kernels-community/flash-attn3"},
            "'attn_implementation' is 'kernels-community/flash-attn3', a kernel that transformers would fetch. If the",
        ),
        ({"_attn_implementation": ["a/b:c"]}, r"'_attn_implementation' is \['a/b:c'\], a kernel"),
        ({"model_type": "x" * 10**6}, "model_type is 'xxx.*xxx.*, and onnxlens knows"),
        (
            {"activation_function": "gelu_fast"},
            "'activation_function' 'gelu_fast' is not one that onnxlens computes; it must be one of gelu_new, gelu, "
            "relu, silu",
        ),
        ({"n_head": 5}, "'n_embd' 32 cannot be divided among 'n_head' 5 heads"),
        ({"n_layer": 0}, "'n_layer' must be a whole number of at least 1, not 0"),
        ({"n_layer": "two"}, "n_layer"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
        (
            {"layer_norm_epsilon": float("nan")},
            r"config\.json cannot be read: it is not JSON \(NaN is not a JSON number",
        ),
        ({"scale_attn_weights": "yes"}, "scale_attn_weights"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_that_cannot_be_honoured(tmp_path: Path, changes: dict[str, Any], pattern: str) -> None:
    source = write_checkpoint(tmp_path / "source", weights={"x": np.zeros(1)})
    (source / "config.json").write_text(json.dumps(config_entries(**changes)))
    assert str(source / "config.json") in refused(source, pattern)


def test_no_configuration(tmp_path: Path) -> None:
    refused(tmp_path, re.escape(f"{tmp_path} is not a checkpoint: it has no config.json."))


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"{'a': 1}", r"config\.json cannot be read: "),
        (b"", r"config\.json cannot be read: "),
        (b"[1, 2]", r"config\.json does not hold a JSON object\."),
        (b"\xff\xfe{}", r"config\.json cannot be read: it is UTF-16; save it as UTF-8\."),
        (b"[" * 100_000, r"config\.json cannot be read: its lists and objects are nested too deeply\."),
        (b'{"a": "' + b"x" * 11_000_000 + b'"}', r"config\.json cannot be read: it is larger than 10,000,000 bytes"),
    ],
    ids=["python", "empty", "list", "not UTF-8", "nested without end", "too large"],
)
def test_a_configuration_that_is_no_json_object(tmp_path: Path, content: bytes, pattern: str) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "config.json").write_bytes(content)
    refused(source, pattern)


def test_more_layers_than_the_weights_have_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out without making the names of a hundred million tensors."""
    source = write_checkpoint(tmp_path / "source")
    (source / "config.json").write_text(json.dumps(config_entries(n_layer=10**7)))
    monkeypatch.setattr(GPT2, "parameter_shapes", lambda self: pytest.fail("names were made"))
    refused(
        source, r"config\.json says 'n_layer': 10000000, and the number of tensors is 28; they do not belong together"
    )


@pytest.mark.parametrize("model", [True, False], ids=["beside a model", "alone"])
def test_an_adapter(tmp_path: Path, model: bool) -> None:
    source = write_checkpoint(tmp_path / "source")
    if not model:
        (source / "config.json").unlink()
    (source / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "gpt2"}')
    refused(
        source,
        r"has an adapter_config\.json, so it is, or contains, a PEFT adapter.* Merge it into its model and save that",
    )


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "source") / "model.safetensors"
    refused(
        file,
        (
            r"model\.safetensors is a file, but not a GGUF file; give the checkpoint's folder, which has "
            r"config\.json in it\."
        ),
    )


def test_a_revision_of_a_folder(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    refused(source, "A revision is for a hub id, and .* is a folder; leave --revision out", revision="main")


def test_no_weights(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    refused(source, r"has no weights: neither model\.safetensors nor pytorch_model\.bin")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda w: w.pop("h.1.mlp.c_fc.bias"), r"1 tensors? (is|are) missing, the first is 'h\.1\.mlp\.c_fc\.bias'"),
        (
            lambda w: w.clear() or w.update(x=np.zeros(1)),
            r"config\.json says 'n_layer': 2, and the number of tensors is 1; they do",
        ),
        (
            lambda w: w.update({"h.2.ln_1.weight": np.zeros(32, np.float32)}),
            r"1 tensors? do(es)? not belong to a gpt2 of this configuration, the first is 'h\.2\.ln_1\.weight'",
        ),
        (
            lambda w: w.update({"h.0.attn.c_attn.weight": w["h.0.attn.c_attn.weight"].T.copy()}),
            r"'h\.0\.attn\.c_attn\.weight' has shape \[96, 32\], expected \[32, 96\]",
        ),
        (
            lambda w: w.update({"wpe.weight": np.zeros((47, 32), np.float32)}),
            r"'wpe\.weight' has shape \[47, 32\], expected \[48, 32\]",
        ),
        (
            lambda w: w.update({"ln_f.bias": np.zeros(32, np.int64)}),
            r"'ln_f\.bias' is torch\.int64, expected floating-point numbers",
        ),
        (
            lambda w: w["h.1.mlp.c_proj.weight"].__setitem__((3, 4), np.nan),
            r"'h\.1\.mlp\.c_proj\.weight' holds NaN or infinite values; the checkpoint is damaged",
        ),
        (
            lambda w: w["wte.weight"].__setitem__((0, 0), -np.inf),
            r"'wte\.weight' holds NaN or infinite values",
        ),
        (
            lambda w: w.update({"ln_f.bias": np.full(32, 1e300)}),
            r"'ln_f\.bias' holds NaN or infinite values",
        ),
        (
            lambda w: w.update({"lm_head.weight": w["wte.weight"] + 1}),
            r"ties the output projection to the embedding, but lm_head\.weight differs from wte\.weight",
        ),
        (
            lambda w: w.update({"transformer.ln_f.bias": w["ln_f.bias"] + 1}),
            r"'ln_f\.bias' appears twice, with and without 'transformer\.'",
        ),
    ],
    ids=[
        "missing",
        "all missing",
        "unexpected",
        "transposed",
        "shorter context",
        "integers",
        "NaN",
        "infinite",
        "beyond float32",
        "untied though tied",
        "twice",
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: Callable[[Weights], object], pattern: str) -> None:
    source = with_weights(tmp_path / "source", change)
    assert refused(source, pattern).startswith(f"{source}: ")


def test_an_untied_model_without_its_output_projection(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "untied", weights=random_weights(config_entries("base", n_head=1)))
    refused(source, r"missing, the first is 'lm_head\.weight'")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:5],
        lambda content: b"",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"?" + content[9:],
        lambda content: content + b"\0",
        lambda content: content.replace(b'"F32"', b'"F99"', 1),
    ],
    ids=["last byte", "half", "5 bytes", "empty", "length", "no JSON", "longer", "unknown type"],
)
def test_a_damaged_safetensors_file(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = write_checkpoint(tmp_path / "source") / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    refused(file.parent, r"model\.safetensors is damaged or not a safetensors file: ")


def test_a_pointer_in_place_of_the_weights(tmp_path: Path) -> None:
    """What a clone without git-lfs leaves in their place."""
    file = write_checkpoint(tmp_path / "source") / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 548105171\n")
    refused(file.parent, r"model\.safetensors is damaged or not a safetensors file")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["zip", "plain pickle", "inside a state dict"])
def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path: Path, how: str) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    canary, file = tmp_path / "canary", source / "pytorch_model.bin"
    if how == "plain pickle":
        file.write_bytes(pickle.dumps({"wte.weight": Malicious(canary)}))
    elif how == "zip":
        torch.save(Malicious(canary), file)
    else:
        state: dict[str, Any] = {n: torch.from_numpy(v) for n, v in random_weights(config_entries()).items()}
        torch.save({**state, "extra": Malicious(canary)}, file)
    refused(source, r"pytorch_model\.bin is damaged, or holds more than weights: ")
    assert not canary.exists()
    if how == "plain pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert canary.exists(), "the test's own pickle does nothing"


@pytest.mark.parametrize(
    ("state", "pattern"),
    [
        ([1, 2], "does not hold a state dict of tensors"),
        ({"wte.weight": 1.0}, "does not hold a state dict of tensors"),
        ({7: torch.zeros(1)}, "does not hold a state dict of tensors"),
    ],
    ids=["list", "number", "unnamed"],
)
def test_a_pickle_that_is_no_state_dict(tmp_path: Path, state: object, pattern: str) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    torch.save(state, source / "pytorch_model.bin")
    refused(source, pattern)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1).expand(300, 10**12),
        lambda: torch.zeros(300, 32).to_sparse(),
        lambda: torch.empty(300, 32, device="meta"),
        lambda: torch.quantize_per_tensor(torch.zeros(300, 32), 1.0, 0, torch.qint8),
    ],
    ids=["expanded", "sparse", "without numbers", "quantised"],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")
def test_a_pickle_of_other_tensors_than_rows_of_numbers(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    """A few bytes could claim terabytes."""
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    state = {name: torch.from_numpy(value) for name, value in random_weights(config_entries()).items()}
    torch.save(state | {"wte.weight": make()}, source / "pytorch_model.bin")
    refused(source, r"pytorch_model\.bin: 'wte\.weight' is not stored as a dense array|holds more than weights")


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").rename(source / "a.safetensors")
    save_file({"ln_f.bias": np.ones(32, np.float32)}, source / "b.safetensors")
    names = dict.fromkeys(random_weights(config_entries()), "a.safetensors") | {"ln_f.bias": "b.safetensors"}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused(source, r"b\.safetensors: 'ln_f\.bias' is in another file of the checkpoint, too")


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1], ids=["empty", "10 bytes", "half", "last byte"])
def test_a_truncated_pickle(tmp_path: Path, keep: float) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    file = source / "pytorch_model.bin"
    torch.save({name: torch.from_numpy(v) for name, v in random_weights(config_entries()).items()}, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    refused(source, r"pytorch_model\.bin is damaged, or holds more than weights")


@pytest.mark.parametrize(
    ("index", "pattern"),
    [
        (
            {"weight_map": {"wte.weight": "model-00002-of-00002.safetensors"}},
            "names 'model-00002-of-00002.safetensors'",
        ),
        (
            {"weight_map": {"wte.weight": "../elsewhere.safetensors"}},
            r"names '\.\./elsewhere\.safetensors'; expected the name of a \.safetensors file beside it",
        ),
        ({"weight_map": {"wte.weight": 7}}, "names 7; expected the name of a"),
        ({"weight_map": {"wte.weight": "model.bin"}}, "names 'model.bin'; expected the name of a"),
        ({"weight_map": ["x"]}, "has no 'weight_map'"),
        ({}, "has no 'weight_map'"),
    ],
    ids=["missing", "outside", "number", "other kind", "list", "empty"],
)
def test_shards_that_are_not_there(tmp_path: Path, index: dict[str, Any], pattern: str) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(source, pattern)


def test_no_tokenizer(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    refused(source, r"has no tokenizer: neither tokenizer\.json nor vocab\.json and merges\.txt\. Give one with --tok")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("vocab.txt", r"its vocab\.txt is a WordPiece \(BERT\) vocabulary; .* BertTokenizerFast\.from_pretrained"),
        ("spiece.model", r"its spiece\.model is a SentencePiece vocabulary; .* AutoTokenizer\.from_pretrained"),
    ],
)
def test_another_kind_of_tokenizer_without_tokenizer_json(tmp_path: Path, file: str, text: str) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    (source / file).write_text("[PAD]\n[UNK]\n")
    refused(source, text)


def test_half_a_tokenizer(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text("{}")
    refused(source, "has no tokenizer: neither")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"not json", b"\xff\xfe"], ids=["empty", "no model", "no JSON", "not UTF-8"]
)
def test_a_damaged_tokenizer(tmp_path: Path, content: bytes) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").write_bytes(content)
    refused(source, r"The tokenizer in .* cannot be read: ")


@pytest.mark.parametrize("added", [b"[1]", b'{"<x>": "one"}', b"{"], ids=["list", "words", "no JSON"])
def test_damaged_added_tokens(tmp_path: Path, added: bytes) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    tokenizer().model.save(str(source))
    (source / "added_tokens.json").write_bytes(added)
    refused(source, r"added_tokens\.json|The tokenizer in .* cannot be read: ")


def test_a_tokenizer_path_that_does_not_exist(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    refused(source, "There is no tokenizer .*nowhere: name an existing tokenizer.json", tokenizer=tmp_path / "nowhere")


def test_a_tokenizer_path_that_leads_nowhere(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(source, "Cannot read the tokenizer .*loop: .*loop", tokenizer=tmp_path / "loop")
    refused(source, "Cannot read the tokenizer ~nobody-.*: .*home", tokenizer="~nobody-of-this-name/tokenizer.json")


def test_a_source_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(CheckpointError, match=r"Cannot read the checkpoint .*loop: .*loop"):
        export(tmp_path / "loop", tmp_path / "bundle")
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    with pytest.raises(CheckpointError, match=r"Cannot read the checkpoint .*: its name is not UTF-8"):
        export(write_checkpoint(tmp_path / "source").rename(tmp_path / name), tmp_path / "bundle")


def test_a_tokenizer_larger_than_the_model(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", vocab_size=280)
    refused(source, "The tokenizer has ids up to 289, but the model has only 280 tokens; they do not belong together")


def test_few_tokens_with_high_ids(tmp_path: Path) -> None:
    """How many tokens there are says nothing about the ids that they have."""
    source = write_checkpoint(tmp_path / "source")
    entries = json.loads((source / "tokenizer.json").read_text())
    entries["model"]["vocab"] |= {letter: 300 + place for place, letter in enumerate("WXYZ")}
    (source / "tokenizer.json").write_text(json.dumps(entries))
    refused(source, "The tokenizer has ids up to 303, but the model has only 300 tokens")


def test_a_bad_generation_configuration(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "generation_config.json").write_text("{")
    refused(source, r"generation_config\.json cannot be read")


def test_nothing_is_traced_or_written_for_a_checkpoint_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_behind: Callable[[], list[str]]
) -> None:
    source = with_weights(tmp_path / "source", lambda weights: weights.pop("ln_f.bias"))
    monkeypatch.setattr("onnxlens.export._bundle.hooks_graph", lambda config: pytest.fail("work has begun"))
    monkeypatch.setattr("onnxlens.export._verify.reference", lambda *args: pytest.fail("work has begun"))
    with pytest.raises(CheckpointError, match=r"missing, the first is 'ln_f\.bias'"):
        export(source, tmp_path / "out" / "bundle")
    assert left_behind() == []


def test_weights_of_other_precisions_are_read_as_float32(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        source = write_checkpoint(tmp_path / str(dtype))
        weights = {n: torch.from_numpy(v).to(dtype) for n, v in random_weights(config_entries()).items()}
        save_torch(weights, source / "model.safetensors")
        found = module.read_checkpoint(source).tensors
        for name, value in weights.items():
            assert found[name].dtype == torch.float32
            assert torch.equal(found[name], value.float()), name


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_buffers_of_old_checkpoints_are_no_weights(tmp_path: Path, prefix: str) -> None:
    weights = random_weights(config_entries())
    stored = {f"{prefix}{name}": value for name, value in weights.items()}
    for layer in range(2):
        stored[f"{prefix}h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 48, 48), np.uint8))
        stored[f"{prefix}h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    stored["lm_head.weight"] = weights["wte.weight"]
    source = write_checkpoint(tmp_path / "source")
    save_file(stored, source / "model.safetensors")
    found = read_checkpoint(source)
    assert found.tensors.keys() == weights.keys()
    assert found.parameters == sum(value.size for value in weights.values())


def test_a_folder_that_another_tool_exported_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "_name_or_path": "openai-community/gpt2"}))
    (tmp_path / "model.onnx").touch()
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} is an ONNX export such as Optimum's: it has neither onnxlens.json, as a bundle, nor weights, as a "
        "checkpoint. Make a bundle of the checkpoint that it came from: onnxlens export openai-community/gpt2 FOLDER"
    )
