"""Critics: models that say of each step of an answer whether it is right.

critic          a critic as callers see it: open it, score answers, judge candidates
found_critic    a critic whose files are here, to be opened in any process
step_prompts    an answer in steps as prompts, each up to the place where its step's score is read
verdict_tokens  the tokens of a critic's verdict, and the score they make

How a critic is asked is described by `models.critic_description`, from models.toml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internvl_gguf.critics.critic import Critic
    from internvl_gguf.models.critic_description import CriticDescription

__all__ = ["Critic", "CriticDescription"]


def __getattr__(name: str) -> Any:
    if name == "Critic":
        from internvl_gguf.critics.critic import Critic

        return Critic
    if name == "CriticDescription":
        from internvl_gguf.models.critic_description import CriticDescription

        return CriticDescription
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
