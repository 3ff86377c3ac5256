"""Shows what a checkpoint predicts, as the model card does: `python -m onnxlens.models.samples`."""

__all__ = ["predict"]

from pathlib import Path

import click
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from onnxlens.models.corpus import WORK

PROMPTS = (
    "The function returns",
    "When Mary and John went to the shop, John gave a drink to",
    "Data visualization empowers users to",
    "The keys next to the cabinet",
    "Tom had two apples. Lucy gave him three more, so he had",
)


@torch.inference_mode()
def predict(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, prompt: str, length: int
) -> tuple[list[tuple[str, float]], str]:
    """Predicts what follows a prompt.

    Returns:
        The three likeliest next tokens with their probabilities over the whole vocabulary, and the greedy
        continuation of `length` tokens.
    """
    ids = tokenizer.encode(prompt).ids
    prompt_length = len(ids)
    likeliest: list[tuple[str, float]] = []
    for _ in range(length):
        probabilities = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)  # [vocabulary]
        if not likeliest:
            chances, tokens = probabilities.topk(3)
            texts = (tokenizer.decode([token]) for token in tokens.tolist())
            likeliest = list(zip(texts, chances.tolist(), strict=True))
        ids.append(int(probabilities.argmax()))
    return likeliest, tokenizer.decode(ids[prompt_length:], skip_special_tokens=False)


def _code(text: str) -> str:
    """Text in a cell of a Markdown table, with nothing in it read as Markdown and its spaces kept."""
    for character in "&<>`|*_":
        text = text.replace(character, f"&#{ord(character)};")
    return f"<code>{text.replace(chr(10), '↵')}</code>"


@click.command()
@click.argument("prompts", nargs=-1)
@click.option("--checkpoint", type=click.Path(path_type=Path, exists=True), default=WORK / "tiny-checkpoint")
@click.option("--length", default=16, show_default=True, help="Tokens to generate.")
def main(prompts: tuple[str, ...], checkpoint: Path, length: int) -> None:
    """Print a Markdown table of what the checkpoint predicts after PROMPTS, or after the model card's."""
    model = GPT2LMHeadModel.from_pretrained(checkpoint)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    click.echo("| prompt | likeliest next tokens | greedy continuation |\n| --- | --- | --- |")
    for prompt in prompts or PROMPTS:
        tokens, text = predict(model, tokenizer, prompt, length)
        shown = ", ".join(f"{_code(token)} {chance:.1%}" for token, chance in tokens)
        click.echo(f"| {prompt} | {shown} | {_code(text)} |")


if __name__ == "__main__":
    main()
