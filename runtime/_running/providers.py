"""Execution providers: which one runs a model, and the options of its ONNX Runtime sessions."""

from __future__ import annotations

import hashlib
import logging
import platform
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import onnxruntime

from onnxlens.runtime._running.session import keep_when_forked
from onnxlens.runtime._running.stopping import current_stop
from onnxlens.runtime.errors import ProviderError, StoppedError

__all__ = ["CPU", "PROVIDERS", "Provider", "ProviderName", "candidates", "open_session", "run_bound", "session_options"]

ProviderName = Literal["auto", "cpu", "cuda"]
PROVIDERS: tuple[ProviderName, ...] = ("auto", "cpu", "cuda")

_INSTALL = (
    "pip install 'onnxlens[cuda]' && pip install --force-reinstall --no-deps onnxruntime-gpu "
    "(both packages put an onnxruntime in the same place; the last one stays)"
)

logger = logging.getLogger("onnxlens")


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: `cpu` or `cuda`.
        ort_name: its name in ONNX Runtime.
    """

    name: Literal["cpu", "cuda"]
    ort_name: str

    @property
    def fingerprint(self) -> str:
        """What a graph optimised for this provider depends on: ONNX Runtime's version and the processor."""
        processor = _processor() if self.name == "cpu" else self.ort_name
        return "\n".join([self.name, onnxruntime.__version__, platform.machine(), processor])


CPU = Provider("cpu", "CPUExecutionProvider")
CUDA = Provider("cuda", "CUDAExecutionProvider")
CUDA_OPTIONS = {"use_tf32": "0"}  # whose products have 10 bits of mantissa, where float32 has 23


def candidates(name: str) -> tuple[Provider, ...]:
    """The providers to try in turn for a name that the user gave.

    Raises:
        ProviderError: the name is unknown, or ONNX Runtime was built without that provider.
    """
    if name not in PROVIDERS:
        raise ProviderError(f"Unknown provider {name!r}; expected one of {', '.join(PROVIDERS)}.")
    available = onnxruntime.get_available_providers()
    if name == "cpu":
        return (CPU,)
    if CUDA.ort_name in available:
        return (CUDA,) if name == "cuda" else (CUDA, CPU)
    if name == "cuda":
        raise ProviderError(
            "Provider 'cuda' is not available: the installed onnxruntime was built for "
            f"{', '.join(available)}. Install the one for NVIDIA GPUs: {_INSTALL}."
        )
    return (CPU,)


def session_options(
    threads: int | None, folder: Path | None = None, *, takes_turns: bool = False
) -> onnxruntime.SessionOptions:
    """Options of a session on a prepared graph, or on what was cut from one.

    Args:
        threads: how many threads compute; None for as many as there are physical cores.
        folder: where the weights are, for a graph that is not a file.
        takes_turns: whether other sessions run right before and after it, in one pass.
    """
    options = onnxruntime.SessionOptions()
    # The prepared graph is optimised already, and without regard to what is read.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # An arena would keep for each session as much memory as its largest pass took; without, passes take as long.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    # Every session has threads of its own, and those that wait for work keep processors busy that another one needs:
    # for a while after a run, and where sessions take turns, all the time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if takes_turns:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(
    graph: bytes | Path, options: onnxruntime.SessionOptions, provider: Provider
) -> onnxruntime.InferenceSession:
    """Opens a session on exactly one provider (ONNX Runtime itself would silently fall back to the CPU).

    Raises:
        ProviderError: the provider did not start.
    """
    # If a pass fails, the error says what the log would print. If a provider does not start, the log says more.
    options.log_severity_level = 4 if provider is CPU else 3
    source = graph if isinstance(graph, bytes) else str(graph)
    chosen: list[Any] = [CPU.ort_name]
    if provider is CUDA:
        _load_cuda()
        chosen.insert(0, (CUDA.ort_name, CUDA_OPTIONS))
    try:
        # Its fallback would print the problem to standard output and go on without the provider.
        session = onnxruntime.InferenceSession(source, options, providers=chosen, enable_fallback=False)
    except Exception as error:
        if provider is CPU:
            raise
        raise _did_not_start(provider, " ".join(str(error).split())[:300]) from error
    keep_when_forked(session)
    if provider.ort_name not in session.get_providers():
        raise _did_not_start(provider, "ONNX Runtime left it out")
    return session


def run_bound(session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, provider: Provider) -> None:
    """Runs a session on bound inputs and outputs; on a GPU, waits until these are copied.

    Binding an input only queues its copy, and the array may be freed before the copy is made.

    Raises:
        StoppedError: another thread stopped it.
    """
    if provider is not CPU:
        binding.synchronize_inputs()
    stop = current_stop()
    try:
        session.run_with_iobinding(binding, None if stop is None else stop.run_options)
    except Exception as error:
        if stop is not None and stop.is_stopped:
            raise StoppedError("Stopped before the end, as another thread asked.") from error
        raise
    if provider is not CPU:
        binding.synchronize_outputs()


@cache
def _load_cuda() -> None:
    """Loads the CUDA and cuDNN libraries that pip installed, which the system's linker does not find by itself."""
    with redirect_stdout(StringIO()):  # it prints what is missing; the session's error says that, too
        onnxruntime.preload_dlls()


def _did_not_start(provider: Provider, reason: str) -> ProviderError:
    return ProviderError(
        f"Provider {provider.name!r} did not start ({reason}). ONNX Runtime {onnxruntime.__version__} has it, so the "
        f"driver or the CUDA and cuDNN libraries may be missing or too old. Use 'cpu', or install: {_INSTALL}."
    )


def _processor() -> str:
    """The processor's model and instruction sets: packed weights are laid out for them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.processor()
    telling = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return hashlib.sha256("\n".join(telling).encode()).hexdigest()
