"""The engine behind the page: it describes models, tokenizes, runs, sweeps, continues and draws.

It answers in plain values and arrays. The page knows this interface only; `web/src/engine/types.ts` has the same in
TypeScript.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from onnxlens.plugins._options import json_schema
from onnxlens.plugins.explorer._addresses import Address
from onnxlens.plugins.explorer._edits import interventions
from onnxlens.plugins.explorer._guesses import Guesses
from onnxlens.plugins.explorer._models import Models
from onnxlens.plugins.explorer._reads import READS, Run, needed
from onnxlens.plugins.explorer._requests import (
    BOARD,
    Answer,
    ContinueRequest,
    ModelRequest,
    RunRequest,
    SweepRequest,
    TextRequest,
    TokenizeRequest,
    ViewRequest,
)
from onnxlens.plugins.explorer._sweeps import swept
from onnxlens.runtime import Intervention
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._running.logits import top_ids
from onnxlens.runtime.errors import HookPointError, InputError, suggestion

if TYPE_CHECKING:
    from onnxlens._lens import GenerateKeywords, Lens

__all__ = ["EXAMPLES", "Engine"]

# Texts to begin with. Each shows something: who is meant, induction, agreement, counting, prose, facts, code, brackets,
# and letters of several tokens.
EXAMPLES = (
    "When Mary and John went to the shop, John gave a drink to",
    "Anna met Peter in the garden. Later Anna met",
    "The keys to the old cabinet",
    "one two three four five six seven one two three four",
    "Data visualization empowers users to",
    "The capital of France is",
    "def add(first, second):\n    return first +",
    "She said (to nobody in particular",
    "北京是中国的首都，东京是日本的",  # noqa: RUF001 the comma is Chinese
    "I love 🍕 and 🍣, but most of all I love 🍕 and",
)
_MOST_TOP = 100
_MOST_KEPT = 64  # answers
_LARGEST_KEPT = 2**20  # bytes of one that is kept
_LARGEST_ANSWER = 2**28  # bytes
_SHORT = 64  # tokens: up to here, one pass that reads everything at all positions is the fastest


class Engine:
    """Answers the page from open models.

    Args:
        lens: the model to begin with.
        known: the names of other models that can be opened.
        opener: opens one of these.
    """

    # Values that are computed from activations; see `_reads`.
    DERIVED = tuple(READS)

    def __init__(self, lens: Lens, known: Sequence[str] = (), opener: Callable[[str], Lens] | None = None) -> None:
        self._models = Models(lens, known, opener)
        self._kept: OrderedDict[bytes, Answer] = OrderedDict()
        self._guesses: dict[int, Guesses] = {}
        self._described: dict[int, dict[str, Any]] = {}

    def prepare(self, text: str | None = None) -> None:
        """Computes the first board in advance: that of a text, or of the example with which the page begins.

        Raises:
            OnnxLensError: the text cannot be run.
        """
        self.run(RunRequest(text=EXAMPLES[0] if text is None else text, reads=BOARD))
        self.model(ModelRequest())

    def close(self) -> None:
        """Closes the models that it opened."""
        self._models.close()

    def models(self) -> list[dict[str, Any]]:
        """Returns the names of the models, the one to begin with first, and whether each is open."""
        return [{"name": name, "isOpen": self._models.is_open(name)} for name in self._models.names]

    def model(self, request: ModelRequest) -> dict[str, Any]:
        """Describes a model, which is opened if need be.

        Raises:
            OnnxLensError: it cannot be opened.
        """
        lens = self._models.get(request.model)
        if id(lens) not in self._described:
            self._described[id(lens)] = self._describe(lens)
        return self._described[id(lens)]

    def _describe(self, lens: Lens) -> dict[str, Any]:
        description = lens.runner.bundle.description
        sizes = _sizes(lens)
        points = [
            {
                "name": point.name,
                "axes": [{"name": axis, "size": sizes.get(axis)} for axis in point.axes if axis != "batch"],
                "meaning": point.meaning,
            }
            for point in lens.hook_points
        ]
        entries = description.to_dict()
        return {
            "name": lens.bundle.name,
            "provider": lens.provider,
            "examples": list(EXAMPLES),
            "cfg": lens.config.to_dict(),
            "hook_points": points,
            "weights": [{"name": name, "shape": list(lens.weights[name].shape)} for name in lens.weights],
            "normalizations": entries["normalizations"],
            "residual_stream": entries["residual_stream"],
            "has_gradients": lens.runner.bundle.has_gradients,
            "samplers": _plugins(lens, "sampler"),
            "visualizers": _plugins(lens, "visualizer"),
        }

    def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Returns the tokens of a text, each with its id, its text for a reader, and its bytes in hexadecimal.

        Also the words that the tokenizer cut the text into, each with the merges that made its tokens.

        Raises:
            InputError: the text cannot be encoded.
        """
        lens = self._models.get(request.model)
        ids = self._ids(lens, request)
        text = request.text if request.text is not None else lens.tokenizer.decode(ids)
        return {"tokens": _tokens(lens, ids), "words": _words(lens, text, ids), "limit": lens.config.n_ctx}

    def run(self, request: RunRequest) -> Answer:
        """Runs a text and returns what it reads.

        Raises:
            OnnxLensError: the text, a read or an edit cannot be used.
        """
        key = msgspec.json.encode(request)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        answer = self._answer(request)
        is_drawn = "chain" in request.reads and request.seed is None
        is_small = sum(array.nbytes for array in answer.arrays.values()) <= _LARGEST_KEPT
        if is_small and not is_drawn and "costs" not in request.reads:
            self._kept[key] = answer
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return answer

    def _answer(self, request: RunRequest) -> Answer:
        if not 1 <= request.top <= _MOST_TOP:
            raise InputError(f"top must be from 1 to {_MOST_TOP}, not {request.top}.")
        lens = self._models.get(request.model)
        ids = self._ids(lens, request)
        length = len(ids)
        if not -length <= request.position < length:
            raise InputError(f"position must be from {-length} to {length - 1}, not {request.position}.")
        derived = [name for name in READS if name in request.reads]
        tensors = [Address.parse(name) for name in request.reads if name not in READS]
        activations = self._activations(lens, tensors)
        self._check_size(lens, activations, length)
        with self._edited(lens, request, ids) as edits:
            every, near = needed(lens, derived, request.directions)
            every += [one.name for one in activations]
            position = request.position % length
            is_short = length <= _SHORT
            read = list(dict.fromkeys([*every, *(near if is_short else [])]))
            needs_all = position < length - 1 or any(one.name == "logits" for one in tensors)
            logits, cache = _pass(lens, ids, read, logits="all" if needs_all else "last")
            place, close = position, cache
            if near and not is_short:
                _, close = _pass(lens, ids, list(dict.fromkeys(near)), position, logits="none")
                place = 0
            row = logits[position if needs_all else -1]  # [V]
            token = self._token(lens, request.token, int(row.argmax()))
            against = self._token(lens, request.against, self._rival(lens, row, token))
            flat = _without_rows(cache)
            guesses = self._guesses.setdefault(id(lens), Guesses(lens))
            run = Run(lens, guesses, request, ids, row, flat, close, place, token, against, position, edits)
            for one, text in zip(tensors, (name for name in request.reads if name not in READS), strict=True):
                run.arrays.update(_taken(lens, flat, one, text, logits))
            for name in derived:
                READS[name](run)
        labels = {str(one): _label(lens, one) for one in sorted({token, against, *run.named})}
        facts = {
            "tokens": _tokens(lens, ids),
            "position": position,
            "token": token,
            "against": against,
            "labels": labels,
            **run.facts,
        }
        return Answer(facts, run.arrays)

    def sweep(self, request: SweepRequest) -> Answer:
        """Returns a metric's change for each part of the model; see `SweepRequest` in `types.ts`.

        Raises:
            OnnxLensError: the text, a token or an edit cannot be used.
        """
        key = msgspec.json.encode(request)
        if key not in self._kept:
            lens = self._models.get(request.model)
            ids = self._ids(lens, request)
            with self._edited(lens, request, ids):
                self._kept[key] = swept(lens, ids, request)
        self._kept.move_to_end(key)
        return self._kept[key]

    def continuation(self, request: ContinueRequest) -> Iterator[dict[str, Any]]:
        """Yields each generated token, with its id, text, log-probability in nats, and why it was chosen.

        It ends where the model has no position left.

        Raises:
            OnnxLensError: the text or an option cannot be used.
        """
        lens = self._models.get(request.model)
        ids = self._ids(lens, request)
        room = lens.config.n_ctx - len(ids)
        if room == 0:
            raise InputError(f"The text has {len(ids)} tokens, as many as the model reads: shorten it to go on.")
        options: GenerateKeywords = {
            "max_new_tokens": min(request.max_new_tokens, room),
            "top_k": request.top_k,
            "top_p": request.top_p,
            "seed": request.seed,
            "interventions": interventions(lens, request.edits, ids),
            "explain": True,
        }
        if request.sampler is None:
            options["temperature"] = request.temperature
        else:
            options["sampler"] = request.sampler
        generation = lens.generate(np.array(ids), **options)
        for token in generation:
            yield {**token.to_dict(), "label": _label(lens, token.id), "seed": generation.seed}

    def view(self, request: ViewRequest) -> str:
        """Returns the page of a visualizer.

        Raises:
            OnnxLensError: the text, the visualizer or an option cannot be used.
        """
        lens = self._models.get(request.model)
        ids = self._ids(lens, request)
        with self._edited(lens, request, ids):
            return lens.view(request.visualizer, np.array(ids), **request.options).html()

    def _activations(self, lens: Lens, tensors: Sequence[Address]) -> list[Address]:
        """The addresses that are hook points; the others are weights.

        Raises:
            HookPointError: one is neither.
        """
        names = [point.name for point in lens.hook_points]
        found = []
        for one in tensors:
            if any(fnmatchcase(name, one.name) for name in names):
                found.append(one)
            elif one.name not in lens.weights and one.name != "logits":
                near = suggestion(one.name, [*names, *lens.weights])
                raise HookPointError(f"Unknown hook point or weight {one.name!r:.200}.{near}")
        return found

    def _check_size(self, lens: Lens, tensors: Sequence[Address], length: int) -> None:
        """Checks that activations fit into an answer.

        Raises:
            InputError: they do not.
        """
        total = 0
        for point in lens.hook_points:
            if any(fnmatchcase(point.name, one.name) for one in tensors):
                total += 4 * int(np.prod(point.shape(lens.config, 1, length)))
        if total > _LARGEST_ANSWER:
            raise InputError(
                f"These reads take {total:,} bytes of activations, and a request may take {_LARGEST_ANSWER:,}; read "
                "fewer hook points, or a shorter text."
            )

    def _rival(self, lens: Lens, logits: np.ndarray, token: int) -> int:
        """The most probable token but the answer that differs from it in more than spaces and case."""
        word = _label(lens, token).strip().lower()
        others = [one for one in top_ids(logits, min(_MOST_TOP, len(logits))).tolist() if one != token]
        return next(
            (one for one in others if _label(lens, one).strip().lower() != word), others[0] if others else token
        )

    def _token(self, lens: Lens, given: int | None, default: int) -> int:
        if given is None:
            return default
        if not 0 <= given < lens.config.d_vocab:
            raise InputError(f"Token id {given} is out of range: this model's ids are 0 to {lens.config.d_vocab - 1}.")
        return given

    def _ids(self, lens: Lens, request: TokenizeRequest) -> list[int]:
        if (request.text is None) == (request.ids is None):
            raise InputError("Give either text or ids.")
        if request.text is not None:
            ids = lens.tokenizer.encode(request.text)
        else:
            ids = [self._token(lens, one, one) for one in request.ids or []]
        lens.runner.check_text(ids)
        return ids

    @contextmanager
    def _edited(self, lens: Lens, request: TextRequest, ids: Sequence[int]) -> Iterator[list[Intervention]]:
        edits = interventions(lens, request.edits, ids)
        if not edits:
            yield edits
            return
        with lens.hooks(interventions=edits):
            yield edits


def _sizes(lens: Lens) -> dict[str, int]:
    from onnxlens.runtime._bundle.hooks import sizes

    return sizes(lens.config)


def _pass(
    lens: Lens, ids: list[int], names: list[str], position: int | None = None, *, logits: Literal["all", "last", "none"]
) -> tuple[np.ndarray, ActivationCache]:
    """Runs a text: logits [P, V], [1, V] or [0, V], and activations, at one position where it is given."""
    text = np.array([ids])
    output = lens.run(text, names_filter=names or None, pos_slice=position, logits=logits, keep_cache=False)
    positions = None if position is None else [position]
    facts = lens.runner.bundle.facts
    cache = ActivationCache(output.activations, text, facts=facts, positions=positions, applied=output.applied)
    return output.logits[0], cache


def _taken(lens: Lens, cache: Any, address: Address, text: str, logits: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of an address, by the names under which the answer has them."""
    if address.name == "logits":
        return {text: _float32(address.take(logits))}
    if address.name in lens.weights:
        return {text: _float32(address.take(lens.weights[address.name]))}
    names = [name for name in cache if fnmatchcase(name, address.name)]
    if names == [address.name]:
        return {text: _float32(address.take(cache[address.name]))}
    if address.places:
        raise InputError(f"{text} names several hook points; places are for one.")
    return {name: _float32(cache[name]) for name in names}


def _float32(values: np.ndarray) -> np.ndarray:
    """Values in the order and type in which they are sent; a single number has no axes."""
    return np.require(values, np.float32, "C")


def _plugins(lens: Lens, kind: str) -> list[dict[str, Any]]:
    return [
        {"name": entry.name, "summary": entry.summary, "options": json_schema(entry.plugin)}
        for entry in lens.plugins.entries(kind).values()
    ]


def _tokens(lens: Lens, ids: Sequence[int]) -> list[dict[str, Any]]:
    tokenizer = lens.tokenizer
    return [{"id": one, "label": _label(lens, one), "bytes": tokenizer.token_bytes(one).hex()} for one in ids]


def _words(lens: Lens, text: str, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The words of a text, each with its tokens and merges; none where the ids are not the tokens of the text."""
    if not text or lens.tokenizer.encode(text) != list(ids):  # an empty text starts from a token that is not in it
        return []
    try:
        words = lens.tokenizer.words(text)
    except InputError:  # not a byte-level byte-pair encoding
        return []
    return [
        {
            "text": b"".join(lens.tokenizer.token_bytes(ids[place]) for place in places).decode("utf-8", "replace"),
            "tokens": list(places),
            "merges": [{"rank": one.rank, "pair": _hex(one.pair), "pieces": _hex(one.pieces)} for one in merges],
        }
        for places, merges in words
    ]


def _hex(pieces: Sequence[bytes]) -> list[str]:
    return [piece.hex() for piece in pieces]


def _label(lens: Lens, token: int) -> str:
    (piece,) = lens.tokenizer.pieces([token])
    return piece


def _without_rows(cache: Any) -> Any:
    """The activations without their batch axis; the cache itself stays as it is."""
    import copy

    return copy.copy(cache).remove_batch_dim()
