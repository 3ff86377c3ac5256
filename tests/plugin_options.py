"""Options for the built-in samplers and views that cannot be made without, or are of little use."""

from __future__ import annotations

from typing import Any

SAMPLERS: dict[str, dict[str, Any]] = {
    "top_k": {"k": 3},
    "top_p": {"p": 0.9},
    "min_p": {"p": 0.1},
    "typical_p": {"p": 0.9},
    "epsilon_cutoff": {"epsilon": 0.01},
    "eta_cutoff": {"epsilon": 0.01},
    "tfs_z": {"z": 0.9},
    "top_n_sigma": {"n": 1.0},
    "top_h": {"h": 0.5},
    "xtc": {"probability": 0.5},
    "temperature": {"temperature": 0.7},
    "dynatemp": {"range": 0.5},
    "logit_bias": {"bias": {0: 1.0}},
    "bad_words": {"words": [[0]]},
    "suppress_tokens": {"tokens": [0]},
    "min_length": {"length": 5},
    "min_new_tokens": {"tokens": 5},
    "forced_bos": {"token": 0},
    "exponential_decay_length_penalty": {"start": 1, "factor": 1.1},
    "repetition_penalty": {"penalty": 1.2},
    "presence_penalty": {"penalty": 0.5},
    "frequency_penalty": {"penalty": 0.5},
    "no_repeat_ngram_size": {"size": 2},
    "regex": {"pattern": "[a-z]+( [a-z0-9]+)*"},
    "json_schema": {"schema": {"type": "string"}},
    "lark": {"grammar": 'start: word (" " word)*\nword: /[a-z]/ | word /[a-z0-9]/'},
}

VIEWS: dict[str, dict[str, Any]] = {
    "compare": {"of": "attention", "other_text": "the sat sat on the cat"},
    "patching": {"corrupted": "the sat sat on the cat"},
}
