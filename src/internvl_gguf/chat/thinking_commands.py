"""The commands about thinking: whether the model thinks before it answers, and what it thought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_text
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.chat.chat import Chat

_WORDS: Final = {
    "on": {"thinking": "on"},
    "off": {"thinking": "off", "thinking_budget": "none"},
    "auto": {"thinking": "none", "thinking_budget": "none"},
    "keep": {"keep_thinking": "on"},
    "drop": {"keep_thinking": "off"},
}
"""Settings by the word that is typed."""


def think(chat: Chat, text: str) -> str:
    """Show or set whether the model thinks before it answers, how long, and whether thoughts stay in the prompt."""
    word = text.strip().lower()
    if word:
        changes = _WORDS.get(word) or ({"thinking": "on", "thinking_budget": word} if word.isdigit() else None)
        if changes is None:
            raise InvalidRequestError(
                f"/think takes no {safe_text(text)!r}.", f"Write {', '.join(_WORDS)}, or a number of tokens."
            )
        settings = chat.settings
        for name, value in changes.items():
            settings = settings.changed(name, value)
        chat.change_settings(settings)
    chat.screen.say(_described(chat))
    return ""


def thought(chat: Chat, text: str) -> str:
    """Show the thought before the last answer."""
    answers = [message for message in chat.session.messages if message.role == "assistant"]
    last = answers[-1].thinking.strip() if answers else ""
    if last:
        chat.screen.show_lines(last.splitlines())
    else:
        chat.screen.say("There was no thought before the last answer." if answers else "Nothing was asked yet.")
    return ""


def _described(chat: Chat) -> str:
    sampling = chat.settings.sampling
    kept = "" if sampling.keep_thinking else " Earlier thoughts are left out of the prompt."
    if sampling.thinks:
        most = f", at most {counted(sampling.thinking_budget, 'token')}" if sampling.thinking_budget else ""
        return f"The model thinks before it answers{most}.{kept}"
    if sampling.thinking is False:
        return f"The model is kept from thinking.{kept}"
    return f"Whether to think is left to the model.{kept}"
