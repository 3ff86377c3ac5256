"""Errors of Rust libraries: what they raise when their code gives up."""

from __future__ import annotations

__all__ = ["is_panic", "one_line"]


def is_panic(error: BaseException) -> bool:
    """Whether Rust code gave up. PyO3 raises that as a BaseException of a class of its own that cannot be imported."""
    return type(error).__module__ == "pyo3_runtime" and type(error).__name__ == "PanicException"


def one_line(error: BaseException) -> str:
    """What an error says, on one line without a period, at most 300 characters of it."""
    text = " ".join(str(error).split()).removesuffix(".")
    return text if len(text) <= 300 else f"{text[:300]}…"
