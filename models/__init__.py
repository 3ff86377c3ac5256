"""The small GPT-2 that ships with onnxlens, its recipe, and the default place for exported bundles.

The recipe is two commands: `python -m onnxlens.models.corpus` writes the text and the tokenizer,
`python -m onnxlens.models.train` writes a Hugging Face checkpoint. README.md is the model card.
"""
