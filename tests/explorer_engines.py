"""The engines of the explorer's page answer alike: what their tests ask, and how answers are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from yardstick import close

from onnxlens.plugins.explorer import Engine
from onnxlens.plugins.explorer._requests import ContinueRequest, RunRequest, SweepRequest, TokenizeRequest

__all__ = ["ENGINES", "answered", "compared", "same"]

# Asks the page's engine, whichever it is; an answer has facts and arrays, or an error.
ENGINES = """async ([requests]) => {
  const found = [];
  for (const [method, request] of requests) {
    try {
      if (method === "continue") {
        const tokens = [];
        // What the interface names; the server adds why each was chosen.
        for await (const { id, text, label, logprob, seed } of window.onnxlensEngine.continue(request))
          tokens.push({ id, text, label, logprob, seed });
        found.push({ facts: { tokens }, arrays: {} });
        continue;
      }
      const answer = await window.onnxlensEngine[method](request);
      const arrays = Object.entries(answer.arrays ?? {}).map(([name, one]) => [name, [one.shape, [...one.data]]]);
      found.push({ facts: answer.facts ?? answer, arrays: Object.fromEntries(arrays) });
    } catch (error) {
      found.push({ error: error.message });
    }
  }
  return found;
}"""

# Facts with numbers in them, which differ by rounding.
_ROUNDED = ("chain", "promoted", "effects", "tokens", "baseline", "corrupted", "accuracy", "edits")


def same(expected: dict[str, Any], found: dict[str, Any], request: Any, *, own: tuple[str, ...] = ()) -> int:
    """Checks that two engines answered the same, up to rounding; returns how many numbers were compared.

    Args:
        expected: what one answered.
        found: what the other one answered; it may name more tokens.
        request: what was asked.
        own: facts that differ from engine to engine.
    """
    assert "error" not in expected and "error" not in found, (request, expected.get("error"), found.get("error"))
    assert set(expected["arrays"]) == set(found["arrays"]), request
    compared = 0
    for name, (shape, values) in expected["arrays"].items():
        assert found["arrays"][name][0] == shape, (request, name)
        one, other = (np.array(each, np.float64) for each in (found["arrays"][name][1], values))
        assert np.array_equal(np.isfinite(one), np.isfinite(other)), (request, name)
        close(one[np.isfinite(one)], other[np.isfinite(other)], name=f"{request} {name}")
        compared += len(values)
    for name, value in expected["facts"].items():
        if name in own:
            continue
        if name == "labels":
            assert value.items() <= found["facts"][name].items(), request
        elif name in _ROUNDED:
            where = f"{request} {name}"
            one, other = np.array([*_pairs(value, found["facts"][name], where)]).reshape(-1, 2).T
            close(one, other, name=where)
        else:
            assert found["facts"][name] == value, (request, name)
    return compared


def _pairs(expected: Any, found: Any, where: str) -> Iterator[tuple[float, float]]:
    """The fractions in facts, in pairs; everything else is compared. JavaScript writes 0.0 as 0."""
    if isinstance(expected, float):
        yield found, expected
    elif isinstance(expected, dict):
        assert expected.keys() == found.keys(), where
        for name, one in expected.items():
            yield from _pairs(one, found[name], where)
    elif isinstance(expected, list):
        assert len(expected) == len(found), where
        for one, other in zip(expected, found, strict=True):
            yield from _pairs(one, other, where)
    else:
        assert found == expected, where


def answered(engine: Engine, method: str, request: dict[str, Any]) -> dict[str, Any]:
    """What the engine in Python answers, as the page's would."""
    if method == "tokenize":
        return {"facts": json.loads(json.dumps(engine.tokenize(TokenizeRequest(**request)))), "arrays": {}}
    if method == "continue":
        tokens = list(engine.continuation(ContinueRequest(**request)))
        names = ("id", "text", "label", "logprob", "seed")
        return {"facts": {"tokens": [{name: one[name] for name in names} for one in tokens]}, "arrays": {}}
    answer = engine.run(RunRequest(**request)) if method == "run" else engine.sweep(SweepRequest(**request))
    arrays = {name: [list(array.shape), array.ravel().tolist()] for name, array in answer.arrays.items()}
    return {"facts": json.loads(json.dumps(answer.facts)), "arrays": arrays}


def compared(page: Any, engine: Engine, asked: list[Any]) -> int:
    """Asks the page's engine and the one in Python, and counts the numbers that were compared."""
    found = page.evaluate(ENGINES, [asked])
    return sum(same(answered(engine, *one), answer, one) for one, answer in zip(asked, found, strict=True))
