"""Draws the pictures of the model card: `python -m recipe.pictures`."""

__all__ = ["attention"]

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import onnxlens
from recipe.corpus import WORK
from recipe.curve import DOTS, Curve

HERE = Path(__file__).parents[1]
WORDS = " lamp river seven blue Emma window coat tree"  # in no order that any text has


def attention(pattern: NDArray[np.float32], tokens: Sequence[str], title: str, path: Path) -> None:
    """Draws what a head attends to: a row for each token that looks, a column for each that is looked at.

    Args:
        pattern: Attention probabilities [Q, K], with as many queries as keys.
        tokens: The text of each position, [Q].
        title: What stands above it.
        path: Where the picture goes; its suffix decides the format.
    """
    figure = Figure(figsize=(6, 5.2), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(pattern, vmin=0, vmax=1, cmap="viridis")
    labels = [token.replace(" ", "·") for token in tokens]
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(title=title, xlabel="token looked at", ylabel="token that looks")
    figure.colorbar(shown, label="attention")
    figure.savefig(path, dpi=DOTS)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=WORK, show_default=True, help="Training's folder.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE, show_default=True, help="Where pictures go.")
def main(work: Path, out: Path) -> None:
    """Draw the loss curve from the training state, and the strongest induction head of the model that ships."""
    state = work / "training.pt"
    if not state.exists():
        raise click.ClickException(f"No training: {state} does not exist. Run `python -m recipe.train` first.")
    saved = torch.load(state, weights_only=True, map_location="cpu")
    Curve(**saved["curve"]).draw(out / "loss.png", saved["settings"]["rows"] * saved["settings"]["length"])
    head = json.loads((HERE / "tiny-results.json").read_text())["heads"]["strongest"]["induction"]
    name = f"blocks.{head['layer']}.attn.hook_pattern"
    lens = onnxlens.load(HERE / "tiny")
    _, cache = lens.run_with_cache(WORDS + WORDS, names_filter=name)
    title = f"Layer {head['layer']}, head {head['head']}, reading the same words twice"
    attention(cache[name][0, head["head"]], lens.to_str_tokens(WORDS + WORDS), title, out / "induction.png")


if __name__ == "__main__":
    main()
