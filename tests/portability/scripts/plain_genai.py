"""onnxruntime-genai."""

from __future__ import annotations

import numpy as np
import onnxruntime_genai as genai
from cases import cases, checking


def generator(model: genai.Model, length: int, batch: int = 1) -> genai.Generator:
    """A greedy generator for texts of at most so many tokens."""
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=length, batch_size=batch, do_sample=False)
    return genai.Generator(model, parameters)


def tokens(made: genai.Generator, row: int = 0) -> list[int]:
    """The tokens of a text so far."""
    return [int(token) for token in made.get_sequence(row)]


for case in cases():
    with checking(case, "tokens"):
        model = genai.Model(str(case.bundle))
        tokenizer = genai.Tokenizer(model)
        for prompt, expected, greedy in zip(case.prompts, case.ids, case.greedy, strict=True):
            ids = tokenizer.encode(prompt)
            assert [*map(int, ids)] == expected, f"{prompt!r} has other tokens"
            one = generator(model, len(expected) + case.new)
            one.append_tokens(ids)
            while not one.is_done():
                one.generate_next_token()
            assert tokens(one) == expected + greedy, f"other tokens after {prompt!r}"
    with checking(case, "batches"):
        longest = max(map(len, case.ids))
        # As genai's encode_batch: on the right, with the padding token of genai_config.json.
        batch = np.array([ids + [-1] * (longest - len(ids)) for ids in case.ids], np.int32)
        several = generator(model, longest + case.new, len(batch))
        several.append_tokens(batch)
        while not several.is_done():
            several.generate_next_token()
        assert [tokens(several, row)[longest:] for row in range(len(batch))] == case.greedy, "other tokens"
        rows = [*map(int, np.array(tokenizer.encode_batch(case.prompts).as_numpy()).flatten())]
        assert rows == batch.flatten().tolist(), "encode_batch pads otherwise"
    with checking(case, "appending"):
        ids, greedy = case.ids[0], case.greedy[0]
        chat = generator(model, len(ids) + case.new)
        chat.append_tokens(ids)
        for _ in range(2):
            chat.generate_next_token()
        chat.get_logits()  # runs the token that was generated last, which append_tokens does not
        chat.append_tokens(greedy[2:5])
        while not chat.is_done():
            chat.generate_next_token()
        assert tokens(chat) == ids + greedy, "other tokens"
