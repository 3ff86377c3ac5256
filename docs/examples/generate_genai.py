"""Generates with onnxruntime-genai, in two turns: pip install onnxruntime-genai."""

import sys

import onnxruntime_genai

model = onnxruntime_genai.Model(sys.argv[1])
tokenizer = onnxruntime_genai.Tokenizer(model)
parameters = onnxruntime_genai.GeneratorParams(model)
parameters.set_search_options(max_length=16, do_sample=False)  # tokens in all
generator = onnxruntime_genai.Generator(model, parameters)
generator.append_tokens(tokenizer.encode("Once upon a time"))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))

# After a token was generated, get_logits() before append_tokens: it gives that token to the model.
chat = onnxruntime_genai.Generator(model, parameters)
chat.append_tokens(tokenizer.encode("The function returns"))
chat.generate_next_token()
chat.get_logits()
chat.append_tokens(tokenizer.encode(" value"))
chat.generate_next_token()
