"""Choose the next token: directly if greedy, else with llama.cpp's sampler chain."""

from __future__ import annotations

import ctypes
import secrets
from typing import Final, Protocol

import numpy as np

from internvl_gguf.config import MAX_SEED, SamplingParams
from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import last_error, llama_cpp
from internvl_gguf.llama.native import NativeObject
from internvl_gguf.llama.token_mask import TokenMask

_CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""


class Sampler(Protocol):
    """Chooses the tokens of one answer."""

    def sample(self, context: Context, row: int, allowed: TokenMask | None = None) -> int:
        """Return the next token.

        Args:
            context: holds the logits of the last decode.
            row: the row to sample from; -1 for the last one that has logits.
            allowed: the tokens to choose from; None for all.
        """

    def accept(self, token: int) -> None:
        """Take note of a token of the answer that was not sampled here, for the penalties."""

    def close(self) -> None:
        """Free the native objects, if any."""


def sampler_for(params: SamplingParams, n_vocab: int) -> Sampler:
    """Return the sampler of one answer: `Likeliest` for greedy decoding without penalties, else a `SamplerChain`."""
    return Likeliest() if params.effective_temperature == 0 and not params.penalises else SamplerChain(params, n_vocab)


class Likeliest:
    """Greedy sampler: the token with the largest logit, the first of equals, as llama.cpp's greedy sampler chooses.

    A chain first copies all logits (152 thousand for Qwen2.5) into a table of candidates, which takes longer than
    everything else between two decodes; this class reads them in place.
    """

    def sample(self, context: Context, row: int, allowed: TokenMask | None = None) -> int:
        """See `Sampler.sample`.

        Raises:
            NotNumbersError: a logit is NaN or infinite.
        """
        token = context.likeliest_token(row)
        # Most often the model writes what it may: then the list of all allowed tokens need not be made.
        if allowed is None or token in allowed:
            return token
        return int(allowed.tokens[context.logits(row)[allowed.tokens].argmax()])

    def accept(self, token: int) -> None:
        """Do nothing: it has no penalties."""

    def close(self) -> None:
        """Do nothing: there are no native objects."""


class SamplerChain(NativeObject):
    """Native chain for one answer: penalties, then greedy, or top_k, top_p, min_p, temperature and a random draw.

    The order is llama.cpp's default. Owns the native chain.

    Args:
        params: validated by `SamplingParams` itself; llama.cpp aborts on some values it would refuse.
        n_vocab: size of the vocabulary.
    """

    def __init__(self, params: SamplingParams, n_vocab: int) -> None:
        super().__init__()
        if not self._make(lambda: llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())):
            raise LibraryError(f"llama.cpp made no sampler{last_error()}.", "Free some memory and try again.")
        if params.penalises:
            self._add(
                llama_cpp.llama_sampler_init_penalties(
                    n_vocab,
                    params.penalty_last_n,
                    params.repeat_penalty,
                    params.frequency_penalty,
                    params.presence_penalty,
                )
            )
        if params.effective_temperature == 0:
            self._add(llama_cpp.llama_sampler_init_greedy())
            return
        if params.top_k:
            self._add(llama_cpp.llama_sampler_init_top_k(params.top_k))
        if params.effective_top_p < 1:
            self._add(llama_cpp.llama_sampler_init_top_p(params.effective_top_p, 1))
        if params.min_p:
            self._add(llama_cpp.llama_sampler_init_min_p(params.min_p, 1))
        self._add(llama_cpp.llama_sampler_init_temp(params.effective_temperature))
        seed = secrets.randbelow(MAX_SEED + 1) if params.seed is None else params.seed
        self._add(llama_cpp.llama_sampler_init_dist(seed))

    def _add(self, sampler: int | None) -> None:
        if not sampler:
            raise LibraryError(f"llama.cpp made no sampler{last_error()}.", "Check the sampling parameters.")
        llama_cpp.llama_sampler_chain_add(self.handle, sampler)

    def sample(self, context: Context, row: int, allowed: TokenMask | None = None) -> int:
        """See `Sampler.sample`. The chain sees the allowed tokens alone: top_k keeps the likeliest k of them."""
        if allowed is None:
            return int(llama_cpp.llama_sampler_sample(self.handle, context.handle, row))
        candidates = np.empty(len(allowed.tokens), _CANDIDATE)
        candidates["id"] = allowed.tokens
        candidates["logit"] = context.logits(row)[allowed.tokens]
        candidates["p"] = 0
        data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
        array = llama_cpp.llama_token_data_array(data, len(candidates), -1, False)
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(array))
        token = int(array.data[array.selected].id)  # samplers may put other candidates in the place of these
        llama_cpp.llama_sampler_accept(self.handle, token)
        return token

    def accept(self, token: int) -> None:
        """See `Sampler.accept`."""
        llama_cpp.llama_sampler_accept(self.handle, token)

    @staticmethod
    def _free(handle: int) -> None:
        llama_cpp.llama_sampler_free(handle)
