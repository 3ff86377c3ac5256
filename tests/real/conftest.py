"""The real language model that `make real` fetches and exports."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxlens

BUNDLE = Path(__file__).parents[2] / "build" / "real" / "smollm2"


@pytest.fixture(scope="session")
def smollm2() -> onnxlens.Lens:
    """SmolLM2-135M-Instruct, with the weights of its 4-bit GGUF file."""
    if not (BUNDLE / "onnxlens.json").is_file():
        pytest.skip("needs a real language model, which 'make real' fetches and exports")
    return onnxlens.load(BUNDLE, provider="cpu", threads=2)
