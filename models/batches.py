"""Windows of token ids for training and evaluation, read from the files that the corpus step wrote."""

__all__ = ["Batches", "bytes_per_token", "windows"]

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onnxlens.models.corpus import END_OF_TEXT, part

STORY_SHARE = 0.3


class Batches:
    """Draws training batches: windows that begin anywhere in the packed documents, most from docstrings."""

    def __init__(self, work: Path, rows: int, length: int, seed: int = 0) -> None:
        """Opens the training text.

        Args:
            work: Folder that the corpus step wrote.
            rows: Windows in a batch.
            length: Tokens the model reads in a window; a window holds one more, the last one's answer.
            seed: Another seed draws other windows.
        """
        self._docstrings, self._stories = (
            np.load(part(work, kind, "train", ".npy"), mmap_mode="r") for kind in ("docstrings", "stories")
        )
        self._rows, self._length, self._seed = rows, length, seed

    def __call__(self, step: int) -> torch.Tensor:
        """Draws the batch of a step: the same for the same step, so that resuming needs no saved state.

        Returns:
            Token ids, int64 [rows, length + 1], in random order.
        """
        dice = np.random.default_rng([self._seed, step])
        story_rows = dice.binomial(self._rows, STORY_SHARE)
        told = self._draw(self._stories, story_rows, dice)
        documented = self._draw(self._docstrings, self._rows - story_rows, dice)
        return torch.from_numpy(dice.permutation(np.concatenate([told, documented])).astype(np.int64))

    def _draw(self, ids: NDArray[np.uint16], rows: int, dice: np.random.Generator) -> NDArray[np.uint16]:
        starts = dice.integers(0, len(ids) - self._length, size=rows)
        drawn: NDArray[np.uint16] = ids[starts[:, None] + np.arange(self._length + 1)]  # [rows, length + 1]
        return drawn


def windows(work: Path, kind: str, length: int) -> torch.Tensor:
    """Cuts the held-out text of a kind into windows that overlap by one token: each token is predicted once.

    Returns:
        Token ids, int64 [windows, length + 1]; a remainder shorter than a window is left out.
    """
    ids = np.load(part(work, kind, "heldout", ".npy")).astype(np.int64)
    return torch.from_numpy(ids).unfold(0, length + 1, length)


def bytes_per_token(work: Path) -> torch.Tensor:
    """Counts the UTF-8 bytes of each token, float64 [vocabulary]; the end of a text has none."""
    vocabulary = json.loads((work / "tokenizer.json").read_text())["model"]["vocab"]
    sizes = torch.zeros(len(vocabulary) + (END_OF_TEXT not in vocabulary), dtype=torch.float64)
    for token, index in vocabulary.items():  # byte-level: one character of a token stands for one byte
        sizes[index] = 0 if token == END_OF_TEXT else len(token)
    return sizes
