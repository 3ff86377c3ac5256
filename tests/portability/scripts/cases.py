"""What the Python scripts share: the bundles, what is expected of them, and how a script says what it found.

A script gets the folder of the bundles as its argument. For each check of each bundle it prints one line of JSON:
`bundle`, `check`, and `failed`, a text or null. It runs where onnxlens is not installed, so it needs only NumPy.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Case", "cases", "checking", "close", "decode", "gradient_feed", "run_cached", "text_feed"]

# As tests/yardstick.py: the share of the largest number by which float32 rounding may move any.
SINGLE = 300 * float(np.spacing(np.float32(1)))
_TYPES = {"F32": np.float32, "I64": np.int64}

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A bundle and what is expected of it; see `portability.bundles`."""

    name: str
    bundle: Path
    values: dict[str, np.ndarray]
    prompts: list[str]
    ids: list[list[int]]
    greedy: list[list[int]]

    @property
    def has_gradients(self) -> bool:
        """Whether there is a graph of the gradients."""
        return "grad.logits" in self.values

    @property
    def new(self) -> int:
        """How many tokens follow each prompt."""
        return len(self.greedy[0])

    @property
    def empty_cache(self) -> dict[str, np.ndarray]:
        """Keys and values of no positions, for the texts of the batch."""
        shape = json.loads((self.bundle / "genai_config.json").read_text())["model"]["decoder"]
        empty = np.zeros((1, shape["num_key_value_heads"], 0, shape["head_size"]), np.float32)
        names = ("key", "value")
        return {f"past_key_values.{n}.{part}": empty for n in range(shape["num_hidden_layers"]) for part in names}


def cases() -> Iterator[Case]:
    """The bundles in the folder that the script was given."""
    for path in sorted(Path(sys.argv[1]).glob("*/expected.json")):
        values = _arrays(path.with_suffix(".safetensors"))
        yield Case(path.parent.name, path.parent / "bundle", values, **json.loads(path.read_text()))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file: the length of the header, the header in JSON, and the numbers."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8:start]).items():
        begin, end = entry["data_offsets"]
        arrays[name] = np.frombuffer(content[start + begin : start + end], _TYPES[entry["dtype"]]).reshape(
            entry["shape"]
        )
    return arrays


@contextmanager
def checking(case: Case, check: str) -> Iterator[None]:
    """Reports a check of a bundle: as failed if anything is raised, else as passed."""
    failed = None
    try:
        yield
    except Exception as error:
        traceback.print_exc(limit=-3)
        failed = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    print(json.dumps({"bundle": case.name, "check": check, "failed": failed}), flush=True)


def close(found: Any, expected: np.ndarray, name: str) -> None:
    """Asserts that two computations gave the same but for rounding, relative to the largest number."""
    found = np.asarray(found)
    assert found.shape == expected.shape, f"{name} has shape {found.shape}, not {expected.shape}"
    finite = np.isfinite(expected)
    assert (found[~finite] == expected[~finite]).all(), f"{name} is finite where it must not be, or the other way round"
    size = float(np.abs(expected[finite]).max(initial=0))
    error = float(np.abs(found[finite].astype(np.float64) - expected[finite]).max(initial=0))
    assert error <= SINGLE * size, f"{name} differs by {error:.3g} where {SINGLE * size:.3g} is allowed"


def text_feed(case: Case) -> dict[str, np.ndarray]:
    """The inputs of the batch of texts, without a cache."""
    feed = {name: case.values[name] for name in ("input_ids", "attention_mask", "position_ids")}
    rows = len(feed["input_ids"])
    return {**feed, **{name: np.repeat(empty, rows, axis=0) for name, empty in case.empty_cache.items()}}


def gradient_feed(case: Case) -> dict[str, np.ndarray]:
    """The inputs of the graph of the gradients."""
    return {name: case.values[name] for name in ("input_ids", "attention_mask", "position_ids", "grad.logits")}


def run_cached(case: Case, run: Run) -> np.ndarray:
    """The logits of the last two positions of the batch, computed after the others and from their cache."""
    feed = text_feed(case)
    parts = [
        {**feed, **{k: feed[k][:, place] for k in ("input_ids", "position_ids")}}
        for place in (slice(-2), slice(-2, None))
    ]
    parts[0]["attention_mask"] = feed["attention_mask"][:, :-2]
    past = run(parts[0])
    return run(
        parts[1] | {name.replace("present", "past_key_values"): past[name] for name in past if name != "logits"}
    )["logits"]


def decode(case: Case, run: Run) -> list[list[int]]:
    """The greedy tokens after each prompt, all in one batch that is padded on the left."""
    longest = max(map(len, case.ids))
    mask = np.array([[0] * (longest - len(ids)) + [1] * len(ids) for ids in case.ids])  # [B, P]
    feed = {
        "input_ids": np.array([[0] * (longest - len(ids)) + ids for ids in case.ids]),
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
        **{name: np.repeat(empty, len(mask), axis=0) for name, empty in case.empty_cache.items()},
    }
    tokens: list[np.ndarray] = []
    for _ in range(case.new):
        outputs = run(feed)
        tokens.append(outputs["logits"][:, -1].argmax(axis=-1))  # [B]
        mask = np.concatenate((mask, np.ones_like(mask[:, :1])), axis=1)
        feed = {
            "input_ids": tokens[-1][:, np.newaxis],
            "attention_mask": mask,
            "position_ids": mask.sum(axis=1, keepdims=True) - 1,
            **{n.replace("present", "past_key_values"): value for n, value in outputs.items() if n != "logits"},
        }
    return np.stack(tokens, axis=1).tolist()
