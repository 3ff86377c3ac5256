"""One file with the page and recorded answers: it opens offline, from a disk or a mail, and asks nobody."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from onnxlens.plugins.explorer._engine import Engine
from onnxlens.plugins.explorer._page import assets, document, json_script, packed
from onnxlens.plugins.explorer._requests import (
    BOARD,
    Answer,
    ContinueRequest,
    ModelRequest,
    RunRequest,
    SweepKind,
    SweepRequest,
    TokenizeRequest,
)

__all__ = ["page", "record"]

_LARGEST = 48 * 2**20  # bytes of all arrays, before compression
_SMALL_WEIGHT = 2**14  # bytes: weights up to here are recorded, which are normalisations and biases
_MORE = ["ranks", "norms"]
_SWEEPS: tuple[SweepKind, ...] = ("head_scores", "ablate_heads", "ablate_mlps")
_CONTINUED = 5  # tokens of the greedy continuation
_STRONGEST = 8  # neurons of each MLP whose promoted tokens are recorded
# What the view of a sampler chain asks first: its chain, its seed, and how many candidates.
_CHAINS = (("multinomial", 0, 10), ("greedy", 0, 10))

Progress = Callable[[str], None]


def record(engine: Engine, text: str, progress: Progress = lambda text: None) -> tuple[dict[str, Any], bytes]:
    """Runs what the page asks of a text, and keeps the answers, in float32.

    Recorded are, as far as they fit: the sweeps; all activations, from which the page cuts the parts that it reads; the
    board at each position, without each head and each MLP, and of a greedy continuation; small weights; what heads,
    MLPs and the strongest neurons promote.

    Args:
        engine: answers.
        text: the text.
        progress: called with what is being recorded.

    Returns:
        Plain values, and the arrays as safetensors. `left_out` in the values names what did not fit.

    Raises:
        OnnxLensError: the text cannot be run.
    """
    model = engine.model(ModelRequest())
    tokenization = engine.tokenize(TokenizeRequest(text=text))
    gradient = ["gradient"] if model["has_gradients"] else []
    recording = _Recording()
    first = engine.run(RunRequest(text=text, reads=[*BOARD, *_MORE, "surprisal", "neurons", *gradient]))
    recording.add("board", _key(), first)
    ids = [token["id"] for token in first.facts["tokens"]]
    for name, key, size, attempt in _attempts(engine, model, ids, first):
        progress(name)
        if recording.has_room(name, size):
            recording.add(name, key, attempt())
    continued = _continued(engine, ids, model["cfg"]["n_ctx"])
    for count in range(1, len(continued["tokens"]) + 1):
        progress(f"continuation {count}")
        longer = [*ids, *(token["id"] for token in continued["tokens"][:count])]
        if len(longer) <= model["cfg"]["n_ctx"]:
            recording.add(
                f"continuation {count}", _key(longer), engine.run(RunRequest(ids=longer, reads=[*BOARD, *_MORE]))
            )
    facts = {
        "text": text,
        "name": model["name"],
        "model": {**model, "examples": [text]},
        "tokenization": tokenization,
        "answers": recording.facts,
        "continuation": continued,
        "left_out": recording.left_out,
    }
    return facts, save(recording.arrays)


def _attempts(
    engine: Engine, model: dict[str, Any], ids: list[int], first: Answer
) -> Iterator[tuple[str, str, int, Callable[[], Answer]]]:
    """What to record, the most useful first: its name, its key, its size in bytes (0: not known), and how."""
    pair = {"token": first.facts["token"], "against": first.facts["against"]}
    layers, heads = first.arrays["effects.heads"].shape
    last = len(ids) - 1
    board = sum(array.nbytes for name, array in first.arrays.items() if name.partition(".")[0] in {*BOARD, *_MORE})

    def run(**entries: Any) -> Callable[[], Answer]:
        return lambda: engine.run(RunRequest(ids=ids, **entries))

    def sweep(kind: SweepKind) -> Callable[[], Answer]:
        return lambda: engine.sweep(SweepRequest(ids=ids, kind=kind, **pair))

    for kind in _SWEEPS:
        yield kind, f"sweep|{kind}", 0, sweep(kind)
    for sampler, seed, top in _CHAINS:
        yield (
            f"chain {sampler}",
            f"chain|{sampler}|{seed}|{top}",
            0,
            run(reads=["chain"], sampler=sampler, seed=seed, top=top),
        )
    strongest = np.argsort(-np.abs(first.arrays["neurons"]), axis=1, kind="stable")[:, :_STRONGEST].tolist()
    directions = [f"blocks.{layer}.attn.hook_result[{last},{head}]" for layer in range(layers) for head in range(heads)]
    directions += [f"blocks.{layer}.hook_mlp_out[{last}]" for layer in range(layers)]
    directions += [f"blocks.{layer}.mlp.W_out[{neuron}]" for layer in range(layers) for neuron in strongest[layer]]
    yield "promoted tokens", "promoted", 0, run(reads=["unembedded"], directions=directions, **pair)
    for point in model["hook_points"]:
        size = 4 * math.prod(len(ids) if axis["size"] is None else axis["size"] for axis in point["axes"])
        yield point["name"], f"tensor|{point['name']}", size, run(reads=[point["name"]])
    for weight in model["weights"]:
        if 4 * math.prod(weight["shape"]) <= _SMALL_WEIGHT:
            yield (
                weight["name"],
                f"tensor|{weight['name']}",
                4 * math.prod(weight["shape"]),
                run(reads=[weight["name"]]),
            )
    for position in range(last):
        reads = [*BOARD, *_MORE, "neurons"]
        yield f"position {position}", _key(position=position), board, run(position=position, reads=reads)
    edits = []
    for place in np.argsort(-np.abs(first.arrays["effects.heads"]), axis=None, kind="stable").tolist():
        layer, head = divmod(place, heads)
        edit = {"hook": f"blocks.{layer}.attn.hook_z", "heads": head, "operation": "zero"}
        edits.append((f"head {layer}.{head} off", edit))
    for layer in range(layers):
        edits.append((f"MLP {layer} off", {"hook": f"blocks.{layer}.hook_mlp_out", "operation": "zero"}))
    for name, edit in edits:
        yield name, _key(edits=[edit]), board, run(edits=[edit], reads=[*BOARD, *_MORE, "edits"], **pair)


def _continued(engine: Engine, ids: list[int], limit: int) -> dict[str, Any]:
    """The greedy continuation: its tokens, and whether the model ended there."""
    most = min(_CONTINUED, limit - len(ids))
    if most <= 0:
        return {"tokens": [], "is_ended": False}
    # A greedy choice draws nothing, so the seed changes nothing; without one, each recording would name another.
    request = ContinueRequest(ids=ids, sampler="greedy", seed=0, max_new_tokens=most)
    wanted = ("id", "text", "label", "logprob", "seed")
    tokens = [{name: token[name] for name in wanted} for token in engine.continuation(request)]
    return {"tokens": tokens, "is_ended": len(tokens) < most}


class _Recording:
    """Answers by their keys, up to a size: what does not fit is left out, and the page says how to see it."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.left_out: list[str] = []
        self._bytes = 0

    def has_room(self, name: str, size: int) -> bool:
        """Says whether so many bytes fit; if not, remembers that this is left out."""
        fits = self._bytes + size <= _LARGEST
        if not fits:
            self.left_out.append(name)
        return fits

    def add(self, name: str, key: str, answer: Answer) -> None:
        size = sum(array.nbytes for array in answer.arrays.values())
        if not self.has_room(name, size):
            return
        self._bytes += size
        is_tensor = key.startswith("tensor|")  # found by its name alone, and with the facts of the board
        if not is_tensor:
            self.facts[key] = answer.facts
        for entry, array in answer.arrays.items():
            self.arrays[key if is_tensor else f"{key}|{entry}"] = array


def _key(ids: list[int] | None = None, *, edits: list[dict[str, Any]] | None = None, position: int = -1) -> str:
    """The key of a run: of the text where there are no ids; `recorded.ts` makes the same."""
    written = json.dumps(edits, separators=(",", ":"), sort_keys=True) if edits else ""
    return f"run|{'.'.join(map(str, ids or []))}|{written}|{position}"


def page(built: Path, facts: dict[str, Any], arrays: bytes) -> str:
    """Puts a recording and the built page into one HTML text.

    Args:
        built: the folder of the page that `make explore` built.
        facts: what `record` returned.
        arrays: likewise.

    Raises:
        OutputError: the built page is of another form.
    """
    inside = f'<script type="text/plain" id="recorded-arrays">{packed(arrays)}</script>'
    return document(assets(built), [json_script("recording", facts), inside])
