"""The models that an engine can open, by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from onnxlens.runtime.errors import BundleError, suggestion

if TYPE_CHECKING:
    from onnxlens._lens import Lens

__all__ = ["Models"]

_MOST_OPEN = 3  # the first one included, which stays open


class Models:
    """Opens models when they are first asked for; the one that was not used for longest is closed.

    Args:
        first: the model to begin with, which its owner closes.
        known: the names of others.
        opener: opens one of these.
    """

    def __init__(self, first: Lens, known: Sequence[str] = (), opener: Callable[[str], Lens] | None = None) -> None:
        self.first = first
        self._name = first.bundle.name
        self._known = [name for name in known if name != self._name] if opener is not None else []
        self._opener = opener
        self._open: OrderedDict[str, Lens] = OrderedDict()
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        """The names of all models, the one to begin with first."""
        return [self._name, *self._known]

    def is_open(self, name: str) -> bool:
        """Whether a model is open."""
        return name == self._name or name in self._open

    def get(self, name: str | None) -> Lens:
        """Returns a model, and opens it if need be; None for the first one.

        Raises:
            BundleError: there is no such model, or it cannot be opened.
            OnnxLensError: its provider does not start.
        """
        if name is None or name == self._name:
            return self.first
        if name not in self._known or self._opener is None:
            raise BundleError(
                f"There is no model {name!r:.100}; there are {', '.join(self.names)}.{suggestion(name, self.names)}"
            )
        with self._lock:
            if name not in self._open:
                self._open[name] = self._opener(name)
                if len(self._open) >= _MOST_OPEN:
                    self._open.popitem(last=False)[1].close()
            self._open.move_to_end(name)
            return self._open[name]

    def close(self) -> None:
        """Closes all models but the first one."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
