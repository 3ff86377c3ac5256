"""What was prepared of a bundle for this machine: the files of a cache folder, and sessions on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from onnxlens.runtime.errors import BundleError
from onnxlens.runtime.matrix_file import MatrixFile
from onnxlens.runtime.open_file import OpenFile
from onnxlens.runtime.providers import CPU, Provider, open_session, session_options
from onnxlens.runtime.session import Session

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["EMBEDDING", "OPTIMISED", "PLAIN_REQUEST", "UNEMBEDDING", "Prepared"]

# The files: the graph with all hook points, what is compiled of it for the request that reads none, W_E, and the
# transpose of W_U where that is another matrix (on the CPU only).
OPTIMISED, PLAIN_REQUEST, EMBEDDING, UNEMBEDDING = "prepared.onnx", "plain.onnx", "embedding.bin", "unembedding.bin"

_REMEDY = "Delete its folder; the next start makes it again."


class Prepared:
    """A bundle prepared for one provider on this machine.

    Args:
        folder: where its files lie; graphs compiled from it find their weights there.
        provider: what it was prepared for.
        what: what was prepared, for errors.
    """

    def __init__(self, folder: Path, provider: Provider, what: str) -> None:
        self.folder, self.provider, self._what = folder, provider, what

    @cached_property
    def graph(self) -> ModelProto:
        """The optimised graph, without weights.

        Raises:
            BundleError: it cannot be read.
        """
        import onnx  # 0.3 s, and only needed where more is wanted than a plain pass

        with self._opening():
            return onnx.load(self.folder / OPTIMISED, load_external_data=False)

    def open(self, graph: ModelProto, threads: int | None, *, takes_turns: bool = False) -> Session:
        """Opens a session on what was cut from the graph; `threads` and `takes_turns` as in `session_options`.

        Raises:
            BundleError: ONNX Runtime cannot open it.
        """
        return self._open(graph.SerializeToString(), session_options(threads, self.folder, takes_turns=takes_turns))

    def open_plain(self, threads: int | None) -> Session:
        """Opens a session on the graph of the request that reads no hook point; arguments and errors likewise."""
        return self._open(self.folder / PLAIN_REQUEST, session_options(threads))

    def _open(self, graph: bytes | Path, options: onnxruntime.SessionOptions) -> Session:
        def start() -> onnxruntime.InferenceSession:
            with self._opening():
                return open_session(graph, options, self.provider)

        return Session(start, check=self._check, survives=self.provider is CPU)

    def _check(self) -> None:
        if self._weights is not None:
            self._weights.check()

    @cached_property
    def _weights(self) -> OpenFile | None:
        """The file that sessions map; small models have all weights in their graph."""
        with self._opening():
            try:
                return OpenFile(self.folder / f"{OPTIMISED}_data", remedy=_REMEDY)
            except FileNotFoundError:
                return None

    def open_matrix(self, name: str, width: int) -> MatrixFile:
        """Opens `EMBEDDING` or `UNEMBEDDING`, whose rows are that wide; errors likewise."""
        with self._opening():
            return MatrixFile(self.folder / name, width, _REMEDY)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Says of what goes wrong in a `with` block that what was prepared cannot be opened."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.startswith(("onnxruntime", "google.protobuf")):
                reason = " ".join(str(error).split())[:300]
                raise BundleError(
                    f"Cannot open what was prepared of {self._what} in {self.folder}: {reason}. If that folder was "
                    "altered, delete it; the next start makes it again."
                ) from error
            raise
