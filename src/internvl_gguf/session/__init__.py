"""A conversation with a model: ask, stream, batch, fork, save.

session             the session as callers see it
prompt_template     the official prompt: messages to control tokens, text and visual tokens
prepare             a question as the engine takes it: spans of tokens and tiles that fit the context
cut_pictures        its pictures, read and cut for the encoder
prompt_spans        a conversation as spans of tokens and tiles
thinking            the thought before an answer: asked for, and told apart from it
clips               clips of a question as pictures: their frames, labelled
asked               what is asked, as messages: a question, or what tools returned
tool_prompt         how tools and their results stand in the prompt
tool_loop           Session.run: call the tools that an answer calls, and ask on
call_reader         calls of tools in an answer under way
question_options    options of a question: checked, the names of other tools answered with those here
candidate_answers   several answers to a question, of which a judge chooses: candidate_samplings
answer              the stream of an answer: pieces of text, statistics, its end
detokenizer         token bytes to text: whole characters only, stop strings held back
grounding           boxes of an answer: their tags hidden in its text, kept where it is read
batch               many questions at once
cascade             a small model first, a bigger one where it is not sure: cascade_models, memory_room
session_lock        one operation on a session at a time
saved_file          the file of a saved conversation
restore             a saved conversation put into a loaded model again
slow_answer         the notice that an answer took much longer than planned
contract            protocol of a session, here or with a server
model_runtime       protocol of a loaded model, in this process or in a worker
open_runtime        loads a model, in this process or in a worker
open_encoder        the vision encoder of a model: in llama.cpp, corrected if need be, or in OpenVINO
in_process_runtime  a model loaded in this process: validated, placed, tried
worker/             a model in a process of its own

Names are imported on first use: `internvl history` needs the prompt template, but no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internvl_gguf.session.session import Session

__all__ = ["Session"]


def __getattr__(name: str) -> Any:
    if name == "Session":
        from internvl_gguf.session.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
