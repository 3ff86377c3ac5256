"""The checkpoint folder: what transformers loads, and beside it what training needs to go on."""

__all__ = ["CONTEXT", "Shape", "new_model", "resume", "save"]

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from recipe.corpus import END_OF_TEXT

CONTEXT = 256


@dataclass(frozen=True)
class Shape:
    """Depth, width of the residual stream and heads of each block; `recipe.shapes` compares some."""

    layers: int = 5
    width: int = 256
    heads: int = 4


def new_model(work: Path, shape: Shape) -> GPT2LMHeadModel:
    """Builds a GPT-2 with random weights for the tokenizer in a work folder.

    Raises:
        FileNotFoundError: If the folder holds no corpus.
        ValueError: If the heads do not divide the width.
    """
    if shape.width % shape.heads:
        raise ValueError(
            f"{shape.heads} heads do not divide a width of {shape.width}: choose a multiple of {shape.heads}."
        )
    record = work / "corpus.json"  # which the corpus step writes last
    if not record.exists():
        raise FileNotFoundError(f"No corpus: {record} does not exist. Run `python -m recipe.corpus` first.")
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    end = tokenizer.token_to_id(END_OF_TEXT)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=CONTEXT,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        activation_function="gelu_new",
        resid_pdrop=0.0,  # every token is seen only a few times: there is nothing to regularise
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    model.set_attn_implementation("eager")  # measured faster than the fused one at this size
    return model


def save(model: GPT2LMHeadModel, tokenizer: Path, work: Path, state: dict[str, Any]) -> None:
    """Writes the checkpoint folder and the training state; older ones stay until the new ones are whole.

    Args:
        model: The model, float32.
        tokenizer: The tokenizer's file, which goes into the checkpoint too.
        work: Where the folder `tiny-checkpoint` and the training state go.
        state: What `resume` returns: anything that `torch.save` can write.
    """
    folder = work / "tiny-checkpoint"
    fresh, stale = folder.with_suffix(".new"), folder.with_suffix(".old")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    shutil.copy(tokenizer, fresh / "tokenizer.json")
    settings = {
        "tokenizer_class": "GPT2TokenizerFast",
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "model_max_length": CONTEXT,
    }
    (fresh / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if folder.exists():
        shutil.rmtree(stale, ignore_errors=True)  # whole, but older than the folder
        folder.rename(stale)
    fresh.rename(folder)
    shutil.rmtree(stale, ignore_errors=True)
    torch.save(state | {"model": model.state_dict()}, work / "training.pt.new")
    (work / "training.pt.new").replace(work / "training.pt")


def resume(model: GPT2LMHeadModel, work: Path) -> dict[str, Any]:
    """Loads the weights of the last `save` into a model, on whatever device it is, and returns its state.

    Raises:
        FileNotFoundError: If nothing was saved in this folder.
        ValueError: If the model has another shape.
    """
    path = work / "training.pt"
    if not path.exists():
        raise FileNotFoundError(f"Nothing to resume: {path} does not exist. Train without --resume first.")
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location=model.device)
    saved = state.pop("model")
    if {name: value.shape for name, value in saved.items()} != {
        name: value.shape for name, value in model.state_dict().items()
    }:
        raise ValueError(f"The checkpoint in {path} has another shape: give its shape, or train without --resume.")
    model.load_state_dict(saved)
    return state
