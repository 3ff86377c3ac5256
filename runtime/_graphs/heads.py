"""The results of heads, which are computed on request: the product of an activation with a weight, head by head."""

from __future__ import annotations

from onnxlens.runtime._graphs.graph import Graph

__all__ = ["add_head_results"]


def add_head_results(graph: Graph, name: str, *, changed: bool) -> None:
    """Computes a product head by head: [B, P, H, d] and [H, d, D] to [B, P, H, D].

    Where the results will be changed, the sum of the differences over the heads is added to the attention's output,
    rather than replacing it by the sum of the heads. Without a change, the difference is 0 and no bit differs.

    Args:
        graph: the graph.
        name: the hook point, which has a `product`.
        changed: whether it will be changed.
    """
    product = graph.model.points[name].product
    assert product is not None  # as it is computed on request
    graph.add_weight(product.weight, f"{name}.weight")  # [H, d, D]
    graph.add("Transpose", [product.activation], f"{name}.activation", perm=[0, 2, 1, 3])  # [B, H, P, d]
    graph.add("MatMul", [f"{name}.activation", f"{name}.weight"], f"{name}.heads")  # [B, H, P, D]
    graph.add("Transpose", [f"{name}.heads"], name, perm=[0, 2, 1, 3])  # [B, P, H, D]
    if changed:
        out = product.added_to
        plain, original = f"{out}.plain", f"{name}.original"
        graph.rename_output(out, plain)
        graph.rename_output(name, original)
        graph.add("Identity", [original], name)
        graph.add("Sub", [name, original], f"{name}.difference")  # [B, P, H, D]
        axis = graph.constant("result.axis", [2])
        graph.add("ReduceSum", [f"{name}.difference", axis], f"{name}.sum", keepdims=0)  # [B, P, D]
        graph.add("Add", [plain, f"{name}.sum"], out)
        graph.check(out, plain)
    graph.check(name)
