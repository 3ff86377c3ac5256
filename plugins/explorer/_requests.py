"""What can be asked of an engine, as types that check JSON; `web/src/engine/types.ts` has the same in TypeScript."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np

from onnxlens.runtime.errors import InputError

__all__ = [
    "BOARD",
    "Answer",
    "ArrayRequest",
    "ContinueRequest",
    "ModelRequest",
    "RunRequest",
    "SweepKind",
    "SweepRequest",
    "TextRequest",
    "TokenizeRequest",
    "ViewRequest",
    "decoded",
]

BOARD = ["next", "guesses", "effects", "sources"]  # what the page reads of each text

SweepKind = Literal[
    "ablate_heads",
    "ablate_mlps",
    "patch_resid_pre",
    "patch_attn_out",
    "patch_mlp_out",
    "patch_heads",
    "head_scores",
]


class ModelRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A model, by the name that `Engine.models` lists; None for the first one."""

    model: str | None = None


class TokenizeRequest(ModelRequest, kw_only=True):
    """A text, or token ids in its place."""

    text: str | None = None
    ids: list[int] | None = None


class TextRequest(TokenizeRequest, kw_only=True):
    """A text to run.

    Attributes:
        text: the text; or `ids` in its place.
        ids: its token ids.
        edits: interventions, as `Intervention.from_dict` reads them, or with `from`; see `_edits`.
    """

    edits: list[dict[str, Any]] = []


class ArrayRequest(TextRequest, kw_only=True):
    """What is answered with arrays.

    Attributes:
        dtype: as which the server sends fractions; all are computed in float32.
    """

    dtype: Literal["float32", "float16"] = "float32"


class RunRequest(ArrayRequest, kw_only=True):
    """A run of a text.

    Attributes:
        reads: addresses of hook points and weights, globs of hook points, and the names in `Engine.DERIVED`.
        position: the position that predicts; negative ones count from the end.
        positions: the positions at which `guesses` are computed; None for all.
        token: the answer, a token id; None for the most probable one.
        against: a token id whose logit is subtracted; None for the most probable token that is another word.
        top: how many candidates to name at each place.
        sampler: the chain that `chain` explains; None for a draw from the model's distribution.
        seed: the seed of its draw; None draws a seed.
        directions: addresses of vectors [d_model] for `unembedded`.
    """

    reads: list[str] = []
    position: int = -1
    positions: list[int] | None = None
    token: int | None = None
    against: int | None = None
    top: int = 5
    sampler: str | None = None
    seed: int | None = None
    directions: list[str] = []


class SweepRequest(ArrayRequest, kw_only=True):
    """A sweep over a model; `token` and `against` as in `RunRequest`.

    Attributes:
        kind: what is measured; see `SweepRequest` in `types.ts`.
        other: the corrupted text of a patching.
        layers: the layers to measure, so that a long sweep can be asked for in parts; None for all.
    """

    kind: SweepKind = "ablate_heads"
    other: str | None = None
    layers: list[int] | None = None
    token: int | None = None
    against: int | None = None


class ContinueRequest(TextRequest, kw_only=True):
    """A continuation of a text; the options are those of `Lens.generate`."""

    max_new_tokens: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    sampler: str | None = None
    seed: int | None = None


class ViewRequest(TextRequest, kw_only=True):
    """A visualizer's page of a text."""

    visualizer: str
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class Answer:
    """What a run or a sweep returns.

    Attributes:
        facts: plain values: the tokens, the answer, the labels of all token ids in the arrays.
        arrays: numbers by name.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def decoded(kind: type[msgspec.Struct], content: bytes) -> Any:
    """Reads a request from JSON.

    Raises:
        InputError: it is not JSON, or has an unknown entry or a wrong type.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"The request cannot be used: {str(error).rstrip('.')}.") from error
