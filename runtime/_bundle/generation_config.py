"""The tokens that end a text, from generation_config.json, or from config.json where there is no such file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxlens.runtime.errors import BundleError

__all__ = ["GENERATION_CONFIG", "end_tokens", "listed_ids"]

GENERATION_CONFIG = "generation_config.json"


def end_tokens(
    generation: Mapping[str, Any] | None, config: int | tuple[int, ...] | None, d_vocab: int, *, origin: str
) -> tuple[int, ...]:
    """The tokens that end a text, as in transformers' `generate`.

    Where generation_config.json exists, it alone decides, even if it names no token. Ids that the model does not have
    are left out, since it can never predict them.

    Args:
        generation: the entries of generation_config.json; None where there is no such file.
        config: `eos_token_id` of config.json.
        d_vocab: how many tokens the model has.
        origin: what to call generation_config.json in an error.

    Raises:
        BundleError: `eos_token_id` is not an id, a list of ids or null.
    """
    ids = listed_ids(config if generation is None else generation.get("eos_token_id"), origin)
    return tuple(token for token in dict.fromkeys(ids) if 0 <= token < d_vocab)


def listed_ids(value: object, origin: str, name: str = "eos_token_id") -> tuple[int, ...]:
    """One token id, several or none (null), as a tuple.

    Raises:
        BundleError: it is of another type.
    """
    ids = () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)
    if any(type(token) is not int for token in ids):
        raise BundleError(f"{origin}: '{name}' must be a token id, a list of them or null, not {value!r:.100}.")
    return ids
