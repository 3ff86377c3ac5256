"""Makes the pictures of docs/visualizers.md with the model that ships: `python docs/pictures.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxlens

IMAGES = Path(__file__).resolve().parent / "images"
STORY = "The cat sat on the mat, and the dog sat on the rug. Then the cat sat on the rug, too."

PICTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tokens.png": ("tokens", STORY, {}),
    "attention.png": ("attention", STORY, {"layer": 1, "head": 3}),
    "attention-heads.png": ("attention", STORY, {"layer": 3}),
}


def main() -> None:
    """Writes them."""
    lens = onnxlens.load(provider="cpu", threads=1)
    for name, (visualizer, text, options) in PICTURES.items():
        print(lens.view(visualizer, text, **options).save(IMAGES / name))


if __name__ == "__main__":
    main()
