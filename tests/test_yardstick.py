"""The bounds of the numeric tests: they refuse mistakes, and take every rounding of float32."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from eager import Eager, Order, OrderedModel, threads, unchanged
from yardstick import DOUBLE, SINGLE, Errors, approximately, close, is_close, probable

BY_HAND = re.compile(r"assert_allclose|assert_close|\b(np|torch|math)\.(allclose|isclose)")
LARGE = np.float32([-37.4062, 1e-7])


def test_the_bound_is_relative_to_the_largest_value():
    close(LARGE + np.float32([2e-4, 1e-4]), LARGE)
    assert not is_close(LARGE * np.float32(1 + 1e-4), LARGE)
    assert not is_close(LARGE[1:] + 1e-9, LARGE[1:])
    assert approximately(-37.4060) == -37.4062
    assert approximately(-37.4062 * (1 + 1e-4)) != -37.4062
    assert approximately(2e-7) != 1e-7


def test_where_numbers_cancel_the_bound_is_relative_to_those_that_were_added():
    terms = np.float32([1000.0001, -1000])
    assert not is_close(terms.sum(), 0.0002)
    close(terms.sum(), 0.0002, scale=terms)
    assert float(terms.sum()) == approximately(0.0002, scale=terms)
    assert not is_close(1.0, 0.0, scale=terms)


def test_double_precision_is_compared_as_such():
    assert not is_close(1 + 1e-9, 1.0, within=DOUBLE)
    close(1 + 1e-13, 1.0, within=DOUBLE)


@pytest.mark.parametrize("found", [[1.0, np.nan], [1.0, np.inf], [np.nan, -np.inf], [0.0, 0.0], [1.0]])
def test_what_is_infinite_or_no_number_has_to_be_so_twice(found):
    assert not is_close(found, [1.0, -np.inf])
    close([1.0, -np.inf, np.nan], [1.0, -np.inf, np.nan])


def test_what_is_refused_is_said():
    with pytest.raises(AssertionError, match=r"^logits differs by 1, and of values up to 2 7\.15e-05 is allowed$"):
        close([2.0, 0.0], [2.0, 1.0], name="logits")
    with pytest.raises(AssertionError, match=r"^has shape \[1\], not \[2\]$"):
        close([2.0], [2.0, 1.0])


def test_probabilities_are_compared_by_their_logarithms():
    logits = np.array([50.0, 0.0, -60.0])
    expected = np.exp(logits - np.logaddexp.reduce(logits))
    moved = np.exp(logits * (1 + SINGLE / 2) - np.logaddexp.reduce(logits))
    probable(moved, expected, logits)
    with pytest.raises(AssertionError):
        probable(expected * [1, 1.01, 1], expected, logits)
    with pytest.raises(AssertionError):
        probable([1.0, 0.0, 0.0], expected, logits)


def test_errors_are_judged_by_the_worst_of_several_roundings():
    true = np.array([1.0, 2.0])

    def off_by(first, second):
        return np.float32(true + np.array([first, second]))

    roundings = [off_by(1e-6, 0), off_by(0, 1e-5)]
    errors = Errors()
    errors.add("value", off_by(1.9e-5, 0), true, roundings)
    assert not errors.too_large()
    errors.add("value", off_by(4e-5, 0), true, roundings)
    assert errors.too_large() == {"value": "4.01e-05 where PyTorch has 1.00e-05"}
    for ulps in (1, 2):  # where the references are exact by luck
        lucky = Errors(ulps)
        lucky.add("value", off_by(0, 4e-7), true, [off_by(0, 0)])
        assert bool(lucky.too_large()) == (ulps == 1)


@pytest.mark.parametrize("name", ["base", "wide", "untied", "scaled"])
def test_another_order_of_the_coordinates_is_the_same_model_and_another_rounding(runner, name):
    model = runner(name)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, model.config.d_vocab, (2, 9))
    mask = np.ones_like(ids)
    mask[0, :4] = 0
    first, second = (
        OrderedModel(model, Order(model.bundle.description, seed))(ids, mask, unchanged) for seed in (None, 1)
    )
    for point in first:
        close(second[point], first[point], name=point)
    assert all(not np.array_equal(first[f"blocks.1.{kind}"], second[f"blocks.1.{kind}"]) for kind in (
        "ln1.hook_scale", "attn.hook_q", "attn.hook_z", "attn.hook_result", "mlp.hook_pre", "hook_mlp_out",
    ))  # fmt: skip
    moved = [run["blocks.1.hook_resid_post"] for run in Eager(model, orders=2).runs(ids, mask)]
    assert len(moved) == 5
    assert len({array.tobytes() for array in moved}) >= 3  # rows alone and threads may make no difference


def test_a_change_is_made_in_the_order_of_the_checkpoint(runner):
    model = runner("base")
    ids = np.array([[1, 2, 3]])

    def change(name, value):
        return value + np.arange(value.shape[-1], dtype=np.float32) if name == "blocks.0.mlp.hook_post" else value

    with threads(1):
        first, *others = Eager(model, orders=2).runs(ids, np.ones_like(ids), change)
    for other in others:
        close(other["logits"], first["logits"])


def test_every_other_test_takes_its_bounds_from_here():
    """A bound that a test makes up is one that another processor breaks."""
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(Path(__file__).parent.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BY_HAND.search(line) and path != Path(__file__)
    ]
    assert not found, "use yardstick.close or is_close"
