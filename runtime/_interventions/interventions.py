"""Interventions: changes of hook points that are stated, not programmed, so that they can be kept and replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from onnxlens.runtime._bundle.shorthand import Key, full_name, is_shorthand
from onnxlens.runtime._escape import cut, quoted
from onnxlens.runtime._numbers import is_integer
from onnxlens.runtime.errors import HookPointError, InputError, suggestion

__all__ = ["Indices", "Intervention", "Operation", "Source", "listed", "slice_text"]

Operation = Literal["zero", "mean", "replace", "patch", "add", "scale", "freeze"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class Source(NamedTuple):
    """The model that values were read from."""

    model: str
    hash: str


Indices = int | slice | Sequence[int] | None
_INDICES = ("positions", "heads", "neurons", "keys", "rows")
_VALUED = ("mean", "replace", "patch", "add", "freeze")
_PATTERNS = "blocks.*.attn.hook_pattern"


@dataclass(frozen=True, eq=False, kw_only=True)
class Intervention:
    """One change, made wherever its hook points are computed. The class methods make every kind of it.

    Scores and patterns that the causal mask or padding hides stay hidden, whatever the change.

    Attributes:
        hook: name or glob of the hook points to change, or several.
        operation: `zero`; `replace` by a value; `mean`, `patch` and `freeze`, which replace by values from other runs;
            `add` a value times a factor; `scale` by a factor.
        positions: positions to change, counted in the row's own text without its padding, from its start also while
            generating; negative ones from the end of the text, or of the prompt. A slice is cut to the text; one
            without an end covers all that is run. None for all.
        heads: heads to change; None for all.
        neurons: neurons of the MLP (`hook_pre`, `hook_post`) to change; None for all.
        keys: for scores and patterns, positions that are looked at, counted likewise; None for all.
        rows: rows of the batch to change; None for all.
        value: a number or array that broadcasts to the hook point's shape, or one for each hook point by its name.
        factor: what `add` multiplies the value by, and `scale` the activation.
        source: the model that the value was read from, which must be the one that is changed; None where it is not
            known.
        attention_mask: the mask of the texts that the value was read from, [rows, positions], 0 where a token is
            padding; None for no padding, or where it is not known.
    """

    hook: str | tuple[str, ...]
    operation: Operation
    positions: Indices = None
    heads: Indices = None
    neurons: Indices = None
    keys: Indices = None
    rows: Indices = None
    value: np.ndarray | Mapping[str, np.ndarray] | None = None
    factor: float = 1.0
    source: Source | None = None
    attention_mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        hook = _globs(self.hook)
        object.__setattr__(self, "hook", hook[0] if len(hook) == 1 else hook)
        if self.operation not in OPERATIONS:
            raise InputError(
                f"Unknown operation {quoted(self.operation)}; an intervention can {', '.join(OPERATIONS)}."
                f"{suggestion(str(self.operation), OPERATIONS, 1)}"
            )
        for name in _INDICES:
            object.__setattr__(self, name, _indices(getattr(self, name), name))
        if (self.operation in _VALUED) != (self.value is not None):
            needs = "needs a value" if self.operation in _VALUED else "takes no value"
            raise InputError(f"The operation {self.operation!r} {needs}.")
        if self.value is not None:
            object.__setattr__(self, "value", self._checked(self.value))
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float | np.number):
            raise InputError(f"An intervention's factor must be a number, not {quoted(self.factor)}.")
        try:
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.float32(self.factor))
        except OverflowError:  # an integer of hundreds of digits
            finite = False
        if not finite:
            raise InputError(f"An intervention's factor must be a finite float32, not {quoted(self.factor)}.")
        if self.source is not None:
            object.__setattr__(self, "source", _checked_source(self.source))
        if self.attention_mask is not None:
            object.__setattr__(self, "attention_mask", _checked_mask(self.attention_mask))
        if self.factor != 1 and self.operation not in ("add", "scale"):
            raise InputError(f"The operation {self.operation!r} takes no factor; 'add' and 'scale' do.")

    @classmethod
    def zero(cls, hook: Key | Sequence[Key], **where: Indices) -> Intervention:
        """Puts 0 in place of an activation; `where` is `positions`, `heads`, `neurons`, `keys` and `rows`."""
        return cls._of("zero", hook, where)

    @classmethod
    def mean(
        cls,
        hook: Key | Sequence[Key],
        reference: Mapping[str, np.ndarray],
        *,
        per_position: bool = False,
        **where: Indices,
    ) -> Intervention:
        """Puts the mean over a reference batch in place of an activation.

        Args:
            hook: what to change.
            reference: what `run_with_cache` read, of the hook points to change at least.
            per_position: whether each position gets its own mean over the rows of the reference, in place of one mean
                over rows and positions. Scores and patterns need it: a mean over queries would look ahead. The texts
                of the reference must then be of one length.
            where: `positions`, `heads`, `neurons`, `keys` and `rows` to change.

        Raises:
            HookPointError: the reference has none of the hook points.
            InputError: the mean over the positions of scores or patterns was asked for, or that at each position over
                texts of different lengths.
        """
        real = getattr(reference, "attention_mask", None)
        values = _matching(hook, reference)
        means = {name: _mean(name, value, real, per_position) for name, value in values.items()}
        mask = None  # what says that there is one for each position
        if per_position and real is not None:
            differs = np.flatnonzero((real != real[0]).any(axis=1))
            if len(differs):
                raise InputError(
                    "The mean at each position needs texts of one length, and in this reference row 0 has "
                    f"{_tokens(real[0])} and row {differs[0]} has {_tokens(real[differs[0]])}."
                )
            mask = real[:1]
        return cls._of("mean", hook, where, value=means, source=_source(reference), attention_mask=mask)

    @classmethod
    def replace(cls, hook: Key | Sequence[Key], value: npt.ArrayLike, **where: Indices) -> Intervention:
        """Puts a value in place of an activation; it must broadcast to the hook point's shape."""
        return cls._of("replace", hook, where, value=value)

    @classmethod
    def patch(cls, hook: Key | Sequence[Key], source: Mapping[str, np.ndarray], **where: Indices) -> Intervention:
        """Puts the value of another run in place of an activation.

        Args:
            hook: what to change.
            source: what `run_with_cache` read, or `open_trace` opened: a text of the same number of tokens.
            where: `positions`, `heads`, `neurons`, `keys` and `rows` to change.

        Raises:
            HookPointError: the source has none of the hook points.
            InputError: the source is a folded view, or was read at some positions only.
        """
        return cls._of("patch", hook, where, **_of_run(hook, source))

    @classmethod
    def add(
        cls, hook: Key | Sequence[Key], value: npt.ArrayLike, *, factor: float = 1.0, **where: Indices
    ) -> Intervention:
        """Adds a value times a factor, as a steering vector on the residual stream (Turner et al. 2023)."""
        return cls._of("add", hook, where, value=value, factor=factor)

    @classmethod
    def scale(cls, hook: Key | Sequence[Key], factor: float, **where: Indices) -> Intervention:
        """Multiplies an activation by a factor."""
        return cls._of("scale", hook, where, factor=factor)

    @classmethod
    def freeze(
        cls, source: Mapping[str, np.ndarray], hook: Key | Sequence[Key] = _PATTERNS, **where: Indices
    ) -> Intervention:
        """Keeps attention patterns as they were in another run."""
        return cls._of("freeze", hook, where, **_of_run(hook, source))

    @classmethod
    def of_run(
        cls, run: Mapping[str, np.ndarray], entries: Mapping[str, Any], *, per_position: bool = False
    ) -> Intervention:
        """Like `from_dict`, with the values of another run: for `mean`, `patch` and `freeze`; `per_position` as there.

        Raises:
            HookPointError: the run has read none of the hook points.
            InputError: an entry is unknown or missing, or its value cannot be used.
        """
        plain = cls.from_dict({**entries, "value": 0.0})
        hook = list(plain.hook) if isinstance(plain.hook, tuple) else plain.hook
        where = {name: getattr(plain, name) for name in _INDICES}
        if plain.operation == "mean":
            return cls.mean(hook, run, per_position=per_position, **where)
        if per_position:
            raise InputError(f"The operation {plain.operation!r} takes no per_position; 'mean' does.")
        if plain.operation in ("patch", "freeze"):
            return cls._of(plain.operation, hook, where, **_of_run(hook, run))
        raise InputError(f"The operation {plain.operation!r} takes no values of another run.")

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Intervention:
        """Reads what `to_dict` returned, or what was written by hand.

        Raises:
            InputError: an entry is unknown or missing, or its value cannot be used.
        """
        if not isinstance(entries, Mapping):
            raise InputError(f"An intervention must be an object with 'hook' and 'operation', not {quoted(entries)}.")
        known = ("hook", "operation", *_INDICES, "value", "factor", "source", "attention_mask")
        if unknown := sorted(str(key) for key in entries.keys() - set(known)):
            near = suggestion(unknown[0], known)
            raise InputError(f"An intervention has no entry {quoted(unknown[0])}; it has {', '.join(known)}.{near}")
        if missing := [name for name in ("hook", "operation") if name not in entries]:
            raise InputError(f"An intervention needs the entry {missing[0]!r}.")
        return cls(**{str(key): _parsed_slice(key, value) for key, value in entries.items()})

    def to_dict(self) -> dict[str, Any]:
        """Returns it for JSON; slices become text such as `3:`, arrays nested lists."""
        entries: dict[str, Any] = {"hook": list(self.hook) if isinstance(self.hook, tuple) else self.hook}
        entries["operation"] = self.operation
        for name in _INDICES:
            found = getattr(self, name)
            if found is not None:
                entries[name] = slice_text(found) if isinstance(found, slice) else list(found)
        if isinstance(self.value, Mapping):
            entries["value"] = {name: array.tolist() for name, array in self.value.items()}
        elif self.value is not None:
            entries["value"] = self.value.tolist()
        if self.factor != 1:
            entries["factor"] = float(self.factor)
        if self.source is not None:
            entries["source"] = list(self.source)
        if self.attention_mask is not None:
            entries["attention_mask"] = self.attention_mask.tolist()
        return entries

    def at_rows(self, rows: Indices) -> Intervention:
        """The same, for other rows of the batch."""
        return replace(self, rows=rows)

    @classmethod
    def _of(
        cls, operation: Operation, hook: Key | Sequence[Key], where: Mapping[str, Any], **options: Any
    ) -> Intervention:
        if unknown := where.keys() - set(_INDICES):
            raise InputError(
                f"An intervention cannot be limited to {quoted(min(unknown))}; it can be limited to "
                f"{', '.join(_INDICES)}."
                f"{suggestion(min(unknown), _INDICES)}"
            )
        return cls(hook=_globs(hook), operation=operation, **where, **options)

    def _checked(self, value: Any) -> np.ndarray | dict[str, np.ndarray]:
        if isinstance(value, Mapping):
            return {str(name): self._array(array, f" for {quoted(name)}") for name, array in value.items()}
        return self._array(value, "")

    def _array(self, value: Any, of: str) -> np.ndarray:
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "iuf":
                what = "numbers of hundreds of digits, or other things" if array.dtype == object else array.dtype
                raise ValueError(f"an array of {what}")
        except (ValueError, OverflowError, RecursionError, TypeError) as error:
            raise InputError(
                f"The value of {self.operation!r}{of} must be numbers: {cut(str(error), 200).rstrip('.')}."
            ) from error
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if np.isnan(array).any():
            raise InputError(f"The value of {self.operation!r}{of} holds NaN (not a number).")
        array.flags.writeable = False
        return array


def listed(interventions: Iterable[Intervention] | Intervention | None) -> tuple[Intervention, ...]:
    """Interventions as a tuple; a caller may pass one, several, or None.

    Raises:
        InputError: they are of another type.
    """
    if interventions is None:
        return ()
    if isinstance(interventions, Intervention):
        return (interventions,)
    if not isinstance(interventions, Iterable) or isinstance(interventions, str):
        raise InputError(f"interventions must be an Intervention, or several of them, not {quoted(interventions)}.")
    found = tuple(interventions)
    for one in found:
        if not isinstance(one, Intervention):
            raise InputError(f"Expected an Intervention, not {quoted(one)}; Intervention.zero(...) makes one.")
    return found


def _globs(hook: object) -> tuple[str, ...]:
    """The names or globs of hook points."""
    single = isinstance(hook, str) or is_shorthand(hook)
    found: tuple[Any, ...] = (hook,) if single else tuple(hook) if isinstance(hook, Iterable) else ()
    if not found or not all(isinstance(name, str) or is_shorthand(name) for name in found):
        raise InputError(
            "An intervention's hook must be a name, a glob, a tuple such as ('pattern', 0), or several of these, "
            f"not {quoted(hook)}."
        )
    return tuple(name if isinstance(name, str) else full_name(name) for name in found)


def _matching(hook: Key | Sequence[Key], source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The entries of a mapping for the hook points that are named."""
    globs = _globs(hook)
    if not isinstance(source, Mapping):
        raise InputError(f"Values of another run are a mapping from hook point to array, not {type(source).__name__}.")
    if getattr(source, "is_folded", False):
        raise InputError(
            "Values of another run must be those that the model computed; give the raw cache, not a folded view."
        )
    if (positions := getattr(source, "positions", None)) is not None:
        raise InputError(
            f"Values of another run must be those of the whole text; these were read at positions {positions} only."
        )
    # An axis of one row, where it was removed.
    rows = np.newaxis if getattr(source, "has_batch_dim", True) is False else Ellipsis
    found = {name: source[name][rows] for name in source if any(fnmatchcase(name, glob) for glob in globs)}
    if not found:
        named = ", ".join(map(repr, globs))
        near = suggestion(globs[0], source)
        raise HookPointError(f"The other run has read none of {named}; it has {len(source)} hook points.{near}")
    return found


def _of_run(hook: Key | Sequence[Key], run: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Values of another run, and what is known of it."""
    return {"value": _matching(hook, run), "source": _source(run), "attention_mask": _padding(run)}


def _padding(run: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The mask of a run with padding; None where there is no padding, or the mask is not known."""
    mask = getattr(run, "attention_mask", None)
    return None if mask is None or np.all(mask) else np.asarray(mask)


def _tokens(mask: np.ndarray) -> str:
    count = int(np.sum(mask))
    return f"{count} token{'s' * (count != 1)}"


def _checked_mask(rows: Any) -> np.ndarray:
    try:
        mask = np.asarray(rows)
    except (ValueError, OverflowError, RecursionError):
        mask = np.empty(0)
    if mask.ndim != 2 or not np.isin(mask, (0, 1)).all():
        raise InputError("An intervention's attention_mask must be rows of 0 and 1, all of one length.")
    return mask.astype(np.int64)


def _source(cache: Mapping[str, np.ndarray]) -> Source | None:
    """The model that a cache says it is of."""
    found = getattr(cache, "model_hash", "")
    return Source(getattr(cache, "model", ""), found) if found else None


def _checked_source(pair: Any) -> Source:
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise InputError(f"An intervention's source must be a model's name and hash, not {quoted(pair)}.")
    return Source(*pair)


def _mean(name: str, value: np.ndarray, real: np.ndarray | None, per_position: bool) -> np.ndarray:
    """The mean over rows, and over positions if they are not kept apart, in float64; padding does not count."""
    attention = name.endswith(("hook_attn_scores", "hook_pattern"))
    if attention and not per_position:
        raise InputError(
            f"The mean of {name!r} over all positions would look ahead; give per_position=True for one at each."
        )
    wide = value.astype(np.float64)
    rows = (value.shape[0], value.shape[2 if attention else 1])
    if real is None or real.shape != rows:
        real = np.ones(rows)
    shape = (real.shape[0], 1, real.shape[1], 1) if attention else (*real.shape, *[1] * (value.ndim - 2))
    weight = real.reshape(shape)
    axes = (0,) if per_position else (0, 1)
    count = weight.sum(axis=axes, keepdims=True)
    with np.errstate(invalid="ignore"):
        total = np.where(weight != 0, wide, 0).sum(axis=axes, keepdims=True)
    return np.asarray(total / np.maximum(count, 1), np.float32)


def _indices(value: Any, name: str) -> slice | tuple[int, ...] | None:
    if value is None or isinstance(value, slice):
        if isinstance(value, slice) and not all(
            part is None or is_integer(part) for part in (value.start, value.stop, value.step)
        ):
            raise InputError(f"{name} must be a slice of whole numbers, not {quoted(value)}.")
        if isinstance(value, slice) and value.step == 0:
            raise InputError(f"{name} must be a slice whose step is not 0, not {quoted(value)}.")
        return value
    try:
        found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        if not all(map(is_integer, found)):
            raise TypeError
        return tuple(int(one) for one in found)
    except TypeError:
        raise InputError(f"{name} must be a whole number, several, or a slice, not {quoted(value)}.") from None


def _parsed_slice(name: str, value: Any) -> Any:
    if name not in _INDICES or not isinstance(value, str):
        return value
    try:
        parts = [int(part) if part.strip() else None for part in value.split(":", 3)]
    except ValueError:
        parts = []
    if len(parts) == 1:
        return parts[0]
    if len(parts) not in (2, 3):
        raise InputError(
            f"{name} must be a whole number, a list of them, or a range such as '3:7', not {quoted(value)}."
        )
    return slice(*parts)


def slice_text(indices: slice) -> str:
    """A slice as it is written in JSON and in errors, such as `3:7`."""
    parts = [indices.start, indices.stop] + ([indices.step] if indices.step is not None else [])
    return ":".join("" if part is None else str(part) for part in parts)
