"""The tokens that end a text: those at which transformers stops."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from transformers import GPT2LMHeadModel

from onnxlens.runtime._bundle.generation_config import end_tokens
from onnxlens.runtime.errors import BundleError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small") / "source", n_layer=1, n_head=1, n_embd=4)


@pytest.mark.parametrize("config", [{}, {"eos_token_id": 5}, {"eos_token_id": [5, 6]}, {"eos_token_id": None}])
@pytest.mark.parametrize(
    "generation",
    [None, {}, {"eos_token_id": None}, {"eos_token_id": 7}, {"eos_token_id": [7, 8]}, {"eos_token_id": []}],
)
def test_transformers_stops_at_the_same_tokens(
    small: Path, tmp_path: Path, config: dict[str, Any], generation: dict[str, Any] | None
) -> None:
    source = shutil.copytree(small, tmp_path / "source")
    entries = {k: v for k, v in json.loads((small / "config.json").read_text()).items() if "token_id" not in k} | config
    (source / "config.json").write_text(json.dumps(entries))
    if generation is not None:
        (source / "generation_config.json").write_text(json.dumps(generation))
    theirs = GPT2LMHeadModel.from_pretrained(source).generation_config.eos_token_id
    listed = theirs if isinstance(theirs, list) else [] if theirs is None else [theirs]
    assert list(end_tokens(generation, entries.get("eos_token_id", 50256), 300, origin="here")) == listed


@pytest.mark.parametrize("outside", [300, 50256, -1, [300, -1]])
def test_what_is_no_token_of_the_model_ends_nothing(outside: object) -> None:
    assert end_tokens({"eos_token_id": outside}, 5, 300, origin="here") == ()
    assert end_tokens(None, outside, 300, origin="here") == ()


@pytest.mark.parametrize("value", ["x", 1.5, True, [1, "x"], {"a": 1}])
def test_an_end_that_is_no_id(value: object) -> None:
    with pytest.raises(BundleError, match=r"^here: 'eos_token_id' must be a token id, a list of them or null, not "):
        end_tokens({"eos_token_id": value}, 5, 300, origin="here")
