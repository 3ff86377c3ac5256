"""The small GPT-2 that ships with onnxlens, and the default place for exported bundles.

README.md is the model card; the recipe, in a checkout only, is in `models/recipe/`.
"""
