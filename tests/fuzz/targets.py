"""What is fuzzed, and what may come of it: an error that is a clean sentence, or right numbers; nothing else.

Where a file was damaged and the manifest not, "right" means as if nothing had happened, to the last bit. Where the
manifest agrees with the damage, as an attacker would see to, the model is another one: numbers of the right shape.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import numpy as np
import onnx
from damage import sign
from sampling_references import PLUGINS

import onnxlens
from fuzz.mutations import mutated_bytes, mutated_json, mutated_message, mutated_tensors, mutated_text
from onnxlens.metrics import logit
from onnxlens.plugins.samplers import parse
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._activations.trace import open_trace
from onnxlens.runtime._bundle.bundle import WEIGHTS
from onnxlens.runtime._escape import escape_controls
from onnxlens.runtime._interventions.intervention_files import read_interventions
from onnxlens.runtime._user_folders import cache_folder
from onnxlens.runtime.errors import OnnxLensError

__all__ = ["TARGETS", "Fuzzer"]

_SECONDS = 60  # for one case, which takes a fraction of one on an idle machine
_LONGEST = 4_000  # characters of an error
_TEXT = "the cat sat"
_MUTANT = "mutant"  # the name of the damaged bundle, with which its folder in the cache begins too


class Fuzzer:
    """Makes and tries cases, each from a seed.

    Args:
        bundle: an intact bundle with gradients, which is copied.
        folder: where the damaged copies go.
    """

    def __init__(self, bundle: Path, folder: Path) -> None:
        self._bundle, self._folder = bundle, folder
        self._lens = onnxlens.load(bundle, provider="cpu", threads=1)
        logits, self._cache = self._lens.run_with_cache(_TEXT)
        self._logits = logits
        self._trace = folder / "good.safetensors"
        self._cache.save(self._trace, str_tokens=self._lens.to_str_tokens(_TEXT))

    def run(self, target: str, seed: int) -> str:
        """Tries one case.

        Returns:
            What came of it, for eyes.

        Raises:
            Exception: something that should never happen.
        """
        rng = Random(f"{target} {seed}")
        with _limited(), np.errstate(all="ignore"):  # of numbers that are too large, and look it
            found = _outcome(lambda: TARGETS[target](self, rng))
        return f"error: {found}" if isinstance(found, OnnxLensError) else str(found)

    def bundle_file(self, rng: Random) -> str:
        """A file of a bundle is damaged."""
        copy = self._copy()
        name = rng.choice([str(path.relative_to(copy)) for path in sorted(copy.rglob("*")) if path.is_file()])
        (copy / name).write_bytes(self._damaged(rng, copy / name))
        signed = False
        if name != "onnxlens.json" and rng.random() < 0.85:
            with suppress(OnnxLensError):  # a header of weights that cannot be read has no hash
                sign(copy, name)
                signed = True
        self._use(copy, exact=not signed)
        return f"{name} works, {'signed' if signed else 'not signed'}"

    def prepared_file(self, rng: Random) -> str:
        """A file that was prepared of a bundle is damaged."""
        copy = self._copy()
        onnxlens.load(copy, provider="cpu", threads=1)
        (folder,) = (path for path in cache_folder().iterdir() if path.name.startswith(_MUTANT))
        path = rng.choice(sorted(folder.iterdir()))
        path.chmod(0o600)
        path.write_bytes(self._damaged(rng, path))
        self._use(copy, exact=True)
        return f"{path.name} works"

    def trace(self, rng: Random) -> str:
        """A trace is damaged."""
        path = self._folder / "bad.safetensors"
        path.unlink(missing_ok=True)
        path.write_bytes(mutated_tensors(rng, self._trace.read_bytes()))
        alone = open_trace(path)
        done = _use_cache(alone, rng, self._folder)
        _outcome(lambda: open_trace(path, model=self._lens).accumulated_resid(return_labels=True))
        _outcome(lambda: open_trace(path, verify=True))
        entry = {"hook": rng.choice(("*", "hook_embed", "blocks.*.attn.hook_z")), "operation": "patch"}
        self._intervene([{**entry, "value": {"trace": str(path)}}], rng)
        return f"{done} methods of the trace work"

    def interventions(self, rng: Random) -> str:
        """A file of interventions is damaged."""
        return self._intervene(_INTERVENTIONS if rng.random() < 0.3 else [rng.choice(_INTERVENTIONS)], rng, damage=True)

    def chain(self, rng: Random) -> str:
        """A chain of samplers is damaged."""
        text = " | ".join(rng.sample(_STAGES, rng.choice((1, 2, 3))))
        text = mutated_text(rng, text)
        chain = parse(text, PLUGINS)
        generation = self._lens.generate(_TEXT, max_new_tokens=2, sampler=text, seed=rng.choice((0, 1, None)))
        for token in generation:
            assert 0 <= token.id < self._lens.config.d_vocab
        return f"{chain} draws"

    def pattern(self, rng: Random) -> str:
        """The name or glob of a hook point is damaged."""
        known = ["blocks.*.attn.hook_q", "hook_embed", "resid_post.1", "blocks.[01].*", "blocks.0.ln1.hook_scale", "*"]
        patterns = [mutated_text(rng, rng.choice(known)) for _ in range(rng.choice((1, 1, 2)))]
        _, cache = self._lens.run_with_cache(_TEXT, names_filter=patterns)
        assert all(np.array_equal(cache[name], self._cache[name]) for name in cache if name in self._cache)
        _outcome(lambda: self._cache[rng.choice(patterns)])
        return f"{len(cache)} hook points"

    def _copy(self) -> Path:
        copy = self._folder / _MUTANT
        shutil.rmtree(copy, ignore_errors=True)
        for path in cache_folder().glob(f"*{_MUTANT}*"):
            shutil.rmtree(path, ignore_errors=True)
        return Path(shutil.copytree(self._bundle, copy))

    def _damaged(self, rng: Random, path: Path) -> bytes:
        """The content of a file of a bundle, damaged with knowledge of its format."""
        content = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.9:
            return mutated_json(rng, json.loads(content))
        if path.suffix == ".onnx" and rng.random() < 0.85:
            return mutated_message(rng, onnx.load_from_string(content))
        if path.name == Path(WEIGHTS).name:
            return mutated_tensors(rng, content)
        return mutated_bytes(rng, content)

    def _use(self, folder: Path, *, exact: bool) -> None:
        """Opens a bundle and does a little of everything with it."""
        lens = onnxlens.load(folder, provider="cpu", threads=1)
        logits, cache = lens.run_with_cache(np.asarray(self._cache.tokens))
        assert logits.shape == (*self._cache.tokens.shape, lens.config.d_vocab)
        if exact:
            assert np.array_equal(logits, self._logits), "the numbers differ, and nothing was said"
            assert all(np.array_equal(cache[name], self._cache[name]) for name in self._cache), "a hook point differs"
        _outcome(lambda: lens.predict(_TEXT).top[0].token)
        _outcome(lambda: lens.generate(_TEXT, max_new_tokens=2, temperature=0).text)
        _outcome(lambda: cache.accumulated_resid(incl_mid=True))
        _outcome(lambda: cache.logit_attrs(cache.accumulated_resid(), 0))
        if lens.runner.bundle.has_gradients:
            _outcome(lambda: lens.grad(_TEXT, metric=logit(3)))

    def _intervene(self, document: Any, rng: Random, *, damage: bool = False) -> str:
        path = self._folder / "interventions.json"
        path.write_bytes(mutated_json(rng, document) if damage else json.dumps(document).encode())
        shutil.copyfile(self._trace, self._folder / "trace.safetensors")
        changes = read_interventions(path)
        logits = self._lens.run_with_hooks(_TEXT, (), interventions=changes)
        assert logits.shape == self._logits.shape
        return f"{len(changes)} interventions work"


TARGETS: dict[str, Callable[[Fuzzer, Random], str]] = {
    "bundle": Fuzzer.bundle_file,
    "prepared": Fuzzer.prepared_file,
    "trace": Fuzzer.trace,
    "interventions": Fuzzer.interventions,
    "chain": Fuzzer.chain,
    "pattern": Fuzzer.pattern,
}

_INTERVENTIONS: list[dict[str, Any]] = [
    {"hook": "blocks.0.attn.hook_z", "operation": "zero", "heads": [1, 2]},
    {"hook": "blocks.1.hook_resid_post", "operation": "scale", "factor": 2.0, "positions": "1:"},
    {"hook": ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"], "operation": "replace", "value": 1.5, "neurons": 3},
    {"hook": "blocks.0.hook_mlp_out", "operation": "add", "value": [[[0.5] * 32]], "factor": -1, "positions": [0, -1]},
    {"hook": "blocks.*.attn.hook_pattern", "operation": "freeze", "value": {"trace": "trace.safetensors"}},
    {"hook": "blocks.0.hook_resid_mid", "operation": "patch", "value": {"trace": "trace.safetensors"}, "rows": 0},
    {
        "hook": "blocks.1.attn.hook_z",
        "operation": "mean",
        "value": {"trace": "trace.safetensors", "per_position": True},
    },
    {"hook": "blocks.0.attn.hook_attn_scores", "operation": "replace", "value": 0, "heads": "0:2", "keys": "::2"},
]

_STAGES = [
    "repetition_penalty=1.1", "top_k=40", "top_p=0.95", "temperature=0.8", "xtc(probability=0.5, threshold=0.2)",
    r"dry(breakers=['\n', ',', 7])", "bad_words=[' a|b', 5, [1, 2]]", "suppress_tokens=[1]", "min_p=0.05", "greedy",
    "logit_bias={5: 1, ' t': -2.5}", "forced_bos=' t'", "mirostat=3", "typical_p=0.9", "eta_cutoff=0.001", "tfs_z=0.9",
    "no_repeat_ngram_size=2", "dynatemp=0.5", "regex='[a-z ]+'", "json_schema={'type': 'object'}", "top_n_sigma=1.0",
    "multinomial", "min_length=1",
]  # fmt: skip


def _use_cache(cache: ActivationCache, rng: Random, folder: Path) -> int:
    """Calls what a cache can do; returns how many calls gave no error."""
    name = rng.choice(list(cache) or ["hook_embed"])
    calls: list[Callable[[], Any]] = [
        lambda: repr(cache),
        cache._repr_html_,
        lambda: cache.nbytes,
        lambda: [value.tobytes() for value in cache.values()],
        lambda: cache[name],
        lambda: cache["q", 0],
        lambda: "pattern.0" in cache,
        cache.remove_batch_dim,
        lambda: cache.to_dataframe(name),
        lambda: cache.stack_activation("z"),
        lambda: cache.accumulated_resid(incl_mid=True, apply_ln=True, return_labels=True),
        lambda: cache.accumulated_resid(0, pos_slice=-1),
        lambda: cache.decompose_resid(apply_ln=True, return_labels=True),
        lambda: cache.decompose_resid(1, mlp_input=True),
        lambda: cache.apply_ln_to_stack(cache.decompose_resid(mode="attn"), 1, mlp_input=True),
        lambda: cache.stack_head_results(apply_ln=True),
        lambda: cache.get_neuron_results(0),
        lambda: cache.stack_neuron_results(1, apply_ln=True),
        lambda: cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=True),
        lambda: cache.logit_attrs(cache.decompose_resid(), 3, pos_slice=-1),
        cache.folded,
        lambda: cache.save(folder / "again.safetensors"),
    ]
    return sum(not isinstance(_outcome(call), OnnxLensError) for call in calls)


def _outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the error that it raises; an error must be one sentence or two, for eyes."""
    try:
        return call()
    except OnnxLensError as error:
        text = str(error)
        assert text.strip(), "an error without words"
        assert len(text) <= _LONGEST, f"an error of {len(text)} characters: {text[:200]}"
        assert escape_controls(text) == text, f"an error with control characters: {text!r:.300}"
        return error


class SlowError(Exception):
    """A case takes too long. It is no OnnxLensError, so that nothing takes it for a clean outcome."""


@contextmanager
def _limited() -> Iterator[None]:
    """Ends a case that takes too long."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SlowError(f"it takes more than {_SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
