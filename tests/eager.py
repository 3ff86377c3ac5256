"""A runner's model in PyTorch float32, rounded in several ways: the reference that errors are measured against.

No processor, number of threads or batch size has a claim to the one right rounding. The same formulas in float32 give
other last bits when sums are taken in another order, and the tests' verdict must not depend on which order this
machine's libraries happen to choose. So the reference is computed several times, and the worst of them counts:

- as PyTorch does it;
- each row of the batch alone, for which PyTorch uses other matrix products;
- with two threads;
- with the coordinates of the residual stream, of the heads and of the neurons permuted. The model is the same, and
  every sum over coordinates is taken in another order;
- with some values of the residual stream moved by one ulp before each block: a difference so small that an
  implementation may make it, and what the model makes of it is its own doing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from onnxlens.export._gradient_graph import with_gradients
from onnxlens.export.families import Family, family_of
from onnxlens.runtime._bundle.bundle import CONFIG, Bundle
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._graphs.names import cache_shape
from onnxlens.runtime._running.runner import Runner

__all__ = ["Change", "Eager", "Order", "OrderedModel", "Values", "autograd", "unchanged"]

Values = dict[str, np.ndarray]
Change = Callable[[str, np.ndarray], np.ndarray]

# Which coordinates the axes of each parameter count, by the end of its name; `heads` are d_head coordinates per head.
_AXES: dict[str, tuple[str, ...]] = {
    "wte.weight": ("", "d_model"),
    "lm_head.weight": ("", "d_model"),
    "wpe.weight": ("", "d_model"),
    "ln_1.weight": ("d_model",),
    "ln_1.bias": ("d_model",),
    "ln_2.weight": ("d_model",),
    "ln_2.bias": ("d_model",),
    "ln_f.weight": ("d_model",),
    "ln_f.bias": ("d_model",),
    "attn.c_attn.weight": ("d_model", "three times heads"),
    "attn.c_attn.bias": ("three times heads",),
    "attn.c_proj.weight": ("heads", "d_model"),
    "attn.c_proj.bias": ("d_model",),
    "mlp.c_fc.weight": ("d_model", "d_mlp"),
    "mlp.c_fc.bias": ("d_mlp",),
    "mlp.c_proj.weight": ("d_mlp", "d_model"),
    "mlp.c_proj.bias": ("d_model",),
    "embed_tokens.weight": ("", "d_model"),
    "layernorm.weight": ("d_model",),
    "norm.weight": ("d_model",),
    "rotary_emb.inv_freq": ("pairs",),
    "q_proj.weight": ("d_model", "heads"),
    "q_proj.bias": ("heads",),
    "k_proj.weight": ("d_model", "kv_heads"),
    "k_proj.bias": ("kv_heads",),
    "v_proj.weight": ("d_model", "kv_heads"),
    "v_proj.bias": ("kv_heads",),
    "o_proj.weight": ("heads", "d_model"),
    "o_proj.bias": ("d_model",),
    "gate_proj.weight": ("d_model", "d_mlp"),
    "gate_proj.bias": ("d_mlp",),
    "up_proj.weight": ("d_model", "d_mlp"),
    "up_proj.bias": ("d_mlp",),
    "down_proj.weight": ("d_mlp", "d_model"),
    "down_proj.bias": ("d_model",),
}


def family_in(bundle: Bundle) -> Family:
    """The model of a bundle, as its family describes it."""
    entries = json.loads(bundle.read(CONFIG))
    return family_of(entries["model_type"], "here")(entries, "here")


def unchanged(name: str, value: np.ndarray) -> np.ndarray:
    """Leaves a value as it is."""
    return value


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Models this small gain nothing from threads, which wait for each other when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Order:
    """An order of a model's coordinates: that of the checkpoint, or for a seed a random one."""

    def __init__(self, model: ModelDescription, seed: int | None = None) -> None:
        rng, config = np.random.default_rng(seed), model.cfg
        sizes = {"d_model": config.d_model, "d_head": config.d_head, "d_mlp": config.d_mlp}
        self._places = {
            axis: np.arange(size) if seed is None else rng.permutation(size) for axis, size in sizes.items()
        }
        if config.positional_embedding_type == "rotary":  # coordinates i and i + d / 2 are rotated together
            pairs = config.d_head // 2
            self._places["pairs"] = np.arange(pairs) if seed is None else rng.permutation(pairs)
            self._places["d_head"] = np.concatenate([self._places["pairs"], self._places["pairs"] + pairs])
        for axis, heads in (("heads", config.n_heads), ("kv_heads", config.key_value_heads)):
            self._places[axis] = (np.arange(heads)[:, None] * config.d_head + self._places["d_head"]).ravel()
        width = len(self._places["heads"])
        self._places["three times heads"] = (np.arange(3)[:, None] * width + self._places["heads"]).ravel()
        self._last = {point.name: point.axes[-1] for point in model.hook_points}

    def of_weight(self, name: str, value: np.ndarray) -> np.ndarray:
        """A parameter in this order."""
        axes = next(axes for end, axes in _AXES.items() if name.endswith(end))
        for axis, kind in enumerate(axes):
            if kind:
                value = np.take(value, self._places[kind], axis)
        return value

    def of_value(self, name: str, value: np.ndarray) -> np.ndarray:
        """A hook point's value in this order."""
        places = self._places.get(self._last.get(name, ""))
        return value if places is None else value[..., places]

    def back(self, name: str, value: np.ndarray) -> np.ndarray:
        """A hook point's value in the order of the checkpoint."""
        places = self._places.get(self._last.get(name, ""))
        return value if places is None else value[..., np.argsort(places)]


class OrderedModel:
    """A model in PyTorch, with its coordinates in some order."""

    def __init__(self, runner: Runner, order: Order, dtype: torch.dtype = torch.float32) -> None:
        family = family_in(runner.bundle)
        self.config, self.order, self._described = runner.config, order, runner.bundle.description
        self.weights = {
            name: torch.from_numpy(np.array(order.of_weight(name, value))).to(dtype)
            for name, value in runner.bundle.weights.items()
        }
        if self.config.tie_word_embeddings:
            self.weights[family.UNEMBEDDING] = self.weights[family.EMBEDDING]
        with torch.device("meta"):
            self.module = family.module().eval()
        self.module.load_state_dict(self.weights, assign=True)

    def __call__(self, ids: np.ndarray, mask: np.ndarray, change: Change) -> Values:
        """All hook points and logits."""
        config, values = self.config, dict[str, torch.Tensor]()

        def changed(name: str, value: torch.Tensor) -> torch.Tensor:
            new = change(name, self.order.back(name, value.numpy())).astype(np.float32)
            values[name] = torch.from_numpy(np.ascontiguousarray(self.order.of_value(name, new)))
            return values[name]

        def tap(name: str, value: torch.Tensor) -> torch.Tensor:
            if name.endswith("hook_attn_out"):  # the results of the heads are on no path of the model
                layer = name.split(".")[1]
                z = values[f"blocks.{layer}.attn.hook_z"].transpose(1, 2)  # [B, H, P, d]
                stored = self._described.tensor(f"blocks.{layer}.attn.W_O")
                w_o = self.weights[stored].reshape(config.n_heads, config.d_head, -1)
                result = (z @ w_o).transpose(1, 2)  # [B, P, H, D]
                value = value + (changed(f"blocks.{layer}.attn.hook_result", result) - result).sum(2)
            return changed(name, value)

        nothing = torch.zeros(cache_shape(config, len(ids), 0))
        arguments = (torch.from_numpy(np.ascontiguousarray(array)) for array in (ids, mask, _positions(mask)))
        with torch.inference_mode():
            values["logits"], _ = self.module(*arguments, [(nothing, nothing)] * config.n_layers, tap)
        return {name: self.order.back(name, value.numpy()) for name, value in values.items()}


def _positions(mask: np.ndarray) -> np.ndarray:
    return np.maximum(np.cumsum(mask, axis=1) - 1, 0)


def _nudged(change: Change, seed: int) -> Change:
    """A change, and the residual stream before each block rounded another way: some values by one ulp."""
    rng = np.random.default_rng(seed)

    def one(name: str, value: np.ndarray) -> np.ndarray:
        value = change(name, value)
        if not name.endswith("hook_resid_pre"):
            return value
        return np.nextafter(value, value + rng.integers(-1, 2, value.shape).astype(value.dtype), dtype=value.dtype)

    return one


@dataclass(frozen=True)
class Gradients:
    """Logits, the hook points' values, and the gradients at them."""

    logits: np.ndarray
    values: Values
    gradients: Values


class Eager:
    """A runner's model in PyTorch float32, without a graph.

    Args:
        runner: the model.
        orders: with how many further orders of its coordinates it is computed.
    """

    def __init__(self, runner: Runner, orders: int = 8) -> None:
        self._runner = runner
        self._model = OrderedModel(runner, Order(runner.bundle.description))
        self._others = [OrderedModel(runner, Order(runner.bundle.description, seed)) for seed in range(orders)]

    def runs(self, ids: np.ndarray, mask: np.ndarray, change: Change = unchanged) -> Iterator[Values]:
        """All hook points and logits, in one rounding after the other.

        Args:
            ids: [B, P].
            mask: [B, P].
            change: what the pass changes: from a hook point's name and value to a new value, in the order of the
                checkpoint. It may depend on the row, so a changed pass is always run as one batch.
        """
        with threads(1):
            yield self._model(ids, mask, change)
            for seed, model in enumerate(self._others):
                yield model(ids, mask, _nudged(change, seed))
            if change is unchanged and len(ids) > 1:
                rows = [self._model(ids[row : row + 1], mask[row : row + 1], change) for row in range(len(ids))]
                yield {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        if change is unchanged:
            with threads(2):
                yield self._model(ids, mask, change)

    def gradients(self, ids: np.ndarray, mask: np.ndarray, cotangent: np.ndarray) -> Iterator[Values]:
        """The gradients of sum(cotangent * logits) at every hook point, in one rounding after the other.

        Args:
            ids: [B, P].
            mask: [B, P].
            cotangent: [B, P, V].
        """
        with threads(1):
            yield _autograd(self._model, ids, mask, cotangent).gradients
            if len(ids) > 1:
                rows = [
                    _autograd(self._model, *(array[row : row + 1] for array in (ids, mask, cotangent))).gradients
                    for row in range(len(ids))
                ]
                yield {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            for model in self._others:
                yield _autograd(model, ids, mask, cotangent).gradients
        with threads(2):
            yield _autograd(self._model, ids, mask, cotangent).gradients


def autograd(
    runner: Runner, ids: np.ndarray, mask: np.ndarray, cotangent: np.ndarray, dtype: torch.dtype = torch.float64
) -> Gradients:
    """Logits, values and gradients from PyTorch's autograd, in float64 unless told otherwise."""
    with threads(1):
        return _autograd(OrderedModel(runner, Order(runner.bundle.description), dtype), ids, mask, cotangent)


def _autograd(model: OrderedModel, ids: np.ndarray, mask: np.ndarray, cotangent: np.ndarray) -> Gradients:
    dtype = next(iter(model.weights.values())).dtype
    arrays = (torch.from_numpy(np.ascontiguousarray(array)) for array in (ids, mask, _positions(mask)))
    given = torch.from_numpy(np.ascontiguousarray(cotangent)).to(dtype)
    logits, values, gradients = with_gradients(model.module, model.weights, *arrays, given)
    arrange = model.order.back
    return Gradients(
        logits.detach().double().numpy(),
        {name: arrange(name, value.detach().double().numpy()) for name, value in values.items()},
        {name: arrange(name, value.double().numpy()) for name, value in gradients.items()},
    )
