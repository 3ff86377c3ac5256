"""Makes the pictures of docs/visualizers.md with the model that ships: `python docs/pictures.py`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

import onnxlens

__all__ = ["PICTURES", "command_of", "main"]

IMAGES = Path(__file__).resolve().parent / "images"
STORY = "The cat sat on the mat, and the dog sat on the rug. Then the cat sat on the rug, too."
GIFT = "When Mary and John went to the shop, John gave a drink to"
OTHER = "When Mary and John went to the shop, Mary gave a drink to"
CHAIN = "top_k=40 | top_p=0.95 | temperature=0.8"

# By the name of the file: the visualizer, the text, and its options.
PICTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tokens": ("tokens", STORY, {}),
    "embedding": ("embedding", GIFT, {"position": 1, "nearest": 5}),
    "qkv": ("qkv", GIFT, {"layer": 4, "head": 3, "key": 1}),
    "attention": ("attention", STORY, {"layer": 2, "head": 3}),
    "attention-heads": ("attention", STORY, {}),
    "attention-steps": ("attention", GIFT, {"layer": 2, "head": 3, "values": "steps"}),
    "attention-lines": ("attention", GIFT, {"layer": 4, "head": 3, "values": "lines"}),
    "rollout": ("rollout", GIFT, {}),
    "layernorm": ("layernorm", GIFT, {"which": "ln2", "layer": 1}),
    "mlp": ("mlp", GIFT, {"layer": 2, "neurons": 12}),
    "residual": ("residual", GIFT, {}),
    "logit_lens": ("logit_lens", GIFT, {}),
    "attribution": ("attribution", GIFT, {"against": " John"}),
    "predictions": ("predictions", "Once upon a time there was a", {"top": 8}),
    "sampling": ("sampling", "Once upon a time there was a", {"sampler": CHAIN, "seed": 3}),
    "surprisal": ("surprisal", STORY, {}),
    "ablation": ("ablation", GIFT, {"token": " Mary", "against": " John"}),
    "patching": ("patching", GIFT, {"corrupted": OTHER, "token": " Mary", "against": " John"}),
    "flow": ("flow", GIFT, {}),
    "compare": ("compare", GIFT, {"of": "attention", "options": {"layer": 2}, "other_text": OTHER}),
    "generation": ("generation", "Once upon a time there was a", {"max_new_tokens": 16, "sampler": CHAIN, "seed": 7}),
}


def command_of(name: str) -> str:
    """The command that makes a picture."""
    visualizer, text, options = PICTURES[name]
    words = ["onnxlens", "view", visualizer.replace("_", "-"), f'"{text}"']
    for option, value in options.items():
        shown = json.dumps(value) if isinstance(value, dict) else str(value)
        words += [
            f"--{option.replace('_', '-')}",
            f'"{shown}"' if " " in shown and '"' not in shown else shlex.quote(shown),
        ]
    return " ".join([*words, "-o", f"{name}.png"])


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """Make the pictures NAMES, or all."""
    lens = onnxlens.load(provider="cpu", threads=1)
    for name in names or PICTURES:
        visualizer, text, options = PICTURES[name]
        print(lens.view(visualizer, text, **options).save(IMAGES / f"{name}.png"))


if __name__ == "__main__":
    main()
