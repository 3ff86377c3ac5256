"""The engine behind the page: it tokenizes, runs, sweeps and continues, and answers in plain values and arrays.

The page knows this interface only; `web/src/engine/types.ts` has the same in TypeScript.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from onnxlens.analysis import ablate_heads, attribute_logit, attribute_sources, logit_lens
from onnxlens.metrics import AnyMetric, log_probability, logit_difference
from onnxlens.runtime import Intervention
from onnxlens.runtime._running.logits import top_ids
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import GenerateKeywords, Lens

__all__ = ["Answer", "ContinueRequest", "Engine", "RunRequest", "SweepRequest", "decoded"]

EXAMPLE = "When Mary and John went to the shop, John gave a drink to"  # as in web/src/App.svelte
_MOST_TOP = 100
_MOST_KEPT = 32  # answers to boards, which are small: going back and switching off again need no run


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The parts that requests share.

    Attributes:
        text: the text; or `ids` in its place.
        ids: its token ids.
        edits: interventions, as `Intervention.from_dict` reads them.
    """

    text: str | None = None
    ids: list[int] | None = None
    edits: list[dict[str, Any]] = []


class RunRequest(_Request):
    """A run of a text.

    Attributes:
        reads: hook points, and the names in `Engine.DERIVED`.
        position: the position that predicts; negative ones count from the end.
        token: the answer, a token id; None for the most probable one.
        against: a token id whose logit is subtracted; None for the most probable token that is another word.
        top: how many candidates to name at each place.
    """

    reads: list[str] = []
    position: int = -1
    token: int | None = None
    against: int | None = None
    top: int = 5


class SweepRequest(_Request):
    """Each head switched off in turn; `token` and `against` as in `RunRequest`."""

    token: int | None = None
    against: int | None = None


class ContinueRequest(_Request):
    """A continuation of a text; the options are those of `Lens.generate`."""

    max_new_tokens: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    sampler: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a run returns.

    Attributes:
        facts: plain values: the tokens, the answer, the labels of all token ids in the arrays.
        arrays: numbers by name.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Engine:
    """Answers the page from an open model.

    Args:
        lens: the model.

    Attributes:
        lens: the same.
    """

    # Values that are computed from activations: see `_next`, `_guesses`, `_effects` and `_sources`.
    DERIVED = ("next", "guesses", "effects", "sources")

    def __init__(self, lens: Lens) -> None:
        self.lens = lens
        self._kept: OrderedDict[bytes, Answer] = OrderedDict()
        self._derived: dict[str, Callable[[_Run], None]] = {
            "next": self._next,
            "guesses": self._guesses,
            "effects": self._effects,
            "sources": self._sources,
        }

    def prepare(self, text: str | None = None) -> None:
        """Computes the first board in advance: that of a text, or of the example with which the page begins.

        Raises:
            OnnxLensError: the text cannot be run.
        """
        self.run(RunRequest(text=EXAMPLE if text is None else text, reads=[*self.DERIVED], edits=[]))

    def models(self) -> dict[str, Any]:
        """Returns the open model: its name, shape and hook points."""
        lens = self.lens
        points = [
            {"name": point.name, "axes": list(point.axes), "meaning": point.meaning} for point in lens.hook_points
        ]
        model = {"name": lens.bundle.name, "cfg": lens.config.to_dict(), "hook_points": points}
        return {"models": [{**model, "provider": lens.provider}]}

    def tokenize(self, text: str) -> dict[str, Any]:
        """Returns the tokens of a text, each with its id, its text for a reader, and its bytes in hexadecimal.

        Raises:
            InputError: the text cannot be encoded.
        """
        ids = self.lens.tokenizer.encode(text)
        return {"tokens": self._tokens(ids), "limit": self.lens.config.n_ctx}

    def run(self, request: RunRequest) -> Answer:
        """Runs a text and returns what it reads.

        Raises:
            OnnxLensError: the text, a read or an edit cannot be used.
        """
        key = msgspec.json.encode(request)
        if key in self._kept:
            return self._kept[key]
        answer = self._answer(request)
        if all(name in self.DERIVED for name in request.reads):  # activations may be large
            self._kept[key] = answer
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return answer

    def _answer(self, request: RunRequest) -> Answer:
        if not 1 <= request.top <= _MOST_TOP:
            raise InputError(f"top must be from 1 to {_MOST_TOP}, not {request.top}.")
        ids = self._ids(request)
        length = len(ids)
        if not -length <= request.position < length:
            raise InputError(f"position must be from {-length} to {length - 1}, not {request.position}.")
        with self._changed(request):
            logits, cache = self.lens.run_with_cache(
                np.array(ids),
                names_filter=[name for name in request.reads if name not in self.DERIVED] or None,
                remove_batch_dim=True,
            )
            row = logits[0, request.position].astype(np.float64)  # [V]
            token = int(row.argmax()) if request.token is None else request.token
            against = self._rival(row, token) if request.against is None else request.against
            run = _Run(ids, row, token, against, request.position % length, request.top)
            run.arrays.update(cache.items())
            for name in self.DERIVED:
                if name in request.reads:
                    self._derived[name](run)
        labels = {str(one): self._label(one) for one in sorted({token, against, *run.named})}
        facts = {
            "tokens": self._tokens(ids),
            "position": run.position,
            "token": token,
            "against": against,
            "labels": labels,
            **run.facts,
        }
        return Answer(facts, run.arrays)

    def sweep(self, request: SweepRequest) -> Answer:
        """Returns the effect of switching off each head on the answer: the metric with all heads minus that without.

        Raises:
            OnnxLensError: the text, a token or an edit cannot be used.
        """
        ids = self._ids(request)
        with self._changed(request):
            if request.token is None:
                request.token = int(self.lens.predict(np.array(ids)).logits.argmax())
            metric: AnyMetric
            if request.against is None:
                metric = log_probability(request.token)
            else:
                metric = logit_difference(request.token, request.against)
            found = ablate_heads(self.lens, np.array([ids]), metric)
        return Answer({"baseline": found.baseline, "token": request.token}, {"effects": -found.effects})

    def continuation(self, request: ContinueRequest) -> Iterator[dict[str, Any]]:
        """Yields each generated token, with its id, text, log-probability in nats, and why it was chosen.

        Raises:
            OnnxLensError: the text or an option cannot be used.
        """
        options: GenerateKeywords = {
            "max_new_tokens": request.max_new_tokens,
            "top_k": request.top_k,
            "top_p": request.top_p,
            "seed": request.seed,
            "interventions": self._edits(request),
            "explain": True,
        }
        if request.sampler is None:
            options["temperature"] = request.temperature
        else:
            options["sampler"] = request.sampler
        generation = self.lens.generate(np.array(self._ids(request)), **options)
        for token in generation:
            yield {**token.to_dict(), "label": self._label(token.id), "seed": generation.seed}

    def _next(self, run: _Run) -> None:
        """Logits of the next token over the full vocabulary, [V] float32, and the ids of the largest, [top]."""
        best = top_ids(run.logits, run.top)
        run.arrays["next.logits"] = run.logits.astype(np.float32)
        run.arrays["next.ids"] = best.astype(np.int32)
        run.named.update(best.tolist())

    def _guesses(self, run: _Run) -> None:
        """The logit lens: ids and probabilities [states, P, top], and the rank of the answer [states, P]."""
        found = logit_lens(self.lens, np.array([run.ids]), top=run.top, watch=[run.token])
        run.arrays["guesses.ids"] = found.ids.astype(np.int32)
        run.arrays["guesses.probabilities"] = found.probabilities.astype(np.float32)
        run.arrays["guesses.rank"] = found.watched_rank[..., 0].astype(np.int32)
        run.facts["states"] = list(found.labels)
        run.named.update(np.unique(found.ids).tolist())

    def _effects(self, run: _Run) -> None:
        """Direct logit attribution: heads [L, H], MLPs [L], and the other parts, which add up to the difference."""
        found = attribute_logit(self.lens, np.array([run.ids]), run.token, run.against, position=run.position)
        run.arrays["effects.heads"] = found.heads.astype(np.float32)
        run.arrays["effects.mlps"] = found.mlps.astype(np.float32)
        rest = {"embed": found.embed, "pos_embed": found.pos_embed, "biases": found.biases, "change": found.change}
        run.facts["effects"] = {**rest, "logit": found.logit}

    def _sources(self, run: _Run) -> None:
        """The direct effect of each head through each token, [L, H, P]."""
        found = attribute_sources(self.lens, np.array([run.ids]), run.token, run.against, position=run.position)
        run.arrays["sources"] = found.values.astype(np.float32)

    def _rival(self, logits: np.ndarray, token: int) -> int:
        """The most probable token but the answer that differs from it in more than spaces and case."""
        word = self._label(token).strip().lower()
        others = [one for one in top_ids(logits, _MOST_TOP).tolist() if one != token]
        return next((one for one in others if self._label(one).strip().lower() != word), others[0] if others else token)

    def _ids(self, request: _Request) -> list[int]:
        if (request.text is None) == (request.ids is None):
            raise InputError("Give either text or ids.")
        if request.text is not None:
            return self.lens.tokenizer.encode(request.text)
        checked: list[int] = self.lens.runner.check_ids(np.array(request.ids, dtype=np.int64))[0].tolist()
        return checked

    def _edits(self, request: _Request) -> list[Intervention]:
        return [Intervention.from_dict(one) for one in request.edits]

    def _changed(self, request: _Request) -> Any:
        edits = self._edits(request)
        return self.lens.hooks(interventions=edits) if edits else nullcontext()

    def _tokens(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        tokenizer = self.lens.tokenizer
        return [{"id": one, "label": self._label(one), "bytes": tokenizer.token_bytes(one).hex()} for one in ids]

    def _label(self, token: int) -> str:
        (piece,) = self.lens.tokenizer.pieces([token])
        return piece


@dataclass
class _Run:
    """A run whose derived values are being computed.

    Attributes:
        ids: the text's token ids.
        logits: those after the position, [V] float64.
        token: the answer's id.
        against: the id of the token whose logit is subtracted.
        position: the position that predicts.
        top: how many candidates to name.
        facts: plain values found.
        arrays: arrays found.
        named: ids of tokens that the arrays name.
    """

    ids: list[int]
    logits: np.ndarray
    token: int
    against: int
    position: int
    top: int
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)


def decoded(kind: type[msgspec.Struct], content: bytes) -> Any:
    """Reads a request from JSON.

    Raises:
        InputError: it is not JSON, or has an unknown entry or a wrong type.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise InputError(f"The request cannot be used: {str(error).rstrip('.')}.") from error
