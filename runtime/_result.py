"""Results as plain values, for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["Result", "plain"]


class Result:
    """A result that is a dataclass, whose fields `to_dict` returns as plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name, as values that JSON has: arrays become nested lists, results dictionaries."""
        assert is_dataclass(self)
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers, texts, lists and dictionaries with texts for keys."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
