"""Analyses: plain functions over a `Lens`, with NumPy only, that return arrays with labelled axes.

Nothing is imported here:

- `logit_lens`: what the model would predict after each block
- `logit_attribution`: what heads, MLPs, neurons and embeddings add to a logit
- `ablation`: a metric without each head
- `patching`: a metric with values of another run; along one path from head to head
- `attention`: rollout, and scores for induction, previous-token and duplicate-token heads
- `surprisal`: how unexpected each token is
- `statistics`: of activations over many texts
- `attribution`: by gradients, which positions, heads and neurons a metric of the logits is due to
"""
