"""Training against loops: what greedy decoding says twice becomes less likely.

Sequence-level unlikelihood of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training".
"""

__all__ = ["continued", "in_repeats", "unlikelihood"]

import torch
from transformers import GPT2LMHeadModel


@torch.no_grad()
def continued(model: GPT2LMHeadModel, prefixes: torch.Tensor, count: int) -> torch.Tensor:
    """Continues prefixes by the likeliest token always; the end of a text is a token like the others.

    Args:
        model: The model.
        prefixes: Token ids [rows, prefix].
        count: Tokens to add.

    Returns:
        Token ids [rows, prefix + count].
    """
    ids, read, past = [prefixes], prefixes, None
    for _ in range(count):
        output = model(input_ids=read, past_key_values=past, use_cache=True)
        read, past = output.logits[:, -1:].argmax(-1), output.past_key_values  # [rows, 1]
        ids.append(read)
    return torch.cat(ids, 1)


def in_repeats(ids: torch.Tensor, size: int, within: int) -> torch.Tensor:
    """Marks the tokens of every n-gram that stood in its row shortly before.

    Args:
        ids: Token ids [rows, positions].
        size: Tokens in an n-gram.
        within: How many tokens before, at most: what returns later is no loop.

    Returns:
        Booleans [rows, positions].
    """
    grams = ids.unfold(1, size, 1)  # [rows, n-grams, size]
    same = (grams[:, :, None] == grams[:, None]).all(-1)  # [rows, n-grams, n-grams]
    again = (same.tril(-1) & same.new_ones(same.shape[1:]).triu(-within)).any(-1)  # [rows, n-grams]
    marked = torch.zeros_like(ids, dtype=torch.bool)
    for offset in range(size):
        marked[:, offset : offset + again.shape[1]] |= again
    return marked


def unlikelihood(
    model: GPT2LMHeadModel, ids: torch.Tensor, prefix: int, size: int = 4, within: int = 24
) -> torch.Tensor:
    """How likely a model holds what its own continuations repeat: the mean of -log(1 - p) over those tokens.

    Args:
        model: The model.
        ids: Prefixes and their continuations [rows, positions].
        prefix: Tokens of each prefix, whose own repeats do not count.
        size: Tokens in an n-gram; the paper takes 4 words.
        within: How many tokens before it must have stood: a text may say again what it said long ago.

    Returns:
        A scalar in nats per token of the continuations, 0 where nothing repeats.
    """
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits[:, prefix - 1 :].float()  # [rows, continued, V]
    answers = ids[:, prefix:]  # [rows, continued]
    likely = logits.softmax(-1).gather(-1, answers[..., None])[..., 0]  # [rows, continued]
    penalty = -torch.log((1 - likely).clamp(min=1e-5))
    return (penalty * in_repeats(ids, size, within)[:, prefix:]).mean()
