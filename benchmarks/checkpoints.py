"""GPT-2 checkpoints of the released shapes with random weights, for measuring speed and memory."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models

from onnxlens.export.families.gpt2 import GPT2

SHAPES = {
    "distilgpt2": {"n_layer": 6},
    "gpt2": {},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}


def write(folder: Path, shape: str, tokenizer: Path | None) -> Path:
    """Writes a checkpoint unless it is there already; returns its folder.

    Args:
        folder: where checkpoints go.
        shape: one of `SHAPES`.
        tokenizer: GPT-2's tokenizer.json; None for one that knows the ids as words, where no text is needed.
    """
    checkpoint = folder / f"{shape}-checkpoint"
    if (checkpoint / "tokenizer.json").is_file():
        return checkpoint
    import torch  # not above: what is measured without PyTorch imports this module, too
    from safetensors.torch import save_file

    checkpoint.mkdir(parents=True, exist_ok=True)
    entries = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **SHAPES[shape]}
    model = GPT2(entries, "here")
    torch.manual_seed(0)
    weights = {}
    for name, size in model.parameter_shapes().items():
        scale = name.endswith("weight") and ("ln_" in name)
        weights[name] = torch.ones(size) if scale else torch.randn(size) * 0.02
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    (checkpoint / "config.json").write_text(json.dumps({**entries, "bos_token_id": 50256, "eos_token_id": 50256}))
    if tokenizer is not None:
        (checkpoint / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    else:
        words = {f"w{n}": n for n in range(model.cfg.d_vocab)}
        Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(checkpoint / "tokenizer.json"))
        fast = {"tokenizer_class": "PreTrainedTokenizerFast"}  # else transformers reads it as GPT-2's own kind
        (checkpoint / "tokenizer_config.json").write_text(json.dumps(fast))
    return checkpoint
