"""Optimum's ORTModelForCausalLM, with transformers' tokenizer and generation."""

from __future__ import annotations

import torch
from cases import cases, checking, close
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

for case in cases():
    with checking(case, "logits"):
        model = ORTModelForCausalLM.from_pretrained(case.bundle)
        ids, mask = (torch.tensor(case.values[name]) for name in ("input_ids", "attention_mask"))
        positions = torch.tensor(case.values["position_ids"])
        found = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        close(found.numpy(), case.values["logits"], "logits")
    with checking(case, "tokens"):
        tokenizer = AutoTokenizer.from_pretrained(case.bundle)
        for prompt, expected, greedy in zip(case.prompts, case.ids, case.greedy, strict=True):
            one = tokenizer(prompt, return_tensors="pt")
            assert one["input_ids"][0].tolist() == expected, f"{prompt!r} has other tokens"
            made = model.generate(**one, max_new_tokens=case.new, do_sample=False)
            assert made[0].tolist() == expected + greedy, f"other tokens after {prompt!r}"
    with checking(case, "batches"):
        batch = tokenizer(case.prompts, return_tensors="pt", padding=True)
        made = model.generate(**batch, max_new_tokens=case.new, do_sample=False)
        assert made[:, -case.new :].tolist() == case.greedy, "other tokens"
