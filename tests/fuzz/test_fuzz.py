"""A few hundred damaged inputs, always the same ones; `make fuzz` tries others for as long as one likes."""

from __future__ import annotations

import pytest

from fuzz.targets import TARGETS, Fuzzer

# How many cases of each kind: some forty seconds for all of them, on two cores.
_CASES = {"bundle": 100, "prepared": 25, "trace": 200, "interventions": 200, "chain": 150, "pattern": 100}
_BATCH = 25


@pytest.fixture
def fuzzer(bundle, tmp_path, monkeypatch) -> Fuzzer:
    monkeypatch.setenv("ONNXLENS_CACHE", str(tmp_path / "cache"))
    return Fuzzer(bundle("base-gradients"), tmp_path)


@pytest.mark.parametrize(
    ("target", "first"), [(target, n) for target in TARGETS for n in range(0, _CASES[target], _BATCH)]
)
def test_damage_gives_a_clean_error_or_right_numbers(fuzzer, target, first):
    for seed in range(first, first + _BATCH):
        try:
            fuzzer.run(target, seed)
        except Exception as error:
            error.add_note(f"To try it again: PYTHONPATH=tests python -m fuzz --target {target} --seed {seed} --once")
            raise
