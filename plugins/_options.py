"""Options of plugins: typed and documented once, as the fields of a dataclass, and checked when an object is made."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from onnxlens.runtime.errors import InputError

__all__ = ["Option", "Options", "json_schema", "make", "option_names"]

T = TypeVar("T", bound="Options")

# msgspec's words, and ours for a sentence.
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": 'a mapping such as {"a": 1}',
}
_BOUNDS = {"of length >=": "of length at least", ">=": "of at least", "<=": "of at most", ">": "above", "<": "below"}

_LONGEST = 100  # of a value that is repeated in an error


def Option(  # noqa: N802  # it stands where a type is annotated
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
) -> msgspec.Meta:
    """Documents a field and bounds its values; it stands in `Annotated[float, ...]`.

    Args:
        help: a sentence for users who choose the value.
        ge: the least value.
        gt: a bound that the value must be above.
        le: the greatest value.
        lt: a bound that the value must be below.
        min_length: the least number of elements or characters.
    """
    bounds: dict[str, Any] = {"ge": ge, "gt": gt, "le": le, "lt": lt, "min_length": min_length}
    meta: msgspec.Meta = msgspec.Meta(description=help, **bounds)
    return meta


class Options:
    """The base of plugins: a dataclass whose fields are the options.

    Fields that begin with an underscore or have `init=False` are not options. A plugin's own `__post_init__` runs after
    the check, for example to set up state.

    Raises:
        InputError: when one is made with a value that a field does not allow; the text names plugin and option.
    """

    def __init_subclass__(cls, *, checked: bool = True, **others: Any) -> None:
        """Runs the check before the class's own `__post_init__`, which need not call it."""
        super().__init_subclass__(**others)
        own = cls.__dict__.get("__post_init__")
        if own is None or not checked:
            return

        @functools.wraps(own)
        def check_first(self: Options) -> None:
            check(self)
            own(self)

        cls.__post_init__ = check_first  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Checks the values."""
        check(self)


def option_names(plugin: type[Options]) -> tuple[str, ...]:
    """Names of a plugin's options, in the order in which they are declared."""
    return tuple(field.name for field in _fields(plugin))


def json_schema(plugin: type[Options]) -> dict[str, Any]:
    """The JSON schema of a plugin's options, an object."""
    (schemas, definitions) = msgspec.json.schema_components([_struct(plugin)])
    (reference,) = schemas
    found: dict[str, Any] = definitions.pop(reference["$ref"].rpartition("/")[2])
    return {**found, "$defs": definitions} if definitions else found


def make(plugin: type[T], name: str, options: Mapping[str, Any], *, strict: bool = False) -> T:
    """Makes a plugin with options, as Python values or as text: `{"k": 40}` or `{"k": "40"}`.

    Args:
        plugin: the class.
        name: the name under which it is known.
        options: values by name.
        strict: do not convert text to numbers.

    Raises:
        InputError: there is no such option, one is missing, or a value is not allowed.
    """
    known = option_names(plugin)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise InputError(f"{name} has no option {option!r}; {has}.{meant}")
    values = _converted(plugin, name, options, strict=strict)
    return plugin(**values)


def check(plugin: Options) -> None:
    """Checks the options of a plugin object, and converts them to their declared types.

    Raises:
        InputError: a value is not allowed.
    """
    kind = type(plugin)
    values = {name: getattr(plugin, name) for name in option_names(kind)}
    for name, value in _converted(kind, kind.__name__, values, strict=True).items():
        object.__setattr__(plugin, name, value)  # the dataclass may be frozen


def _converted(plugin: type[Options], name: str, options: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    plain = {option: _plain(value) for option, value in options.items()}
    try:
        found = msgspec.convert(plain, _struct(plugin), strict=strict)
    except msgspec.ValidationError as error:
        sentence = _sentence(str(error), plain, plugin)
        raise InputError(sentence if sentence.startswith(f"{name} ") else f"{name}: {sentence}") from error
    values = {option: getattr(found, option) for option in options}
    for option, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name}: {option} must be a finite number, not {value!r}.")
    return values


def _sentence(error: str, options: Mapping[str, Any], plugin: type[Options]) -> str:
    """A validation error in words, with the given value."""
    what, _, where = error.partition(" - at `$.")
    if not where:
        return f"it needs the option {what.split('`')[1]}." if what.count("`") == 2 else f"{what}."
    path = where.rstrip("`")
    option = path.split("[")[0].split(".")[0]
    if what in ("Number out of range", "Integer value out of range"):
        expected = "a number that a computer can hold"
    elif what.startswith("Invalid enum value"):
        choices = json_schema(plugin)["properties"][option].get("enum", ())
        expected = f"one of {', '.join(map(repr, choices))}"
    else:
        expected = what.removeprefix("Expected ").partition(", got")[0]
        for word, plain in _BOUNDS.items():
            expected = expected.replace(word, plain)
        expected = re.sub("`(.*?)`", lambda found: _types(found[1]), expected)
    shown = repr(options.get(option))
    return f"{path} must be {expected}, not {shown if len(shown) <= _LONGEST else f'{shown[:_LONGEST]}…'}."


def _types(names: str) -> str:
    """Types such as `int | null` in words, without null, since a value was given."""
    return " or ".join(_TYPES.get(name, name) for name in names.split(" | ") if name != "null")


def _plain(value: object) -> object:
    """NumPy's numbers and arrays as Python's, also inside lists, mappings and other containers."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        plain = [_plain(one) for one in value]
        kind = next((kind for kind in (tuple, set, frozenset) if isinstance(value, kind)), list)
        return kind(plain)
    return value


_structs: dict[type, type[msgspec.Struct]] = {}


def _struct(plugin: type[Options]) -> type[msgspec.Struct]:
    """A struct with the same fields, which checks a plugin's options."""
    if plugin not in _structs:
        from typing import get_type_hints

        hints = {name: _spread(hint) for name, hint in get_type_hints(plugin, include_extras=True).items()}
        fields = [
            (field.name, hints[field.name], default)
            if (default := _default(field)) is not msgspec.NODEFAULT
            else (field.name, hints[field.name])
            for field in _fields(plugin)
        ]
        _structs[plugin] = msgspec.defstruct(plugin.__name__, fields, kw_only=True)
    return _structs[plugin]


def _spread(hint: Any) -> Any:
    """A type as msgspec expects it: in `Annotated[int | None, Option("...", ge=1)]`, the bounds belong to the `int`.

    And of `Annotated[int, Option("...", ge=1)] | None`, the meaning belongs to the whole.
    """
    from typing import Annotated, Union, get_args, get_origin

    is_annotated = get_origin(hint) is Annotated
    whole, metadata = (get_args(hint)[0], get_args(hint)[1:]) if is_annotated else (hint, ())
    if get_origin(whole) not in (Union, types.UnionType):
        return hint
    members = []
    for member in get_args(whole):
        bounds: dict[str, Any] = {}
        for meta in metadata:
            names = ("ge", "gt", "le", "lt") if member in (int, float) else ("min_length",)
            if member in (int, float, str) or get_origin(member) in (list, tuple, dict, set):
                bounds |= {name: value for name in names if (value := getattr(meta, name, None)) is not None}
        members.append(Annotated[member, msgspec.Meta(**bounds)] if bounds else member)
    described = [meta for member in members for meta in get_args(member)[1:] if get_origin(member) is Annotated]
    text = next((found for meta in (*metadata, *described) if (found := getattr(meta, "description", None))), None)
    union: Any = Union[tuple(members)]  # noqa: UP007  # created at run time
    return union if text is None else Annotated[union, msgspec.Meta(description=text)]


def _fields(plugin: type[Options]) -> list[dataclasses.Field[Any]]:
    if not dataclasses.is_dataclass(plugin):
        raise InputError(
            f"{plugin.__name__} is not a dataclass; put @dataclass above it, so that its fields are options."
        )
    return [field for field in dataclasses.fields(plugin) if field.init and not field.name.startswith("_")]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.NODEFAULT if field.default is dataclasses.MISSING else field.default
