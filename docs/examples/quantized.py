"""Quantises a bundle's matrices to 8 bits: pip install onnxruntime onnx sympy."""

import sys
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

bundle, folder = map(Path, sys.argv[1:])
# A matrix stored as float16 reaches its product through a Cast, and quantisers pass it over without a word. This step
# widens all matrices first; without `auto_merge` it fails at the attention mask.
quant_pre_process(bundle / "onnx" / "model.onnx", folder / "widened.onnx", auto_merge=True)
quantize_dynamic(folder / "widened.onnx", folder / "model_quantized.onnx", weight_type=QuantType.QInt8)

nodes = onnx.load(folder / "model_quantized.onnx").graph.node
print("quantised products", sum(node.op_type == "MatMulInteger" for node in nodes))
