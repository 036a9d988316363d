"""Choose the next token: directly if greedy, else with llama.cpp's sampler chain."""

from __future__ import annotations

import secrets
from typing import Protocol

from internvl_gguf.config import MAX_SEED, SamplingParams
from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import last_error, llama_cpp
from internvl_gguf.llama.native import NativeObject


class Sampler(Protocol):
    """Chooses the tokens of one answer."""

    def sample(self, context: Context, row: int) -> int:
        """Return the next token, from the logits of a row of the last decode; -1 for the last row that has any."""

    def close(self) -> None:
        """Free the native objects, if any."""


def sampler_for(params: SamplingParams, n_vocab: int) -> Sampler:
    """Return the sampler of one answer: `Likeliest` for greedy decoding without penalties, else a `SamplerChain`."""
    return Likeliest() if params.temperature == 0 and not params.penalises else SamplerChain(params, n_vocab)


class Likeliest:
    """Greedy sampler: the token with the largest logit, the first of equals, as llama.cpp's greedy sampler chooses.

    A chain first copies all logits (152 thousand for Qwen2.5) into a table of candidates, which takes longer than
    everything else between two decodes; this class reads them in place.
    """

    def sample(self, context: Context, row: int) -> int:
        """See `Sampler.sample`.

        Raises:
            NotNumbersError: a logit is NaN or infinite.
        """
        return context.likeliest_token(row)

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
        if params.temperature == 0:
            self._add(llama_cpp.llama_sampler_init_greedy())
            return
        if params.top_k:
            self._add(llama_cpp.llama_sampler_init_top_k(params.top_k))
        if params.top_p < 1:
            self._add(llama_cpp.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p:
            self._add(llama_cpp.llama_sampler_init_min_p(params.min_p, 1))
        self._add(llama_cpp.llama_sampler_init_temp(params.temperature))
        seed = secrets.randbelow(MAX_SEED + 1) if params.seed is None else params.seed
        self._add(llama_cpp.llama_sampler_init_dist(seed))

    def _add(self, sampler: int | None) -> None:
        if not sampler:
            raise LibraryError(f"llama.cpp made no sampler{last_error()}.", "Check the sampling parameters.")
        llama_cpp.llama_sampler_chain_add(self.handle, sampler)

    def sample(self, context: Context, row: int) -> int:
        """See `Sampler.sample`."""
        return int(llama_cpp.llama_sampler_sample(self.handle, context.handle, row))

    @staticmethod
    def _free(handle: int) -> None:
        llama_cpp.llama_sampler_free(handle)
