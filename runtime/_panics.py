"""Errors of Rust libraries, panics included."""

from __future__ import annotations

__all__ = ["is_panic", "one_line"]


def is_panic(error: BaseException) -> bool:
    """Whether this is a panic of Rust code, which PyO3 raises as a BaseException of a class that cannot be imported."""
    return type(error).__module__ == "pyo3_runtime" and type(error).__name__ == "PanicException"


def one_line(error: BaseException) -> str:
    """The text of an error on one line, without a final period, cut to 300 characters."""
    text = " ".join(str(error).split()).removesuffix(".")
    return text if len(text) <= 300 else f"{text[:300]}…"
