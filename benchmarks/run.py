"""Measures what docs/performance.md claims, as ratios against named peers in the same run.

    python benchmarks/run.py                       # prints the tables
    python benchmarks/run.py --write               # and puts them into docs/performance.md

The checkpoint has GPT-2 124M's shape and random weights: speed and memory do not depend on their values.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import checkpoints
import click
import numpy as np
import onnxruntime
from measure import in_turn, process
from pages import publish

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "benchmarks"
PAGE = ROOT / "docs" / "performance.md"

PROMPT, NEW = 128, 64
Row = tuple[str, str, str]


@click.command()
@click.option("--tokenizer", type=click.Path(path_type=Path), help="GPT-2's tokenizer.json, so that text works.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--write", is_flag=True, help=f"Put the tables into {PAGE.relative_to(ROOT)}.")
def main(tokenizer: Path | None, threads: int, rounds: int, write: bool) -> None:
    """Measure start-up with the model that ships, and speed and memory at GPT-2 124M's shape."""
    os.environ["ONNXLENS_CACHE"] = str(WORK / "cache")
    rows = [*installation(), *start(rounds)]
    bundle = exported(tokenizer)
    rows += [*cold(bundle, rounds), *decoding(bundle, threads, rounds), *reading(bundle, threads, rounds)]
    rows += [*memory(bundle, threads), *sampling(threads, rounds)]
    lines = ["| what | measured | wanted |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    machine = (
        f"{processor()}, {threads} threads, Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}"
    )
    table = "\n".join([f"Measured on: {machine}.", "", *lines])
    publish(table, PAGE, Path(__file__).name, write=write)


def installation() -> list[Row]:
    """Size of the run-time dependencies, as files in site-packages."""
    from importlib.metadata import distribution

    from packaging.requirements import Requirement

    seen: dict[str, int] = {}
    waiting = ["onnxlens"]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        found = distribution(name)
        paths = [Path(str(found.locate_file(file))) for file in found.files or []]
        seen[name] = sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())
        needs = [Requirement(text) for text in found.requires or []]
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    seen["onnxlens"] = sum(
        path.stat().st_size
        for folder in ("onnxlens", "runtime", "plugins", "export", "models/tiny")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return [(f"installed without PyTorch ({len(seen)} packages)", f"{sum(seen.values()) / 1e6:.0f} MB", "260 MB")]


def start(rounds: int) -> list[Row]:
    """Cold processes with the model that ships."""
    python, tool = sys.executable, str(Path(sys.executable).with_name("onnxlens"))
    bare = process(python, "-c", "pass", rounds=rounds).seconds
    imported = process(python, "-c", "import onnxlens", rounds=rounds).seconds - bare
    helped = process(tool, "--help", rounds=rounds).seconds
    process(tool, "predict", "Hello")  # prepares the model, once
    predicted = process(tool, "predict", "Data visualization empowers users to", rounds=rounds).seconds
    return [
        ("`import onnxlens`, beyond Python itself", f"{imported:.3f} s", "0.15 s"),
        ("`onnxlens --help`", f"{helped:.2f} s", "0.3 s"),
        ("`onnxlens predict`, the model that ships, cold process", f"{predicted:.2f} s", "1 s"),
    ]


def exported(tokenizer: Path | None) -> Path:
    """The 124M bundle, exported anew after the exporter has changed only."""
    bundle = WORK / "gpt2"
    manifest, changed = bundle / "onnxlens.json", max(path.stat().st_mtime for path in (ROOT / "export").glob("*.py"))
    if not manifest.is_file() or manifest.stat().st_mtime < changed:
        from onnxlens.export import export

        export(checkpoints.write(WORK, "gpt2", tokenizer), bundle, force=True)
    return bundle


_FIRST_TOKEN = """
import sys, numpy as np
from onnxlens.runtime._running.runner import Runner
runner = Runner(sys.argv[1], provider="cpu", threads=int(sys.argv[2]))
print(runner.run(np.arange(5), logits="last").logits.argmax())
"""


def cold(bundle: Path, rounds: int) -> list[Row]:
    """Loading and the first token, in a process of its own."""
    import shutil

    shutil.rmtree(WORK / "cache", ignore_errors=True)
    command = [sys.executable, "-c", _FIRST_TOKEN, str(bundle), str(os.cpu_count())]
    first = process(*command).seconds
    later = process(*command, rounds=rounds).seconds
    return [
        ("load and first token, 124M, cold process", f"{later:.2f} s", "2 s"),
        ("the same the first time on a machine, which prepares the model", f"{first:.1f} s", ""),
    ]


def decoding(bundle: Path, threads: int, rounds: int) -> list[Row]:
    """Greedy decoding after a prompt, against transformers' generate and against what memory allows."""
    import torch
    from transformers import GPT2LMHeadModel

    from onnxlens.plugins.samplers import Context, Greedy
    from onnxlens.runtime._running.generation import generate_ids
    from onnxlens.runtime._running.runner import Runner

    torch.set_num_threads(threads)
    model = GPT2LMHeadModel.from_pretrained(checkpoints.write(WORK, "gpt2", None)).eval()
    model.generation_config.eos_token_id = None  # random weights may say it at any time
    runner = Runner(bundle, provider="cpu", threads=threads)
    prompt = np.random.default_rng(0).integers(0, runner.config.d_vocab, PROMPT).tolist()
    greedy, rng = Greedy(), np.random.default_rng(0)

    def choose(logits: np.ndarray, ids: np.ndarray, step: int) -> int:
        return int(np.argmax(greedy(logits[None], Context(ids[None], step, rng))))

    def ours(new: int) -> list[int]:
        return [step.token for step in generate_ids(runner, prompt, choose, max_new_tokens=new)]

    def theirs(new: int) -> list[int]:
        ids = torch.tensor([prompt])
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0
        )
        return found[0, PROMPT:].tolist()

    assert ours(8) == theirs(8)
    weights = runner.bundle.weights_bytes
    read = torch.ones(weights // 4)
    best = in_turn(
        rounds,
        ours=lambda: ours(NEW),
        ours_first=lambda: ours(1),
        theirs=lambda: theirs(NEW),
        theirs_first=lambda: theirs(1),
        # As many reads as tokens: a single one lasts milliseconds, and its best would be a moment's luck.
        memory=lambda: [read.sum() for _ in range(NEW - 1)],
    )
    rate = (NEW - 1) / (best["ours"] - best["ours_first"])
    peer = (NEW - 1) / (best["theirs"] - best["theirs_first"])
    bound = (NEW - 1) / best["memory"]
    return [
        (f"greedy decoding after {PROMPT} tokens", f"{rate:.1f} tokens/s", ""),
        ("… against transformers' `generate`", f"{rate / peer:.2f} times ({peer:.1f} tokens/s)", "2.4 times"),
        (
            "… against reading the weights once a token, the bound that memory sets",
            f"{rate / bound:.2f} ({weights * bound / 1e9:.1f} GB/s, {bound:.1f} tokens/s)",
            "0.8",
        ),
    ]


def reading(bundle: Path, threads: int, rounds: int) -> list[Row]:
    """The cost of reading hook points."""
    from onnxlens.runtime._running.runner import Runner

    runner = Runner(bundle, provider="cpu", threads=threads)
    ids = np.random.default_rng(0).integers(0, runner.config.d_vocab, PROMPT)
    best = in_turn(
        3 * rounds,
        none=lambda: runner.run(ids),
        everything=lambda: runner.run(ids, names_filter=lambda name: not name.endswith("hook_result")),
        patterns=lambda: runner.run(ids, names_filter="blocks.*.attn.hook_pattern"),
    )
    return [
        (f"a pass of {PROMPT} tokens that reads nothing", f"{best['none'] * 1e3:.0f} ms", ""),
        (
            "… reading every hook point but `hook_result`",
            f"{best['everything'] / best['none']:.2f} times",
            "1.25 times",
        ),
        ("… reading the attention patterns", f"{best['patterns'] / best['none']:.2f} times", ""),
    ]


_GENERATE = """
import sys, numpy as np
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime._running.generation import generate_ids
runner = Runner(sys.argv[1], provider="cpu", threads=int(sys.argv[2]))
print(len([s for s in generate_ids(runner, list(range(16)), lambda l, i, s: int(l.argmax()), max_new_tokens=64)]))
"""


def memory(bundle: Path, threads: int) -> list[Row]:
    """Peak resident memory of a process that generates."""
    from onnxlens.runtime._bundle.bundle import Bundle

    weights = Bundle(bundle).weights_bytes
    peak = process(sys.executable, "-c", _GENERATE, str(bundle), str(threads), rounds=3).peak
    return [
        (
            "peak resident memory of a generation, in weights",
            f"{peak / weights:.2f} ({peak / 1e6:.0f} MB)",
            "1.3",
        )
    ]


def sampling(threads: int, rounds: int) -> list[Row]:
    """What choosing a token costs through the default chain, against transformers' processors."""
    import torch
    from transformers.generation import logits_process as peer

    from onnxlens.plugins.samplers import Context, standard

    torch.set_num_threads(threads)
    logits = np.random.default_rng(0).normal(size=(1, 50_257)).astype(np.float32) * 3
    ids, times = np.zeros((1, 1), np.int64), 200
    chain, context = standard(temperature=0.8, top_k=40, top_p=0.95), Context(ids, 0, np.random.default_rng(0))
    options = peer.TemperatureLogitsWarper(0.8), peer.TopKLogitsWarper(40), peer.TopPLogitsWarper(0.95)
    processors, tensor, text = peer.LogitsProcessorList(options), torch.from_numpy(logits), torch.from_numpy(ids)
    best = in_turn(
        rounds,
        ours=lambda: [chain(logits, context) for _ in range(times)],
        theirs=lambda: [torch.multinomial(processors(text, tensor).softmax(-1), 1) for _ in range(times)],
    )
    ours, theirs = (best[name] / times * 1e3 for name in ("ours", "theirs"))
    return [
        ("choosing of 50,257 tokens: temperature, top-k 40, top-p 0.95, a draw", f"{ours:.2f} ms", "0.5 ms"),
        (
            "… against transformers' processors and `torch.multinomial`",
            f"{theirs / ours:.1f} times ({theirs:.2f} ms)",
            "",
        ),
    ]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
