"""Measures reading, changing and ablating at GPT-2 124M's shape against TransformerLens, in the same run.

    pip install transformer-lens==4.3.0            # the peer, which nothing else here needs
    python benchmarks/interpretability.py          # prints the table
    python benchmarks/interpretability.py --write  # and puts it into docs/performance.md

Both compute the logits at all positions, on the same random weights and with as many threads.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import checkpoints
import click
import numpy as np
import onnxruntime
from measure import in_turn, process
from pages import publish
from run import PAGE, ROOT, WORK, exported, processor

LENGTHS = (32, 128, 512)
ABLATED, HOOKED = 32, 128  # tokens
Row = tuple[str, str, str]


@click.command()
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--write", is_flag=True, help=f"Put the table into {PAGE.relative_to(ROOT)}.")
def main(threads: int, rounds: int, write: bool) -> None:
    """Measure against TransformerLens."""
    os.environ["ONNXLENS_CACHE"] = str(WORK / "cache")
    bundle = exported(None)
    folder = checkpoints.write(WORK, "gpt2", None)
    lens, bridge = ours(bundle, threads), theirs(folder, threads)
    rows = [*reading(lens, bridge, rounds), *memory(lens, bundle, folder, threads), *ablation(lens, bridge, rounds)]
    rows += [*functions(lens, rounds), *another_request(bundle, threads)]
    lines = ["| what | measured | wanted |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    machine = (
        f"{processor()}, {threads} threads, Python {platform.python_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}, TransformerLens {version('transformer-lens')}, "
        f"PyTorch {version('torch')}"
    )
    table = "\n".join([f"Measured on: {machine}.", "", *lines])
    publish(table, PAGE, Path(__file__).name, write=write)


def ours(bundle: Path, threads: int) -> Any:
    """The model in onnxlens."""
    import onnxlens

    return onnxlens.load(bundle, provider="cpu", threads=threads)


def theirs(folder: Path, threads: int) -> Any:
    """The model in TransformerLens, on raw weights and with its usual names of hook points."""
    import torch

    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ModuleNotFoundError as error:
        raise click.ClickException("The peer is missing: pip install transformer-lens==4.3.0") from error
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    bridge = TransformerBridge.boot_transformers(str(folder))
    bridge.enable_compatibility_mode(disable_warnings=True, no_processing=True)
    return bridge


def reading(lens: Any, bridge: Any, rounds: int) -> list[Row]:
    """Everything cached, at several lengths."""
    import torch

    rows = []
    for length in LENGTHS:
        ids = _ids(length)
        one, other = partial(lens.run_with_cache, ids), partial(bridge.run_with_cache, torch.from_numpy(ids))
        logits, cache = one()
        np.testing.assert_allclose(logits, other()[0].numpy(), atol=2e-2)
        best = in_turn(rounds, ours=one, theirs=other)
        rows.append(
            (
                f"`run_with_cache` of all {len(cache)} hook points, {length} tokens",
                f"{best['theirs'] / best['ours']:.1f} times as fast ({best['ours']:.2f} s, {best['theirs']:.2f} s)",
                "2.5 times",
            )
        )
    return rows


_OURS = "import sys; sys.path.insert(0, {folder!r}); import interpretability as b; lens = b.ours({path!r}, {threads}); "
_OURS += "lens.run_with_cache(b._ids({length}))"
_THEIRS = "import sys; sys.path.insert(0, {folder!r}); import interpretability as b, torch; "
_THEIRS += "bridge = b.theirs({path!r}, {threads}); bridge.run_with_cache(torch.from_numpy(b._ids({length})))"


def memory(lens: Any, bundle: Path, checkpoint: Path, threads: int) -> list[Row]:
    """Peak memory of a process that caches everything, at several lengths."""
    folder, rows = str(Path(__file__).parent), []
    for length in LENGTHS:
        ours, theirs = (
            process(
                sys.executable, "-c", code.format(folder=folder, path=str(path), threads=threads, length=length)
            ).peak
            for code, path in ((_OURS, bundle), (_THEIRS, checkpoint))
        )
        returned = sum(lens.estimate(_ids(length)).values())
        rows.append(
            (
                f"peak resident memory of a process that does so, {length} tokens",
                f"{ours / theirs:.2f} of TransformerLens's ({ours / 1e6:.0f} MB, of which {returned / 1e6:.0f} are "
                f"returned; {theirs / 1e6:.0f} MB)",
                "0.7",
            )
        )
    return rows


def ablation(lens: Any, bridge: Any, rounds: int) -> list[Row]:
    """Every head in turn: the loss without it."""
    import torch

    from onnxlens.analysis import ablate_heads
    from onnxlens.metrics import logit, loss

    ids = _ids(ABLATED)
    ids_theirs = torch.from_numpy(ids)
    layers, heads = lens.config.n_layers, lens.config.n_heads

    def without(layer: int, head: int) -> float:
        def zero(z: Any, hook: Any) -> Any:
            z[:, :, head] = 0
            return z

        logits = bridge.run_with_hooks(ids_theirs, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)])
        return float(torch.nn.functional.cross_entropy(logits[0, :-1], ids_theirs[0, 1:]))

    def all_of_theirs() -> np.ndarray:
        return np.array([[without(layer, head) for head in range(heads)] for layer in range(layers)])

    found = ablate_heads(lens, ids, loss())
    np.testing.assert_allclose(found.values, all_of_theirs(), atol=1e-3)
    best = in_turn(
        rounds,
        ours=lambda: ablate_heads(lens, ids, loss()),
        theirs=all_of_theirs,
        last=lambda: ablate_heads(lens, ids, logit(5)),
    )
    return [
        (
            f"ablating each of {layers * heads} heads, {ABLATED} tokens",
            f"{best['theirs'] / best['ours']:.1f} times as fast ({best['ours']:.1f} s, {best['theirs']:.1f} s)",
            "5 times",
        ),
        (
            "… where the metric looks at the last position only, at which alone onnxlens then computes logits",
            f"{best['theirs'] / best['last']:.1f} times as fast ({best['last']:.1f} s)",
            "",
        ),
    ]


def functions(lens: Any, rounds: int) -> list[Row]:
    """A Python function on every block's residual stream, which does nothing."""
    ids = _ids(HOOKED)
    hooks: list[tuple[str, Callable[..., None]]] = [("blocks.*.hook_resid_post", lambda activation, hook: None)]
    best = in_turn(
        4 * rounds,
        plain=lambda: lens.run_with_hooks(ids, []),
        hooked=lambda: lens.run_with_hooks(ids, hooks),
    )
    return [
        (
            f"a function on every block's residual stream, {HOOKED} tokens",
            f"{best['hooked'] / best['plain']:.2f} times a plain pass ({best['plain'] * 1e3:.0f} ms)",
            "1.25 times",
        )
    ]


def another_request(bundle: Path, threads: int) -> list[Row]:
    """The cost of a second request on an open model, beyond running it."""
    lens = ours(bundle, threads)
    ids = _ids(8)
    lens.run_with_cache(ids, names_filter="blocks.*.hook_resid_post")
    before, started = _resident(), time.perf_counter()
    lens.run_with_cache(ids, names_filter="blocks.*.attn.hook_pattern")
    first, memory = time.perf_counter() - started, _resident() - before
    started = time.perf_counter()
    lens.run_with_cache(ids, names_filter="blocks.*.attn.hook_pattern")
    again = time.perf_counter() - started
    return [
        ("a second request on an open model, compiled", f"{first - again:.2f} s", "0.5 s"),
        ("… and the memory it adds", f"{max(memory, 0) / 1e6:.0f} MB", "100 MB"),
    ]


def _resident() -> int:
    """Resident memory that is the process's own, in bytes: shared pages of the mapped weights do not count."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


def _ids(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50257, (1, length))


if __name__ == "__main__":
    main()
