"""Model families: the built-in ones, those of plugins, and the kit that proves one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import config_entries, random_weights, write_checkpoint

import onnxlens
from onnxlens.export import export
from onnxlens.export.families import families, family_of
from onnxlens.export.families.llama import Llama
from onnxlens.export.testing import check_family
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.weight_view import WeightView
from onnxlens.runtime.errors import CheckpointError, ExportError, PluginError

MISTRAL = {**config_entries("llama"), "model_type": "mistral", "architectures": ["MistralForCausalLM"]}


@pytest.mark.parametrize("name", ["wide", "single", "biased"])
def test_the_kit_passes_the_built_in_families(name: str) -> None:
    entries = config_entries(name)
    check_family(family_of(entries["model_type"], "here"), entries)


def test_the_kit_passes_mistral() -> None:
    check_family(family_of("mistral", "here"), {**MISTRAL, "sliding_window": None})


class _Swapped(Llama):
    """Says that keys are values."""

    def weights(self) -> dict[str, WeightView]:
        views = super().weights()
        for layer in range(self.cfg.n_layers):
            attn = f"blocks.{layer}.attn"
            views[f"{attn}.W_K"], views[f"{attn}.W_V"] = views[f"{attn}.W_V"], views[f"{attn}.W_K"]
        return views


class _OtherEpsilon(Llama):
    """Computes with another epsilon than its checkpoints say."""

    def config(self, entries: Any) -> ModelConfig:
        return replace(super().config(entries), eps=1e-2)


class _Unrotated(Llama):
    """Rotates by other angles than its checkpoints say."""

    def config(self, entries: Any) -> ModelConfig:
        return replace(super().config(entries), rotary_base=77.0)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (_Swapped, AssertionError, r"blocks\.0\.attn\.hook_k does not follow from the weights and the earlier values"),
        (_OtherEpsilon, ExportError, "The exported graphs do not reproduce the PyTorch model: logits"),
        (_Unrotated, ExportError, "The exported graphs do not reproduce the PyTorch model: logits"),
    ],
)
def test_the_kit_finds_a_wrong_family(wrong: type[Llama], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        check_family(wrong, config_entries("llama"))


REFUSED = [
    ("mistral", {"sliding_window": 4096}, "'sliding_window' is 4096; models with sliding-window attention"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "'rope_type'.* is 'yarn'"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0}}, "'factor' of the rotation"),
    ("llama", {"quantization_config": {"bits": 4}}, "'quantization_config' is set; models with quantised weights"),
    ("llama", {"num_key_value_heads": 4}, "'num_attention_heads' 6 cannot be divided among 'num_key_value_heads' 4"),
    ("llama", {"head_dim": 5}, "RoPE requires an even rotary dimension"),
    ("llama", {"hidden_act": "tanh"}, "'hidden_act' 'tanh' is not one that onnxlens computes"),
    ("llama", {"rms_norm_eps": 0.0}, "'rms_norm_eps' must be a number between 0 and 1, not 0.0"),
    (
        "qwen9",
        {},
        "model_type is 'qwen9', and onnxlens knows the families gpt2, llama, mistral. Begin another one with",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "text"), REFUSED, ids=[text[:30] for _, _, text in REFUSED])
def test_what_a_family_cannot_honour_is_refused(tmp_path: Path, kind: str, changes: dict[str, Any], text: str) -> None:
    source = write_checkpoint(tmp_path / "source", "llama", weights=random_weights(config_entries("llama")))
    entries = {**(MISTRAL if kind == "mistral" else config_entries("llama")), "model_type": kind, **changes}
    (source / "config.json").write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match=text):
        export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


PLUGIN = '''
from onnxlens.export.families.llama import Llama
from onnxlens.plugins import hookimpl

ONNXLENS_PLUGIN_API = 1


class Mine(Llama):
    """A llama of mine."""

    MODEL_TYPE = "mine"


@hookimpl
def register_families(register):
    register("mine", {what})
'''


def test_a_plugin_adds_a_family(tmp_path: Path, bundle: Any) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("{what}", "Mine"))
    source = write_checkpoint(tmp_path / "source", "llama")
    (source / "config.json").write_text(json.dumps(config_entries("llama", model_type="mine")))
    known = Registry([tmp_path / "mine.py"], find=False)
    assert families(known) == ["gpt2", "llama", "mine", "mistral"]
    assert known.families["mine"].summary == "A llama of mine."
    lens = onnxlens.load(export(source, tmp_path / "out", plugins=known).path)
    expected = onnxlens.load(bundle("llama"))
    assert lens.predict("the cat").top[0] == expected.predict("the cat").top[0]
    with pytest.raises(CheckpointError, match="model_type is 'mine', and onnxlens knows the families gpt2, llama"):
        export(source, tmp_path / "other")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("Mine()", "A family is a class that derives from onnxlens.export.families.Family"),
        ("object", "what was registered as 'mine' is the class object"),
        ("'no place'", "must be a class, or its place as 'module:attribute', not 'no place'"),
    ],
)
def test_a_broken_family_says_what_is_wrong(tmp_path: Path, what: str, text: str) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("{what}", what.replace("Mine()", "object()")))
    known = Registry([tmp_path / "mine.py"], find=False)
    with pytest.raises(PluginError, match=text):
        family_of("mine", "here", known)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("nowhere.at_all:Mine", "cannot be imported from nowhere.at_all:Mine: No module named 'nowhere'"),
        ("onnxlens.export.families.llama:None_", "cannot be imported from .*has no attribute 'None_'"),
        ("onnxlens.export.families.llama:attend", "is onnxlens.export.families.llama:attend, which is not a class"),
    ],
)
def test_a_family_that_is_not_where_it_should_be(tmp_path: Path, place: str, text: str) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("{what}", repr(place)))
    with pytest.raises(PluginError, match=text):
        family_of("mine", "here", Registry([tmp_path / "mine.py"], find=False))


def test_families_are_listed_without_pytorch() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from onnxlens.plugins._registry import Registry; "
        "print([(e.name, e.summary[:5]) for e in Registry(find=False).families.values()]); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    assert ran.stdout.startswith("[('gpt2', 'GPT-2'), ('llama', 'Llama'), ('mistral', 'Mistr')]")
