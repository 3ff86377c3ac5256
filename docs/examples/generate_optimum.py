"""Generates with Optimum: pip install optimum-onnx onnxruntime."""

import sys

from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = ORTModelForCausalLM.from_pretrained(sys.argv[1])
ids = model.generate(**tokenizer("Once upon a time", return_tensors="pt"), max_new_tokens=12, do_sample=False)
print(tokenizer.decode(ids[0]))
