"""Whether a model is to think before it answers, as the fields of the three interfaces say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.config import SamplingParams
from internvl_gguf.server.chat_request import Body
from internvl_gguf.server.content import as_object, refused
from internvl_gguf.server.field_values import switch, wrong

EFFORTS: Final[dict[str, int | None]] = {"minimal": 256, "low": 1024, "medium": 2048, "high": None, "xhigh": None}
"""Most tokens of a thought by OpenAI's names for effort; None for no limit. "none" is no thought at all."""
NO_EFFORT: Final = "none"
_KINDS: Final = ("enabled", "disabled", "adaptive")


@dataclass(frozen=True)
class ThinkingWish:
    """A request's wish about thinking.

    Attributes:
        thinking: whether to think; None if it says nothing.
        budget: most tokens of a thought; None for no limit.
        is_firm: whether a model that cannot think is an error; an effort, which many clients always send, is not.
        param: the field that says it.
    """

    thinking: bool | None = None
    budget: int | None = None
    is_firm: bool = False
    param: str = ""

    def applied(self, sampling: SamplingParams) -> SamplingParams:
        """Return how an answer is chosen, with this wish in it."""
        if self.thinking is None:
            return sampling
        return sampling.changed(
            {"thinking": self.thinking} | ({} if self.budget is None else {"thinking_budget": self.budget})
        )


def thinking_of(body: Body) -> ThinkingWish:
    """Return what the fields of a request say about thinking.

    Of several the later one counts: `reasoning_effort`, `reasoning.effort`, `chat_template_kwargs.enable_thinking`,
    Anthropic's `thinking`; and `thinking_budget`, unless these say not to think.

    Raises:
        RefusedRequestError: a value that cannot be used.
    """
    found = ThinkingWish()
    if "reasoning_effort" in body:
        found = _of_effort(body["reasoning_effort"], "reasoning_effort")
    if "reasoning" in body:
        effort = as_object(body["reasoning"], "reasoning").get("effort")
        found = found if effort is None else _of_effort(effort, "reasoning.effort")
    template = as_object(body.get("chat_template_kwargs", {}), "chat_template_kwargs")
    if set(template) - {"enable_thinking"}:
        raise wrong(
            "chat_template_kwargs", "has a key that is not known", "The prompt is fixed but for enable_thinking."
        )
    if template:
        found = ThinkingWish(switch(template, "enable_thinking"), None, True, "chat_template_kwargs.enable_thinking")
    if "thinking" in body:
        found = _of_anthropic(as_object(body["thinking"], "thinking"))
    if "thinking_budget" in body and found.thinking is not False:
        found = ThinkingWish(True, None, True, "thinking_budget")
    return found


def _of_effort(effort: object, param: str) -> ThinkingWish:
    if effort == NO_EFFORT:
        return ThinkingWish(False, param=param)
    if not isinstance(effort, str) or effort not in EFFORTS:
        raise refused(param, "is not known", f"Use {NO_EFFORT}, {', '.join(EFFORTS)}.")
    return ThinkingWish(True, EFFORTS[effort], param=param)


def _of_anthropic(thinking: dict[str, Any]) -> ThinkingWish:
    kind = thinking.get("type")
    if kind not in _KINDS:
        raise refused("thinking.type", "is not known", f"Use {', '.join(_KINDS)}.")
    budget = thinking.get("budget_tokens")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
        raise refused("thinking.budget_tokens", "is no whole number of 1 or more", "Give one.")
    return ThinkingWish(kind != "disabled", budget, kind == "enabled", "thinking")
