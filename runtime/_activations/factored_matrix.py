"""Products of two matrices that are kept as two matrices, as TransformerLens's `FactoredMatrix`.

A head is described by two matrices of d_model by d_model, whose rank is the head's width: `W_Q @ W_K.T` says which
tokens attend to which, and `W_V @ W_O` what is moved (Elhage et al., "A Mathematical Framework for Transformer
Circuits", 2021). Kept as two factors, they take little memory, and norms, singular values and eigenvalues are cheap.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from onnxlens.runtime.errors import InputError

__all__ = ["FactoredMatrix", "composition_scores"]


class FactoredMatrix:
    """The product A @ B, kept as two factors.

    Args:
        A: [..., ldim, mdim].
        B: [..., mdim, rdim]; leading axes are broadcast.

    Attributes:
        A: the left factor, [..., ldim, mdim].
        B: the right factor, [..., mdim, rdim].
        ldim: rows of the product.
        mdim: the inner dimension.
        rdim: columns of the product.
        shape: that of the product, [..., ldim, rdim].

    Raises:
        InputError: the shapes do not fit.
    """

    __array_ufunc__ = None  # so that array @ FactoredMatrix is left to __rmatmul__

    def __init__(self, A: np.ndarray, B: np.ndarray) -> None:  # noqa: N803
        A, B = np.asarray(A), np.asarray(B)  # noqa: N806
        if A.ndim < 2 or B.ndim < 2 or A.shape[-1] != B.shape[-2]:
            raise InputError(
                f"The factors of a matrix must be [..., l, m] and [..., m, r], not {list(A.shape)} and {list(B.shape)}."
            )
        try:
            leading = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        except ValueError as error:
            raise InputError(
                f"The leading axes of the factors do not fit: {list(A.shape)} and {list(B.shape)}."
            ) from error
        self.A = np.broadcast_to(A, (*leading, *A.shape[-2:]))
        self.B = np.broadcast_to(B, (*leading, *B.shape[-2:]))
        self.ldim, self.mdim = A.shape[-2:]
        self.rdim = B.shape[-1]
        self.shape = (*leading, self.ldim, self.rdim)

    def __repr__(self) -> str:
        return f"FactoredMatrix(shape {list(self.shape)}, inner dimension {self.mdim})"

    @property
    def ndim(self) -> int:
        """Number of axes of the product."""
        return len(self.shape)

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Both factors."""
        return self.A, self.B

    @property
    def AB(self) -> np.ndarray:  # noqa: N802
        """The product, [..., ldim, rdim], which can be large."""
        product: np.ndarray = self.A @ self.B
        return product

    @property
    def BA(self) -> np.ndarray:  # noqa: N802
        """The factors multiplied the other way round, [..., mdim, mdim].

        Raises:
            InputError: the product is not square.
        """
        if self.rdim != self.ldim:
            raise InputError(f"BA needs a square product; this one has shape {list(self.shape)}.")
        product: np.ndarray = self.B @ self.A
        return product

    @property
    def T(self) -> FactoredMatrix:  # noqa: N802
        """The transposed matrix, [..., rdim, ldim]."""
        return FactoredMatrix(self.B.swapaxes(-2, -1), self.A.swapaxes(-2, -1))

    def __matmul__(self, other: Any) -> Any:
        """Multiplies with a matrix, which gives a `FactoredMatrix`, or with a vector, which gives an array."""
        if isinstance(other, FactoredMatrix):
            return (self @ other.A) @ other.B
        other = np.asarray(other)
        if other.shape[-1 if other.ndim == 1 else -2] != self.rdim:
            raise InputError(f"Cannot multiply shape {list(self.shape)} by shape {list(other.shape)}.")
        if other.ndim == 1:
            return (self.A @ (self.B @ other)[..., np.newaxis])[..., 0]  # [..., ldim]
        return FactoredMatrix(self.A, self.B @ other) if self.rdim > self.mdim else FactoredMatrix(self.AB, other)

    def __rmatmul__(self, other: Any) -> Any:
        """Multiplies a matrix with this one, which gives a `FactoredMatrix`, or a vector, which gives an array."""
        other = np.asarray(other)
        if other.shape[-1] != self.ldim:
            raise InputError(f"Cannot multiply shape {list(other.shape)} by shape {list(self.shape)}.")
        if other.ndim == 1:
            return ((other @ self.A)[..., np.newaxis, :] @ self.B)[..., 0, :]  # [..., rdim]
        return FactoredMatrix(other @ self.A, self.B) if self.ldim > self.mdim else FactoredMatrix(other, self.AB)

    def __mul__(self, scalar: float) -> FactoredMatrix:
        """Multiplies every entry by a number."""
        if np.ndim(scalar):
            raise InputError("A FactoredMatrix can be multiplied by a number with *; use @ for matrices.")
        return FactoredMatrix(self.A * scalar, self.B)

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> FactoredMatrix:
        """Selects along the product's axes; a whole number for a row or column keeps that axis, with length 1."""
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in [entry for entry in index if not isinstance(entry, np.ndarray)]:
            at = next(place for place, entry in enumerate(index) if entry is Ellipsis)
            index = (*index[:at], *[slice(None)] * (self.ndim - len(index) + 1), *index[at + 1 :])
        if len(index) > self.ndim:
            raise InputError(f"{len(index)} indices are too many for a matrix of shape {list(self.shape)}.")
        leading = index[: self.ndim - 2]
        row, column = (*index[self.ndim - 2 :], slice(None), slice(None))[:2]
        left, right = self.A[leading], self.B[leading]
        return FactoredMatrix(left[..., _kept(row), :], right[..., _kept(column)])

    def unsqueeze(self, axis: int) -> FactoredMatrix:
        """Inserts a leading axis of length 1."""
        return FactoredMatrix(np.expand_dims(self.A, axis), np.expand_dims(self.B, axis))

    @cached_property
    def _svd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # The SVD of each factor is cheap, and so is that of what lies between their outer, orthogonal parts.
        left, left_values, left_right = np.linalg.svd(self.A, full_matrices=False)
        right_left, right_values, right = np.linalg.svd(self.B, full_matrices=False)
        middle = left_values[..., :, np.newaxis] * (left_right @ right_left) * right_values[..., np.newaxis, :]
        inner_left, values, inner_right = np.linalg.svd(middle, full_matrices=False)
        return left @ inner_left, values, (inner_right @ right).swapaxes(-2, -1)

    def svd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The singular value decomposition: U [..., ldim, k], S [..., k], V [..., rdim, k], with k at most mdim.

        `U @ diag(S) @ V.T` is the matrix.
        """
        return self._svd

    @property
    def U(self) -> np.ndarray:  # noqa: N802
        """Left singular vectors, [..., ldim, k]."""
        return self._svd[0]

    @property
    def S(self) -> np.ndarray:  # noqa: N802
        """Singular values, [..., k], largest first."""
        return self._svd[1]

    @property
    def V(self) -> np.ndarray:  # noqa: N802
        """Right singular vectors, [..., rdim, k]."""
        return self._svd[2]

    @property
    def Vh(self) -> np.ndarray:  # noqa: N802
        """The same as `V`: TransformerLens's older name for it."""
        return self.V

    @property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues that can be nonzero, [..., mdim], complex: those of `BA`, which is small.

        Raises:
            InputError: the product is not square.
        """
        values: np.ndarray = np.linalg.eigvals(self.BA).astype(np.complex128)
        return values

    def norm(self) -> np.ndarray:
        """The Frobenius norm, [...]."""
        norm: np.ndarray = np.sqrt((self.S**2).sum(-1))
        return norm

    def make_even(self) -> FactoredMatrix:
        """The same matrix, with the singular values shared evenly between both factors."""
        root = np.sqrt(self.S)
        return FactoredMatrix(self.U * root[..., np.newaxis, :], root[..., :, np.newaxis] * self.V.swapaxes(-2, -1))

    def collapse_l(self) -> np.ndarray:
        """`diag(S) @ V.T`, [..., k, rdim]: the matrix without its left orthogonal factor."""
        collapsed: np.ndarray = self.S[..., :, np.newaxis] * self.V.swapaxes(-2, -1)
        return collapsed

    def collapse_r(self) -> np.ndarray:
        """`U @ diag(S)`, [..., ldim, k]: the matrix without its right orthogonal factor."""
        collapsed: np.ndarray = self.U * self.S[..., np.newaxis, :]
        return collapsed

    def get_corner(self, k: int = 3) -> np.ndarray:
        """The first entries of every axis, at most `k` of each."""
        corner: np.ndarray = self[(*[slice(k)] * self.ndim,)].AB
        return corner


def composition_scores(left: FactoredMatrix, right: FactoredMatrix, broadcast_dims: bool = True) -> np.ndarray:
    """How much one matrix writes where another one reads: `norm(left @ right) / (norm(left) * norm(right))`.

    Args:
        left: the matrix that writes, [..., d_model, d_model].
        right: the matrix that reads, of the same shape.
        broadcast_dims: score each of the left ones with each of the right ones; else one by one.

    Returns:
        The scores (Elhage et al. 2021, with Frobenius norms): left's leading axes, then right's.

    Raises:
        InputError: the inner dimensions differ.
    """
    if left.rdim != right.ldim:
        raise InputError(f"Cannot compose shape {list(left.shape)} with shape {list(right.shape)}.")
    first, second = left.collapse_l(), right.collapse_r()  # norms are those of the whole products
    norms_left, norms_right = (np.linalg.norm(factor, axis=(-2, -1)) for factor in (first, second))
    if broadcast_dims:
        leading = len(left.shape) - 2, len(right.shape) - 2
        first = first.reshape(*left.shape[:-2], *[1] * leading[1], *first.shape[-2:])
        norms_left = norms_left.reshape(*left.shape[:-2], *[1] * leading[1])
    norms = np.linalg.norm(first @ second, axis=(-2, -1))
    scores: np.ndarray = norms / norms_left / norms_right
    return scores


def _kept(index: Any) -> Any:
    """The same index, with a whole number as a slice of length 1."""
    if isinstance(index, int | np.integer) and not isinstance(index, bool):
        return slice(int(index), int(index) + 1 if index != -1 else None)
    return index
