"""The largest of many numbers, without sorting them all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxlens.runtime._running.logits import top_ids

# Few different numbers, so that many are equal, and logits that were ruled out.
numbers = st.sampled_from([-np.inf, -1.5, 0.0, 0.25, 3.0])


@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=numbers), st.integers(0, 45))
def test_the_largest_are_those_of_a_stable_sort(logits, count):
    expected = np.argsort(-logits, axis=-1, kind="stable")[:, :count]
    found = top_ids(logits, count)
    assert found.tolist() == expected.tolist()
    assert top_ids(logits[0], count).tolist() == expected[0].tolist()
