"""The processes that `second_question.py` measures, each of which loads a model, asks, and prints one JSON document.

python benchmarks/second_question_children.py first     < request    ours: two questions, saved, a new conversation
python benchmarks/second_question_children.py restart   < request    ours: the first question again
python benchmarks/second_question_children.py restored  < request    ours: the saved session goes on
python benchmarks/second_question_children.py handler   < request    llama-cpp-python's MTMDChatHandler
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_gguf import SamplingParams, Session
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from measure import Settings
from peers import data_uri

if TYPE_CHECKING:
    from llama_cpp import Llama

ANSWER, N_CTX = 8, 4096
FIRST, SECOND, NEW, NEXT = "What is it?", "And what else is there?", "Describe the picture.", "And where is that?"
ENDS = (b"<|im_end|>", b"<|endoftext|>")
ASKED = "--- asked ---"
"""What the handler's process writes to stderr after each question, between llama.cpp's own lines."""
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
"""The model's own form, for the handler, which hands pictures over in lists: templates of text models take none."""

Found = dict[str, dict[str, float]]
"""By situation: seconds, and the tiles that were encoded."""


def user_message(question: str, jpeg: bytes | None) -> dict[str, Any]:
    """A question in OpenAI's form, its picture first as in the model card."""
    if jpeg is None:
        return {"role": "user", "content": question}
    picture = {"type": "image_url", "image_url": {"url": data_uri(jpeg)}}
    return {"role": "user", "content": [picture, {"type": "text", "text": f"\n{question}"}]}


def conversation(jpeg: bytes, first: str, *later: tuple[str, str]) -> list[dict[str, Any]]:
    """A conversation about a picture in OpenAI's form; `later` are answers with the questions that followed them."""
    messages = [{"role": "system", "content": OFFICIAL_SYSTEM}, user_message(first, jpeg)]
    for answer, question in later:
        messages += [{"role": "assistant", "content": answer}, user_message(question, None)]
    return messages


def first(request: dict[str, Any]) -> dict[str, Any]:
    """Ours in a process that knows nothing."""
    session, ready = _open(request)
    picture = Path(request["picture"]).read_bytes()
    found = {"ready": ready, "first": _ask(session, FIRST, picture), "second": _ask(session, SECOND)}
    started = time.perf_counter()
    session.save(request["saved"])
    found["save"] = {"seconds": time.perf_counter() - started}
    session.clear()
    found["new conversation"] = _ask(session, NEW, picture)
    session.close()
    return found


def restart(request: dict[str, Any]) -> Found:
    """Ours in a process that finds the embeddings on the disk."""
    session, ready = _open(request)
    found = {"ready again": ready, "restart": _ask(session, FIRST, Path(request["picture"]).read_bytes())}
    session.close()
    return found


def restored(request: dict[str, Any]) -> Found:
    """Ours in a process that takes up the saved session."""
    session, ready = _open(request, saved=True)
    found = {"saved session ready": ready, "saved session": _ask(session, NEXT)}
    session.close()
    return found


def handler(request: dict[str, Any]) -> Found:
    """llama-cpp-python with the handler for any model with an mmproj; it loads that with the first question."""
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import MTMDChatHandler

    started = time.perf_counter()
    chat = MTMDChatHandler(clip_model_path=request["mmproj"], verbose=True, use_gpu=False)
    llama = Llama(request["text"], chat_handler=chat, **_settings(request).llama_options(), verbose=True)
    llama.metadata["tokenizer.chat_template"] = CHATML
    _complete(llama, [user_message("Hello!", None)])
    found = {"ready": {"seconds": time.perf_counter() - started}}
    picture = Path(request["picture"]).read_bytes()
    found["first"], answer = _complete(llama, conversation(picture, FIRST))
    found["second"], _ = _complete(llama, conversation(picture, FIRST, (answer, SECOND)))
    found["new conversation"], _ = _complete(llama, conversation(picture, NEW))
    llama.close()
    return found


def _settings(request: dict[str, Any]) -> Settings:
    return Settings(request["threads"], N_CTX)


def _open(request: dict[str, Any], *, saved: bool = False) -> tuple[Session, dict[str, float]]:
    from ours import make_endless

    options = _settings(request).engine_options()
    started = time.perf_counter()
    if saved:
        session = Session.restore(request["saved"], request["text"], request["mmproj"], **options)
    else:
        session = Session.open(request["text"], request["mmproj"], **options)
    return make_endless(session), {"seconds": time.perf_counter() - started}


def _ask(session: Session, question: str, picture: bytes | None = None) -> dict[str, float]:
    reply = session.ask(question, [picture] if picture else [], sampling=SamplingParams(max_tokens=ANSWER))
    return {"seconds": reply.timings.time_to_first_token, "tiles": reply.usage.tiles_encoded}


def _complete(llama: Llama, messages: list[dict[str, Any]]) -> tuple[dict[str, float], str]:
    """Seconds to the first text, and the answer, which does not end by itself: some would before any text."""
    pieces, first_piece = [], 0.0
    never = {llama.tokenize(end, add_bos=False, special=True)[0]: -math.inf for end in ENDS}
    started = time.perf_counter()
    for chunk in llama.create_chat_completion(
        messages, temperature=0.0, repeat_penalty=1.0, max_tokens=ANSWER, stream=True, logit_bias=never
    ):
        if piece := chunk["choices"][0]["delta"].get("content"):
            first_piece = first_piece or time.perf_counter() - started
            pieces.append(piece)
    print(ASKED, file=sys.stderr, flush=True)
    if not pieces:
        raise SystemExit("MTMDChatHandler gave an answer without text.")
    return {"seconds": first_piece}, "".join(pieces)


def main() -> None:
    children = {"first": first, "restart": restart, "restored": restored, "handler": handler}
    print(json.dumps(children[sys.argv[1]](json.load(sys.stdin))))


if __name__ == "__main__":
    main()
