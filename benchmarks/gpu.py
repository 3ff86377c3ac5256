"""Measures what docs/performance.md says of CUDA, as ratios against transformers on the same GPU, and prints the table.

    python benchmarks/gpu.py                       # prints the table
    python benchmarks/gpu.py --write               # and puts it into docs/performance.md

It needs an NVIDIA GPU, onnxruntime-gpu in place of onnxruntime, and a PyTorch that is built for CUDA. The checkpoint
has GPT-2 124M's shape and random weights: speed and memory do not depend on their values. Both compute in float32,
without TF32.
"""

from __future__ import annotations

import os
import platform
from functools import partial
from pathlib import Path

import checkpoints
import click
import numpy as np
import onnxruntime
from measure import in_turn
from pages import publish
from run import NEW, PAGE, PROMPT, WORK, exported

from onnxlens.runtime._running.generation import generate_ids
from onnxlens.runtime._running.runner import Runner

LENGTHS = (PROMPT, 1024)


@click.command()
@click.option("--tokenizer", type=click.Path(path_type=Path), help="GPT-2's tokenizer.json.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--write", is_flag=True, help="Put the table into docs/performance.md.")
def main(tokenizer: Path | None, rounds: int, write: bool) -> None:
    """Measure CUDA at GPT-2 124M's shape."""
    import torch
    import transformers

    os.environ["ONNXLENS_CACHE"] = str(WORK / "cache")
    rows = measured(exported(tokenizer), rounds)
    lines = ["| what | onnxlens | transformers | ratio |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    machine = (
        f"{torch.cuda.get_device_name()}, Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}, "
        f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
    )
    table = "\n".join([f"Measured on: {machine}.", "", *lines])
    publish(table, PAGE, Path(__file__).name, write=write)


def measured(bundle: Path, rounds: int) -> list[tuple[str, ...]]:
    """Passes, decoding and reading, the errors against the CPU, and the GPU's memory."""
    import torch
    from transformers import GPT2LMHeadModel

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    free = torch.cuda.mem_get_info()[0]
    runner = Runner(bundle, provider="cuda")
    ids = np.random.default_rng(0).integers(0, runner.config.d_vocab, max(LENGTHS))
    runner.run(ids[:PROMPT], logits="last")
    taken = free - torch.cuda.mem_get_info()[0]
    model = GPT2LMHeadModel.from_pretrained(checkpoints.write(WORK, "gpt2", None)).eval().cuda()
    model.generation_config.eos_token_id = None  # random weights may say it at any time
    cpu = Runner(bundle, provider="cpu")
    rows = []

    def theirs(length: int, **options: bool) -> torch.Tensor:
        with torch.no_grad():
            found = model(torch.from_numpy(ids[None, :length]).cuda(), logits_to_keep=1, **options)
        torch.cuda.synchronize()
        return found.logits

    for length in LENGTHS:
        text = ids[:length]
        best = in_turn(
            3 * rounds, ours=partial(runner.run, text, logits="last"), theirs=lambda text=text: theirs(len(text))
        )
        rows.append(_row(f"a pass of {length} tokens, the last logits", best["ours"], best["theirs"]))
        expected = cpu.run(text, logits="last").logits
        off = np.abs(runner.run(text, logits="last").logits - expected).max() / np.abs(expected).max()
        other = np.abs(theirs(length).cpu().numpy()[:, -1] - expected.reshape(1, -1)).max() / np.abs(expected).max()
        rows.append(("… difference of the logits from the CPU's, in the largest", f"{off:.1e}", f"{other:.1e}", ""))
    best = in_turn(
        rounds,
        ours=lambda: _ours(runner, ids[:PROMPT].tolist(), NEW),
        ours_first=lambda: _ours(runner, ids[:PROMPT].tolist(), 1),
        theirs=lambda: _theirs(model, ids[:PROMPT], NEW),
        theirs_first=lambda: _theirs(model, ids[:PROMPT], 1),
    )
    ours, peer = ((best[name] - best[f"{name}_first"]) / (NEW - 1) for name in ("ours", "theirs"))
    rows.append(
        (
            f"greedy decoding after {PROMPT} tokens",
            f"{1 / ours:.0f} tokens/s",
            f"{1 / peer:.0f} tokens/s",
            f"{peer / ours:.2f}",
        )
    )
    text = ids[:PROMPT]
    best = in_turn(
        3 * rounds,
        none=lambda: runner.run(text),
        everything=lambda: runner.run(text, names_filter=lambda name: not name.endswith("hook_result")),
        patterns=lambda: runner.run(text, names_filter="blocks.*.attn.hook_pattern"),
    )
    rows.append((f"a pass of {PROMPT} tokens, logits of all", f"{best['none'] * 1e3:.1f} ms", "", ""))
    for what, name in (("every hook point but `hook_result`", "everything"), ("the attention patterns", "patterns")):
        rows.append((f"… reading {what}", f"{best[name] / best['none']:.2f} times", "", ""))
    rows.append(
        ("GPU memory of the model and a pass, in weights", f"{taken / runner.bundle.weights_bytes:.2f}", "", "")
    )
    return rows


def _row(what: str, ours: float, theirs: float) -> tuple[str, ...]:
    return what, f"{ours * 1e3:.1f} ms", f"{theirs * 1e3:.1f} ms", f"{theirs / ours:.2f}"


def _ours(runner: Runner, prompt: list[int], new: int) -> list[int]:
    steps = generate_ids(runner, prompt, lambda logits, ids, step: int(logits.argmax()), max_new_tokens=new)
    return [step.token for step in steps]


def _theirs(model: object, prompt: np.ndarray, new: int) -> list[int]:
    import torch

    ids = torch.from_numpy(prompt[None]).cuda()
    found = model.generate(  # type: ignore[attr-defined]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0
    )
    return found[0, PROMPT:].tolist()


if __name__ == "__main__":
    main()
