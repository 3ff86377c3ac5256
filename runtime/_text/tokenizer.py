"""Text to token ids and back, also token by token while a text is being generated."""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import DecodeStream

from onnxlens.runtime._escape import quoted
from onnxlens.runtime._panics import is_panic, one_line
from onnxlens.runtime._text.merges import Merge, Merges, token_bytes
from onnxlens.runtime._text.token_text import readable
from onnxlens.runtime._text.tokenizer_document import check_document
from onnxlens.runtime.errors import BundleError, InputError

__all__ = ["TextStream", "Tokenizer"]

_END_OF_TEXT = "<|endoftext|>"

logger = logging.getLogger("onnxlens")


class Tokenizer:
    """A bundle's tokenizer.

    Args:
        path: its tokenizer.json.
        eos_token_id: the token that ends a text, or several.
        d_vocab: how many ids the model has; 0 for as many as the tokenizer. These may be more than the tokenizer's
            (some pad their vocabulary): an id that only the model knows has itself in brackets as its text. Or fewer:
            a text with a token that only the tokenizer knows is an error.
        start_token_id: what an empty text starts from; None for the token that ends one.
        content: the content of the file, where it was read already.

    Attributes:
        eos_token_ids: the tokens that end a text, those that are tokens of the model.
        eos_token_id: the first of them, or None if there is none.

    Raises:
        BundleError: the file is damaged.
    """

    def __init__(
        self,
        path: Path,
        eos_token_id: int | Sequence[int] | None = None,
        d_vocab: int = 0,
        *,
        start_token_id: int | None = None,
        content: bytes | None = None,
    ) -> None:
        try:
            content = path.read_bytes() if content is None else content
            check_document(content)
            self._fast = FastTokenizer.from_buffer(content)
        except BaseException as error:
            if isinstance(error, Exception) or is_panic(error):  # tokenizers raises plain Exception
                raise BundleError(f"The tokenizer {path} cannot be read: {one_line(error)}.") from error
            raise
        # All of a text, always the same way: these are for training.
        self._fast.no_truncation()
        self._fast.no_padding()
        if getattr(self._fast.model, "dropout", None) is not None:
            self._fast.model.dropout = None
        self._said_what_follows = False
        self._size = d_vocab or self._fast.get_vocab_size()
        ends = () if eos_token_id is None else eos_token_id if isinstance(eos_token_id, Sequence) else (eos_token_id,)
        self.eos_token_ids = tuple(token for token in ends if 0 <= token < self._size)
        self.eos_token_id = self.eos_token_ids[0] if self.eos_token_ids else None
        starts = (start_token_id, self.eos_token_id, self._fast.token_to_id(_END_OF_TEXT))
        self._start = next((token for token in starts if token is not None and 0 <= token < self._size), None)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text that the model is to continue, with what the tokenizer adds to each text.

        An empty text may have none; the model then starts from the token that begins or ends a text, as in its
        training, where every text follows the end of another one.

        Raises:
            InputError: the text cannot be encoded as UTF-8; or it is empty, and there is no token to start from; or the
                model does not have one of its tokens.
        """
        ids = self.token_ids(text, add_special_tokens=True)
        self._say_what_follows()
        if not ids and self._start is None:
            raise InputError("The text is empty, and this model has no token that begins or ends a text to start from.")
        return ids or [self._start or 0]

    def encode_word(self, text: str) -> list[int]:
        """Returns the token ids of a text that names tokens, without what the tokenizer adds to each text.

        Raises:
            InputError: the text cannot be encoded as UTF-8, or the model does not have one of its tokens.
        """
        return self.token_ids(text, add_special_tokens=False)

    def token_ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Returns the token ids of a text as the tokenizer has them, none where it has none.

        Raises:
            InputError: the text cannot be encoded as UTF-8, or the model does not have one of its tokens.
        """
        if not isinstance(text, str):
            raise InputError(f"Expected text, got {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"The text is not valid Unicode: a lone surrogate at character {error.start}. Give UTF-8 text."
            ) from error
        with _library_errors("encode the text"):
            ids = list(self._fast.encode(text, add_special_tokens=add_special_tokens).ids)
        if ids and max(ids) >= self._size:
            token = max(ids)
            raise InputError(
                f"The text has the token {self._fast.id_to_token(token)!r:.100}, id {token}, which this model does not "
                f"have: its ids are 0 to {self._size - 1}."
            )
        return ids

    def _say_what_follows(self) -> None:
        """Warns, once, that the tokenizer ends every text with tokens of its own, as BERT's does."""
        if self._said_what_follows:
            return
        self._said_what_follows = True
        text = self._fast.encode("a", add_special_tokens=False)
        whole = self._fast.encode("a").tokens
        starts = [start for start in range(len(whole)) if whole[start : start + len(text.tokens)] == text.tokens]
        following = whole[starts[-1] + len(text.tokens) :] if starts and text.tokens else []
        if following:
            logger.warning(
                "This model's tokenizer puts %s at the end of every text, so predictions are of what comes after that, "
                "as in transformers.",
                " and ".join(map(quoted, following)),
            )

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of token ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            InputError: an id is not a whole number or not in the vocabulary.
        """
        return "".join(
            self._decode(list(run)) if known else "".join(f"[{token}]" for token in run)
            for known, run in groupby(map(self._checked, ids), key=self.knows)
        )

    def str_tokens(self, ids: Iterable[int]) -> list[str]:
        """Returns the text of each token by itself; a part of a UTF-8 character becomes U+FFFD.

        Raises:
            InputError: an id is not a whole number or not in the vocabulary.
        """
        return [self.decode([token]) for token in ids]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        r"""Returns the text of each token for a reader: as `str_tokens`, but a part of a letter is its bytes, `\xe4`.

        Raises:
            InputError: an id is not a whole number or not in the vocabulary.
        """
        return [self.piece(token, self.decode([token])) for token in ids]

    def piece(self, token: int, text: str) -> str:
        """Returns the text of a token, or its bytes as escapes where that text says that it is part of a letter."""
        return readable(self.token_bytes(token)) if "\ufffd" in text else text

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token, which may be a part of a UTF-8 character only.

        Raises:
            InputError: the id is not a whole number or not in the vocabulary.
        """
        known = self._fast.id_to_token(self._checked(token))
        if known is None or token in self._fast.get_added_tokens_decoder():  # which are written as they are
            return self.decode([token]).encode()
        return token_bytes(known)

    def merge_steps(self, text: str, position: int) -> tuple[range, list[Merge]]:
        """Returns the steps by which a token's word was put together from its bytes.

        Args:
            text: a text.
            position: of one of its tokens.

        Returns:
            The positions of the word's tokens, and the steps; none for a special token.

        Raises:
            InputError: the tokenizer is not a byte-level byte-pair encoding.
        """
        return self._word(self._fast.encode(text), position)

    def words(self, text: str) -> list[tuple[range, list[Merge]]]:
        """Returns `merge_steps` of each word of a text, in order; errors as there."""
        encoded = self._fast.encode(text)
        found: list[tuple[range, list[Merge]]] = []
        while (start := found[-1][0].stop if found else 0) < len(encoded.ids):
            found.append(self._word(encoded, start))
        return found

    def _word(self, encoded: Encoding, position: int) -> tuple[range, list[Merge]]:
        words, first, last = encoded.word_ids, position, position + 1
        while first > 0 and words[first - 1] == words[position]:
            first -= 1
        while last < len(words) and words[last] == words[position]:
            last += 1
        merges = self._merges
        if encoded.ids[position] in self._fast.get_added_tokens_decoder():
            return range(position, position + 1), []
        return range(first, last), merges.steps("".join(encoded.tokens[first:last]))

    def stream(self, stop: str | Sequence[str] | None = ()) -> TextStream:
        """Starts decoding token by token; see `TextStream`."""
        return TextStream(self, stop)

    def step(self, stream: DecodeStream, token: int) -> str:
        """Feeds one token to a stream of the tokenizers library; returns the text that became certain."""
        with _library_errors("decode its tokens"):
            return stream.step(self._fast, token) or ""

    def to_json(self) -> str:
        """Returns the tokenizer as the tokenizers library writes it, for other libraries to read."""
        return str(self._fast.to_str())

    def knows(self, token: int) -> bool:
        """Whether an id is in the tokenizer's vocabulary, not in the model's only."""
        return self._fast.id_to_token(token) is not None

    @functools.cached_property
    def _merges(self) -> Merges:
        return Merges(self.to_json())

    def _decode(self, ids: list[int]) -> str:
        with _library_errors("decode its tokens"):
            return str(self._fast.decode(ids, skip_special_tokens=False))

    def _checked(self, token: int) -> int:
        try:
            number = operator.index(token)
        except TypeError as error:
            raise InputError(f"A token id must be a whole number, not {token!r}.") from error
        if not 0 <= number < self._size:
            raise InputError(f"Token id {number} is out of range: this model's ids are 0 to {self._size - 1}.")
        return number


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    """Turns errors and panics of the tokenizers library into an InputError."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or is_panic(error):
            raise InputError(f"This model's tokenizer cannot {what}: {one_line(error)}.") from error
        raise


class TextStream:
    """Turns tokens into text as they come, and notices stop strings.

    A character whose UTF-8 bytes are spread over several tokens appears with the last of them. Text that may be the
    beginning of a stop string is held back until it is certain. All pieces joined are the decoded tokens, up to the
    first stop string.

    Args:
        tokenizer: the tokenizer.
        stop: strings at which the text ends; the text returned does not contain them.

    Attributes:
        stopped: whether a stop string was found.

    Raises:
        InputError: a stop string is empty.
    """

    def __init__(self, tokenizer: Tokenizer, stop: str | Sequence[str] | None = ()) -> None:
        if stop is None:
            stop = ()
        if not isinstance(stop, Sequence):
            raise InputError(f"stop must be a text or a list of texts, not {stop!r}.")
        stop = [stop] if isinstance(stop, str) else list(stop)
        if any(not isinstance(text, str) or not text for text in stop):
            raise InputError("A stop string must be a text of at least one character.")
        self._tokenizer, self._stop = tokenizer, stop
        self._stream = DecodeStream(skip_special_tokens=False)
        self._ids: list[int] = []
        self._decoded = 0
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        """Takes one token; returns the text that became certain, which may be none."""
        if not self._tokenizer.knows(token):
            rest = self._rest()  # a character is not continued across it
            self._stream, self._ids, self._decoded = DecodeStream(skip_special_tokens=False), [], 0
            return self._release(rest + self._tokenizer.decode([token]))
        self._ids.append(token)
        text = self._tokenizer.step(self._stream, token)
        self._decoded += len(text)
        return self._release(text)

    def finish(self) -> str:
        """Returns the text that was held back, after the last token."""
        text = self._release(self._rest()) + self._held
        self._held = ""
        return text

    def _rest(self) -> str:
        """The decoded text that the stream has not returned yet: an unfinished character."""
        rest = self._tokenizer.decode(self._ids)[self._decoded :]
        self._decoded += len(rest)
        return rest

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        held = self._held + text
        found = [index for index in (held.find(stop) for stop in self._stop) if index >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max((_overlap(held, stop) for stop in self._stop), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
