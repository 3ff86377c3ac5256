"""The forms in which a GPT-2 checkpoint comes, all of which export; and what an export makes of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import CONFIGS, config_entries, random_weights, tokenizer, write_checkpoint
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from safetensors.torch import save_model
from tokenizers import Tokenizer
from transformers import BertTokenizerFast, GPT2Config, GPT2LMHeadModel, GPT2Model, GPT2Tokenizer

from onnxlens.export import export, export_model
from onnxlens.export._checkpoint import read_checkpoint, read_model
from onnxlens.export._reference import transformers_model
from onnxlens.export._tokenizer import read_tokenizer
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime.errors import CheckpointError

Folder = Callable[[str], Path]
REAL_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "gpt2" / "tokenizer.json"  # beside the checkout


def same_weights(bundle: Bundle, weights: dict[str, np.ndarray]) -> None:
    assert bundle.weights.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(bundle.weights[name], value.astype(np.float32), err_msg=name)


def torch_weights(name: str = "base") -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in random_weights(config_entries(name)).items()}


def model_in_memory(name: str = "base") -> GPT2LMHeadModel:
    model = GPT2LMHeadModel(GPT2Config(**config_entries(name)))
    weights = torch_weights(name)
    head = weights.pop("lm_head.weight", weights["wte.weight"])
    model.load_state_dict({"lm_head.weight": head, **{f"transformer.{key}": value for key, value in weights.items()}})
    return model


def test_a_pickled_checkpoint(tmp_path: Path, quick_trace: None) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    torch.save(torch_weights(), source / "pytorch_model.bin")
    same_weights(export(source, tmp_path / "bundle"), random_weights(config_entries()))


def test_safetensors_are_preferred_to_a_pickle(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"never opened")
    assert read_checkpoint(source).tensors.keys() == random_weights(config_entries()).keys()


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickled"])
def test_a_sharded_checkpoint(tmp_path: Path, quick_trace: None, pickled: bool) -> None:
    """In parts, with an index that names them, as huggingface_hub writes what is large."""
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    state = {f"transformer.{name}": value for name, value in torch_weights().items()}
    save_torch_state_dict(state, source, max_shard_size="50KB", safe_serialization=not pickled)
    ending = "bin" if pickled else "safetensors"
    assert len(list(source.glob(f"*-of-*.{ending}"))) > 2
    assert len(list(source.glob(f"*.{ending}.index.json"))) == 1
    same_weights(export(source, tmp_path / "bundle"), random_weights(config_entries()))


def test_a_sharded_checkpoint_as_transformers_saves_it(tmp_path: Path, quick_trace: None) -> None:
    source = tmp_path / "source"
    model_in_memory().save_pretrained(source, max_shard_size="50KB")
    tokenizer().save(str(source / "tokenizer.json"))
    assert not (source / "model.safetensors").exists()
    same_weights(export(source, tmp_path / "bundle"), random_weights(config_entries()))


def test_a_whole_file_goes_before_parts(tmp_path: Path) -> None:
    """As in transformers: what an index names is not opened where model.safetensors is."""
    source = write_checkpoint(tmp_path / "source")
    (source / "model.safetensors.index.json").write_text("never read")
    assert read_checkpoint(source).tensors.keys() == random_weights(config_entries()).keys()


def test_a_tied_checkpoint_that_stores_its_output_projection_only(tmp_path: Path, quick_trace: None) -> None:
    """Of two names of one tensor, safetensors' save_model stores the first."""
    source = write_checkpoint(tmp_path / "source")
    save_model(model_in_memory(), str(source / "model.safetensors"))
    with safe_open(source / "model.safetensors", "np") as file:
        assert "lm_head.weight" in file.keys() and "transformer.wte.weight" not in file.keys()  # noqa: SIM118
    same_weights(export(source, tmp_path / "bundle"), random_weights(config_entries()))


def test_a_checkpoint_as_the_hub_has_it(tmp_path: Path, quick_trace: None, capfd: pytest.CaptureFixture[str]) -> None:
    """As openai-community/gpt2: half of the names it stores are no parameters, and nobody wants to be told."""
    weights = random_weights(config_entries())
    buffers = {f"h.{layer}.attn.bias": np.tril(np.ones((1, 1, 48, 48), np.float32)) for layer in range(2)}
    source = write_checkpoint(tmp_path / "source", weights={**weights, **buffers})
    bundle = export(source, tmp_path / "bundle")
    same_weights(bundle, weights)
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_as_transformers_saves_it(tmp_path: Path, quick_trace: None) -> None:
    model_in_memory().save_pretrained(tmp_path / "source")
    tokenizer().save(str(tmp_path / "source" / "tokenizer.json"))
    bundle = export(tmp_path / "source", tmp_path / "bundle")
    same_weights(bundle, random_weights(config_entries()))


def test_a_tied_checkpoint_that_stores_its_output_projection_too(tmp_path: Path, quick_trace: None) -> None:
    weights = random_weights(config_entries())
    stored = {f"transformer.{name}": value for name, value in weights.items()}
    source = write_checkpoint(tmp_path / "source", weights={**stored, "lm_head.weight": weights["wte.weight"].copy()})
    same_weights(export(source, tmp_path / "bundle"), weights)


def test_a_half_precision_checkpoint(tmp_path: Path, quick_trace: None) -> None:
    weights = {name: value.astype(np.float16) for name, value in random_weights(config_entries()).items()}
    source = write_checkpoint(tmp_path / "source", weights=weights, torch_dtype="float16")
    bundle = export(source, tmp_path / "bundle")
    same_weights(bundle, weights)
    entries = json.loads((bundle.path / "config.json").read_text())
    assert entries["dtype"] == "float32" and "torch_dtype" not in entries


def test_a_configuration_that_leaves_to_defaults_what_it_can(tmp_path: Path) -> None:
    """A config.json from 2019 has no word on ties, scaling or reordering."""
    source = write_checkpoint(tmp_path / "source", n_ctx=48, n_inner=None)
    found = read_checkpoint(source)
    assert found.family.cfg.tie_word_embeddings and found.family.cfg.use_attn_scale
    assert found.config_entries["activation_function"] == "gelu_new"
    assert found.config_entries["n_ctx"] == 48


def test_a_configuration_with_general_names(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    entries = config_entries()
    names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
    for general, own in names.items():
        entries[general] = entries.pop(own)
    (source / "config.json").write_text(json.dumps(entries))
    found = read_checkpoint(source)
    assert (found.family.cfg.d_model, found.family.cfg.n_layers, found.family.cfg.n_heads) == (32, 2, 4)
    assert found.config_entries["n_embd"] == 32


def test_how_a_checkpoint_was_run_is_no_part_of_what_is_exported(tmp_path: Path, quick_trace: None) -> None:
    """An attention implementation that is not installed here, and labels of a classifier, a billion of them."""
    changes = {
        "attn_implementation": "flash_attention_2",
        "_attn_implementation_autoset": True,
        "num_labels": 10**9,
        "torch_dtype": "bfloat16",
        "tp_plan": "auto",
        "task_specific_params": {"text-generation": {"prefix": "\ud800 é"}},  # half of a character
    }
    source = write_checkpoint(tmp_path / "source", **changes)
    (source / "config.json").write_bytes(b"\xef\xbb\xbf" + (source / "config.json").read_bytes())
    bundle = export(source, tmp_path / "bundle")
    same_weights(bundle, random_weights(config_entries()))
    entries = json.loads((bundle.path / "config.json").read_text())
    assert not entries.keys() & {"attn_implementation", "_attn_implementation_autoset", "num_labels", "torch_dtype"}
    assert entries["task_specific_params"] == changes["task_specific_params"]


def test_nothing_in_the_folder_is_read_or_run_by_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_trace: None
) -> None:
    """It is given a configuration and tensors; from a path, it would read and run much more."""
    real = GPT2LMHeadModel.from_pretrained
    given: list[tuple[Any, str]] = []

    def from_pretrained(path: object, **options: Any) -> GPT2LMHeadModel:
        given.append((path, options["attn_implementation"]))
        return real(path, **options)

    monkeypatch.setattr(GPT2LMHeadModel, "from_pretrained", from_pretrained)
    source = write_checkpoint(tmp_path / "source")
    export(source, tmp_path / "bundle")
    assert given == [(None, "eager")]


def test_a_model_as_small_as_can_be(tmp_path: Path) -> None:
    """One position: nothing longer can be compared, and one token is."""
    source = write_checkpoint(tmp_path / "source", n_layer=1, n_head=1, n_embd=1, n_positions=1)
    bundle = export(source, tmp_path / "bundle")
    assert [case["name"] for case in bundle.manifest.verification["cases"]] == ["one token", "whole context"]


def test_a_source_given_as_the_current_folder(
    checkpoint: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_trace: None
) -> None:
    (tmp_path / "my-gpt2").symlink_to(checkpoint("base"))
    monkeypatch.chdir(tmp_path / "my-gpt2")
    bundle = export(".", tmp_path / "bundle")
    assert bundle.manifest.source == {"kind": "folder", "id": "base"}


def test_without_a_target_the_bundle_goes_under_models(
    checkpoint: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_trace: None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(checkpoint("base")).path == tmp_path / "models" / "base"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_in_memory_is_the_checkpoint_it_was_loaded_from(tmp_path: Path, name: str, quick_trace: None) -> None:
    bundle = export_model(model_in_memory(name), tmp_path / "bundle", tokenizer=tokenizer())
    same_weights(bundle, random_weights(config_entries(name)))
    assert bundle.manifest.source == {"kind": "memory", "id": "bundle"}
    entries = json.loads((bundle.path / "config.json").read_text())
    assert config_entries(name).items() <= entries.items()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_model_in_memory_of_another_precision(tmp_path: Path, dtype: torch.dtype, quick_trace: None) -> None:
    model = model_in_memory().to(dtype)
    bundle = export_model(model, tmp_path / "bundle", tokenizer=tokenizer())
    same_weights(bundle, {name: value.to(dtype).float().numpy() for name, value in torch_weights().items()})
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_a_model_in_training_stays_as_it_was(tmp_path: Path, quick_trace: None) -> None:
    """Dropout is off while it is compared and on afterwards; parts that were frozen stay frozen."""
    model = model_in_memory().train()
    assert model.config.attn_pdrop > 0
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_model(model, tmp_path / "bundle", tokenizer=tokenizer())
    assert [module.training for module in model.modules()] == modes
    assert set(modes) == {True, False}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_tokenizer_given_is_not_changed(tmp_path: Path, quick_trace: None) -> None:
    given = tokenizer()
    given.enable_truncation(5)
    given.enable_padding(length=9)
    before = given.to_str()
    bundle = export_model(model_in_memory(), tmp_path / "bundle", tokenizer=given)
    assert given.to_str() == before
    written = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    assert written.truncation is None and written.padding is None


def test_a_model_in_memory_whose_ties_were_cut(tmp_path: Path) -> None:
    model = model_in_memory()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)
    with pytest.raises(CheckpointError, match=r"the model in memory: .* lm_head\.weight differs from wte\.weight"):
        export_model(model, tmp_path / "bundle", tokenizer=tokenizer())


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    model = GPT2Model(GPT2Config(**config_entries()))
    with pytest.raises(CheckpointError, match=r"Expected a transformers GPT2LMHeadModel, got a GPT2Model\."):
        export_model(model, tmp_path / "bundle", tokenizer=tokenizer())  # type: ignore[arg-type]


def test_a_model_in_memory_takes_a_tokenizers_path(checkpoint: Folder) -> None:
    folder = checkpoint("base")
    for path in (folder, folder / "tokenizer.json", str(folder)):
        found = read_model(model_in_memory(), path)
        assert found.tokenizer.tokenizer.get_vocab() == tokenizer().get_vocab()


def test_a_borrowed_model_is_the_same_object() -> None:
    model = model_in_memory()
    with transformers_model(read_model(model, tokenizer())) as borrowed:
        assert borrowed is model and not model.training


def vocabulary_only(folder: Path, made: Tokenizer) -> Path:
    """Writes vocab.json and merges.txt, which is all that checkpoints of 2019 have."""
    folder.mkdir(parents=True, exist_ok=True)
    made.model.save(str(folder))
    return folder


TEXTS = [
    "the cat sat on the mat",
    " The  dog\n\nand\tthe hat ",
    "naïve café — 数据 🎉👩‍👩‍👧 \x00\x7f",
    "it's they'll I'VE 12345 3.14!?",
    "before<|endoftext|>after <|endoftext|>",
    "",
]


def test_a_tokenizer_made_of_vocabulary_and_merges_is_transformers(tmp_path: Path) -> None:
    folder = vocabulary_only(tmp_path, tokenizer())
    ours, theirs = read_tokenizer(folder).tokenizer, GPT2Tokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.encode(text).ids == theirs.encode(text), text
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text


def test_added_tokens_have_their_ids(tmp_path: Path) -> None:
    folder = vocabulary_only(tmp_path, tokenizer())
    (folder / "added_tokens.json").write_text(json.dumps({"<|b|>": 291, "<|a|>": 290}))
    assert read_tokenizer(folder).tokenizer.encode("<|a|>the<|b|>").ids[:: len(tokenizer().encode("the").ids) + 1] == [
        290,
        291,
    ]


def test_the_real_vocabulary_made_of_vocabulary_and_merges(tmp_path: Path) -> None:
    if not REAL_TOKENIZER.is_file():
        pytest.skip(f"needs GPT-2's own tokenizer, as {Path(*REAL_TOKENIZER.parts[-4:])} beside the checkout")
    real = Tokenizer.from_file(str(REAL_TOKENIZER))
    ours = read_tokenizer(vocabulary_only(tmp_path, real)).tokenizer
    assert ours.encode("Data visualization empowers users to").ids == [6601, 32704, 795, 30132, 2985, 284]
    for text in TEXTS:
        assert ours.encode(text).ids == real.encode(text).ids, text


def test_an_export_without_tokenizer_json_writes_one(tmp_path: Path, quick_trace: None) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    vocabulary_only(source, tokenizer())
    bundle = export(source, tmp_path / "bundle")
    assert (
        Tokenizer.from_file(str(bundle.path / "tokenizer.json")).encode("the cat").ids
        == tokenizer().encode("the cat").ids
    )


def test_a_wordpiece_tokenizer_as_transformers_writes_it(
    tmp_path: Path, quick_trace: None, caplog: pytest.LogCaptureFixture
) -> None:
    """What the error for a vocab.txt recommends leads to a bundle."""
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s"]
    (source / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    with pytest.raises(CheckpointError, match="a WordPiece") as refused:
        read_checkpoint(source)
    assert "BertTokenizerFast.from_pretrained(FOLDER).save_pretrained(FOLDER)" in str(refused.value)
    BertTokenizerFast.from_pretrained(source).save_pretrained(source)
    bundle = export(source, tmp_path / "bundle")
    assert bundle.tokenizer.encode("the cats sat") == [2, 5, 6, 8, 7, 3]
    assert bundle.tokenizer.encode("the cat") == [2, 5, 6, 3]
    said = [record.getMessage() for record in caplog.records]
    assert said[:-1] == ["The tokenizer has 9 entries, and the model 300 tokens: it seems to belong to another model."]
    assert said[-1:] == [
        "This model's tokenizer puts '[SEP]' at the end of every text, so predictions are of what comes after that, as "
        "in transformers."
    ]


def test_a_tokenizer_given_apart(tmp_path: Path, quick_trace: None) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").rename(tmp_path / "mine.json")
    bundle = export(source, tmp_path / "bundle", tokenizer=tmp_path / "mine.json")
    assert Tokenizer.from_file(str(bundle.path / "tokenizer.json")).get_vocab() == tokenizer().get_vocab()
