"""Random damage done with knowledge of the format: JSON, protocol buffers, safetensors, text, bytes."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

__all__ = ["mutated_bytes", "mutated_json", "mutated_message", "mutated_tensors", "mutated_text"]

_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 300, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), "", " ", "a", "0", "3:", "::0", "null", "blocks.*", "é", "\u202e", "\x00", "\x1b[2J",
    "\ud800", "a" * 100_000, "../../etc/passwd", "/dev/zero", "~nobody/x", "~", ".", "*", "[", [], {}, [[]], [1, 2, 3],
    [0.5], ["a"], [None], {"a": 1}, {"": {}}, {"trace": "x"}, [1] * 10_000,
]  # fmt: skip

_DEEP = "\ue000deep\ue000"  # stands for lists so deep that json.dumps could not write them
_HUGE = "\ue000huge\ue000"  # stands for a number with more digits than Python reads


def mutated_json(rng: Random, document: Any) -> bytes:
    """A JSON document with one to three changes, as bytes; sometimes not even JSON."""
    made = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        made = _changed(rng, made)
    text = json.dumps(made, ensure_ascii=rng.random() < 0.5)
    text = text.replace(json.dumps(_DEEP), "[" * 100_000 + "]" * 100_000)
    text = text.replace(json.dumps(_DEEP, ensure_ascii=False), "[" * 100_000 + "]" * 100_000)
    text = text.replace(json.dumps(_HUGE), "9" * 5_000).replace(json.dumps(_HUGE, ensure_ascii=False), "9" * 5_000)
    content = text.encode(errors="surrogatepass")
    return mutated_bytes(rng, content) if rng.random() < 0.1 else content


def _changed(rng: Random, document: Any) -> Any:
    """One change at a random place of a document, which may be changed itself."""
    places = list(_places(document))
    if not places or rng.random() < 0.02:
        return _value(rng)
    holder, key = rng.choice(places)
    action = rng.choice(("value", "value", "value", "near", "near", "remove", "repeat", "swap", "rename"))
    if action == "value":
        holder[key] = _value(rng)
    elif action == "near":
        holder[key] = _near(rng, holder[key])
    elif action == "remove":
        del holder[key]
    elif action == "swap":
        other, place = rng.choice(places)
        holder[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(holder[key])
    elif isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    else:
        text = str(_value(rng))[:1000] if rng.random() < 0.5 else key + rng.choice(("", "s", "_", " "))
        holder[text] = copy.deepcopy(holder[key]) if action == "repeat" else holder.pop(key)
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or dict of a document, with each of its indices or keys."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield document, key
        yield from _places(value)


def _value(rng: Random) -> Any:
    return copy.deepcopy(rng.choice([*_VALUES, _DEEP, _HUGE]))


def _near(rng: Random, value: Any) -> Any:
    """Something like the value that is there."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        small = value % 1_000_000
        return rng.choice((value + 1, value - 1, -value, value * 2, value // 2, float(small), str(small), [value]))
    if isinstance(value, float):
        return rng.choice((-value, value * 2, str(value), int(value) if abs(value) < 1e300 else 0, value / 3))
    if isinstance(value, str):
        return mutated_text(rng, value)
    if isinstance(value, list):
        return rng.choice((value[1:], value[:-1], value[::-1], value * 2, {str(n): v for n, v in enumerate(value)}))
    if isinstance(value, dict):
        return rng.choice((list(value), list(value.values()), {k.upper(): v for k, v in value.items()}))
    return _value(rng)


_PIECES = (
    "", " ", "|", "=", "(", ")", "[", "]", "{", "}", ",", "'", '"', "\\", "\n", "\r", "\t", "\0", "*", "?", "[!", "-",
    "1e999", "9" * 400, "-1", "0", "None", "nan", "True", "lambda: 0", "__import__('os')", "f'{1}'", "@/dev/zero", "é",
    "\u202e", "\x1b[2J", "\ud800", "\N{GRINNING FACE}", "~nobody/x", "..", "a" * 5_000,
)  # fmt: skip


def mutated_text(rng: Random, text: str) -> str:
    """A text with one to four pieces of it removed, repeated, moved, or replaced by such as mean something."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        first, last = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        last = min(last, first + rng.choice((0, 1, 1, 3, 10)))
        piece = text[first:last]
        new = rng.choice((rng.choice(_PIECES), rng.choice(_PIECES), piece * 2, piece[::-1], piece.swapcase()))
        text = text[:first] + new + text[last:]
    return text


def mutated_bytes(rng: Random, content: bytes) -> bytes:
    """Bytes with one to eight places flipped, cut, removed, repeated or overwritten."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(made) + 1)
        action = rng.choice(("flip", "flip", "byte", "byte", "cut", "remove", "repeat", "insert"))
        if action == "cut":
            del made[place:]
        elif action == "insert":
            made[place:place] = rng.choice((b"\xff\xfe", b"\0" * 9, b"\x80", rng.randbytes(5), b"{", b'"', b"\n"))
        elif action in ("remove", "repeat"):
            piece = made[place : place + rng.choice((1, 4, 8, 64))]
            made[place : place + len(piece)] = b"" if action == "remove" else piece * 2
        elif place < len(made):
            made[place] = made[place] ^ 1 << rng.randrange(8) if action == "flip" else rng.choice((0, 255, 127, 128))
    return bytes(made)


def mutated_message(rng: Random, message: Any) -> bytes:
    """A protocol buffer message with one to three fields changed, as bytes; the message itself is changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, field = rng.choice(list(_fields(message)))
        _change_field(rng, holder, field)
    content = message.SerializeToString()
    return mutated_bytes(rng, content) if rng.random() < 0.15 else content


def _fields(message: Any) -> Any:
    """Every field that is set in a message and in those inside it, with the message."""
    from google.protobuf.message import Message

    for field, value in message.ListFields():
        yield message, field
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _fields(inner)


def _change_field(rng: Random, holder: Any, field: Any) -> None:
    value = getattr(holder, field.name)
    if hasattr(value, "extend"):  # several
        items = list(value)
        action = rng.choice(("remove", "empty", "repeat", "reverse", "replace", "replace"))
        place = rng.randrange(len(items)) if items else 0
        if action == "replace" and field.type != field.TYPE_MESSAGE and items:
            items[place] = _scalar(rng, field, items[place])
        elif action == "remove":
            del items[place : place + 1]
        elif action == "repeat" and items:
            items.insert(rng.randrange(len(items)), items[place])
        elif action == "reverse":
            items.reverse()
        elif action == "empty":
            items = []
        copies = [copy.deepcopy(item) for item in items]
        holder.ClearField(field.name)
        getattr(holder, field.name).extend(copies)
    elif field.type == field.TYPE_MESSAGE or rng.random() < 0.3:
        holder.ClearField(field.name)
    else:
        setattr(holder, field.name, _scalar(rng, field, value))


def _scalar(rng: Random, field: Any, value: Any) -> Any:
    if isinstance(value, bytes):
        return mutated_bytes(rng, value)
    if isinstance(value, str):
        known = ("", "logits", "input_ids", "wte.weight", "Add", "MatMul", "Loop", "If", "com.microsoft", "x" * 5_000)
        return mutated_text(rng, value).encode(errors="replace").decode() if rng.random() < 0.4 else rng.choice(known)
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e38, value * 2))
    if field.type == field.TYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    far = (-1, 2**40, -(2**40)) if field.cpp_type == field.CPPTYPE_INT64 else (2**31 - 1,)
    return rng.choice((0, 1, 2, 7, 16, value + 1, max(value, 1) - 1, *far))


def mutated_tensors(rng: Random, content: bytes) -> bytes:
    """A safetensors file with its header changed, or its bytes; the length in front is mostly set right."""
    if rng.random() < 0.2:
        return mutated_bytes(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    texts = header.get("__metadata__", {})
    if texts and rng.random() < 0.5:  # the texts, of which some are JSON themselves
        name = rng.choice(list(texts))
        try:
            texts[name] = mutated_json(rng, json.loads(texts[name])).decode(errors="replace")
        except ValueError:
            texts[name] = mutated_text(rng, texts[name])
        made = json.dumps(header).encode()
    elif rng.random() < 0.4:  # an array of another shape, or of another data type, that fits its bytes
        entry = header[rng.choice([name for name in header if name != "__metadata__"])]
        _reshape(rng, entry)
        made = json.dumps(header).encode()
    else:
        made = mutated_json(rng, header)
    stated = len(made) if rng.random() < 0.95 else rng.choice((0, 1, 2**63, len(made) + 1, len(made) - 1))
    return struct.pack("<Q", stated) + made + content[8 + length :]


def _reshape(rng: Random, entry: dict[str, Any]) -> None:
    """Gives a tensor another shape or data type of as many bytes."""
    first, last = entry["data_offsets"]
    sizes = {"F64": 8, "I64": 8, "F32": 4, "F16": 2}
    if rng.random() < 0.5:
        entry["dtype"] = rng.choice(list(sizes))
    count = (last - first) // sizes[entry["dtype"]]
    shape: list[int] = []
    while count > 1 and rng.random() < 0.8:
        divisor = rng.choice([n for n in range(1, min(count, 50) + 1) if count % n == 0])
        shape.append(divisor)
        count //= divisor
    entry["shape"] = rng.choice(([*shape, count], [count, *shape], entry["shape"][::-1], [1, *entry["shape"]]))
