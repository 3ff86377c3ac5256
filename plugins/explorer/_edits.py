"""Edits of a request as interventions: those that state their values, and those whose values come from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from onnxlens.runtime import Intervention
from onnxlens.runtime.errors import InputError

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["interventions"]

_MOST = 256  # edits of a request


class _From(msgspec.Struct, forbid_unknown_fields=True):
    """Where the values of an edit come from: the same hook points in a run of another text.

    Attributes:
        text: the text; or `ids` in its place.
        ids: its token ids.
        minus: a text whose values are subtracted, at the same place.
        position: the position whose value is taken; negative ones count from the end of each text. None takes all of
            them, which needs a text of as many tokens.
    """

    text: str | None = None
    ids: list[int] | None = None
    minus: str | None = None
    position: int | None = None


def interventions(lens: Lens, edits: Sequence[Mapping[str, Any]], ids: Sequence[int]) -> list[Intervention]:
    """Makes the interventions of edits.

    An edit has the entries of `Intervention.from_dict`. In place of `value` it may have `from`; see `_From`. A `mean`
    or a `freeze` without a value takes its values from the text itself, without edits.

    Args:
        lens: the model.
        edits: the edits.
        ids: the token ids of the text that is edited.

    Raises:
        OnnxLensError: an edit cannot be used.
    """
    if len(edits) > _MOST:
        raise InputError(f"A request has at most {_MOST} edits, not {len(edits)}.")
    return [_intervention(lens, edit, ids) for edit in edits]


def _intervention(lens: Lens, edit: Mapping[str, Any], ids: Sequence[int]) -> Intervention:
    if "from" in edit:
        return _of_text(lens, dict(edit))
    if edit.get("operation") in ("mean", "freeze") and "value" not in edit:
        return Intervention.of_run(_read(lens, edit, list(ids)), edit)
    return Intervention.from_dict(edit)


def _of_text(lens: Lens, edit: dict[str, Any]) -> Intervention:
    """An intervention whose value is read in runs of other texts."""
    try:
        source = msgspec.convert(edit.pop("from"), _From)
    except msgspec.ValidationError as error:
        raise InputError(f"'from' of an edit cannot be used: {error}.") from error
    if (source.text is None) == (source.ids is None):
        raise InputError("'from' of an edit needs either text or ids.")
    if "value" in edit:
        raise InputError("An edit has either a value or 'from', not both.")
    first = source.ids or [] if source.text is None else lens.tokenizer.encode(source.text)
    values = _read(lens, edit, first)
    if source.position is None and source.minus is None:
        return Intervention.of_run(values, edit)
    if source.position is None:
        raise InputError("'from' of an edit needs a position where it has minus.")
    taken = {name: _at(lens, name, value, source.position) for name, value in values.items()}
    if source.minus is not None:
        others = _read(lens, edit, lens.tokenizer.encode(source.minus))
        taken = {name: value - _at(lens, name, others[name], source.position) for name, value in taken.items()}
    # The value at one position is placed at others, which `replace` says; `patch` would need as many tokens.
    operation = "replace" if edit.get("operation") == "patch" else edit.get("operation")
    return Intervention.from_dict({**edit, "operation": operation, "value": taken})


def _read(lens: Lens, edit: Mapping[str, Any], ids: Sequence[int]) -> Mapping[str, np.ndarray]:
    """Reads the hook points of an edit in a run without edits."""
    hook = edit.get("hook")
    if not isinstance(hook, str | list):
        raise InputError("An edit needs the name of a hook point under 'hook'.")
    _, cache = lens.run_with_cache(np.array(ids), names_filter=hook)
    return cache


def _at(lens: Lens, name: str, value: np.ndarray, position: int) -> np.ndarray:
    """The value at a position, without the axes of rows and positions."""
    axis = lens.runner.bundle.description.points[name].position_axis
    size = value.shape[axis]
    if not -size <= position < size:
        raise InputError(f"Position {position} of 'from' is outside of its text, which has {size} tokens.")
    taken: np.ndarray = np.take(value, position, axis=axis)[0]
    return taken
