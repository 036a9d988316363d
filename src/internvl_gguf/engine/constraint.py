"""A constraint keeps an answer to its grammar, token by token.

llguidance keeps the grammar: after each token it tells which tokens may follow, and which have to. A token that has to
follow needs no logits; it is read with the next computation instead of being sampled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.llama.grammar_tokenizer import grammar_tokenizer
from internvl_gguf.llama.token_mask import TokenMask
from internvl_gguf.structured.constraint import new_matcher

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from internvl_gguf.llama.model import TextModel

_REMEMBERED_GRAMMARS: Final = 32


class Constraint:
    """The grammar of one answer, and how far the answer has come in it. Used by the thread that works for the engine.

    Args:
        matcher: llguidance's state at the beginning of the answer.
        n_vocab: number of tokens of the vocabulary.
    """

    def __init__(self, matcher: LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._n_vocab = n_vocab
        self._followed = 0

    def follow(self, tokens: Sequence[int]) -> None:
        """Take the tokens of the answer that were not taken yet.

        Args:
            tokens: the whole answer so far.

        Raises:
            InvalidRequestError: the grammar does not allow them, or is too complex here.
        """
        for token in tokens[self._followed :]:
            self._matcher.consume_token(token)
            self._check()
            self._followed += 1

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def forced(self) -> list[int]:
        """Return the tokens that have to follow, as the tokenizer writes them; often none.

        Raises:
            InvalidRequestError: as `follow`.
        """
        tokens = self._matcher.compute_ff_tokens()
        self._check()
        return tokens

    def allowed(self) -> TokenMask:
        """Return the tokens that may follow, those that end the answer included.

        Raises:
            InvalidRequestError: as `follow`, or no token of the vocabulary can follow.
        """
        bits = self._matcher.compute_bitmask()
        self._check()
        if not any(bits):
            raise InvalidRequestError(
                "No token of the model's vocabulary continues the answer in the form that was asked for.",
                "Allow characters that the model can write.",
            )
        return TokenMask(bits, self._n_vocab)

    def acceptable(self, tokens: list[int]) -> list[int]:
        """Return the first of these tokens, up to one that the grammar does not allow."""
        return tokens[: self._matcher.validate_tokens(tokens)]

    def _check(self) -> None:
        # Every call after an error would allow only the end of the answer.
        if self._matcher.is_error():
            raise InvalidRequestError(
                f"The form of the answer cannot be followed any further: {_first_line(self._matcher.get_error())}",
                "Ask for a simpler form.",
            )


class ConstraintCompiler:
    """Compiles grammars for one model, in a thread of its own: a large one takes a second, in which the engine works.

    Args:
        model: the text model; close the compiler before it.
    """

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._threads: ThreadPoolExecutor | None = None
        self._tokenizer: LLTokenizer | None = None
        self._known: OrderedDict[str, LLMatcher] = OrderedDict()

    def compile(self, grammar: str) -> Future[Constraint]:
        """Compile a grammar, in Lark's or JSON's form of llguidance; one that was compiled before is taken as it is.

        The result raises InvalidRequestError if it is no grammar, or one too large.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, "internvl-grammars")
        return self._threads.submit(self._compile, grammar)

    def close(self) -> None:
        """Wait for the grammar being compiled, and free all; later ones cannot be compiled."""
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        self._known.clear()
        self._tokenizer = None

    def _compile(self, grammar: str) -> Constraint:
        matcher = self._known.pop(grammar, None) or self._matcher(grammar)
        self._known[grammar] = matcher
        while len(self._known) > _REMEMBERED_GRAMMARS:
            self._known.popitem(last=False)
        return Constraint(matcher.deep_copy(), self._model.n_vocab)

    def _matcher(self, grammar: str) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = grammar_tokenizer(self._model)
        matcher: LLMatcher = new_matcher(self._tokenizer, grammar)
        if matcher.is_error():
            raise InvalidRequestError(
                f"The form of the answer cannot be used: {_first_line(matcher.get_error())}", "Check the grammar."
            )
        return matcher


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
