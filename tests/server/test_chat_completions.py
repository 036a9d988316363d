"""OpenAI's chat: what is asked, the shape of answers, and what a client without a memory costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.support.pictures import encoded, noise
from tests.support.served import DESCRIPTION, Served, assistant, data_uri, streamed, user

CHAT = "/v1/chat/completions"


def chunks(server: Served, **body: Any) -> list[dict[str, Any]]:
    found = [data for _, data in streamed(server, CHAT, body)]
    assert found[-1] == "[DONE]"
    return found[:-1]


def test_a_question_about_a_picture(demo: Served, example: bytes) -> None:
    answer = demo.chat([user("What is in the picture?", example)], model="demo")
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == DESCRIPTION
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"] is None
    assert answer["object"] == "chat.completion"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (usage["images"], usage["tiles"]) == (1, 10)
    assert answer["timings"]["decode"] > 0


def test_a_second_turn_encodes_nothing_and_reads_only_what_is_new(demo: Served) -> None:
    """Clients send the whole conversation each time; other servers encode its pictures again (llama.cpp #18686)."""
    picture = encoded(noise(71, 480, 480), "PNG")
    first = [user("What is in the picture?", picture)]
    one = demo.chat(first)
    assert one["usage"]["tiles_encoded"] == one["usage"]["tiles"] > 1
    said = one["choices"][0]["message"]["content"]
    two = demo.chat([*first, assistant(said), user("Which colour is it?")])
    assert two["usage"]["tiles_encoded"] == 0
    # All that the first request computed is known: its prompt, and its answer but for the last token.
    assert two["usage"]["prompt_tokens_details"]["cached_tokens"] == (
        one["usage"]["prompt_tokens"] + one["usage"]["completion_tokens"]
    )
    three = demo.chat([*first, assistant(said), user("Which colour is it?")])
    assert three["choices"] == two["choices"]
    assert three["timings"]["preprocess"] < one["timings"]["preprocess"]


def test_no_answer_is_about_an_earlier_picture(demo: Served, example: bytes) -> None:
    """Two pictures of one size look alike to a cache that compares token ids (JamePeng/llama-cpp-python #90)."""
    other = encoded(noise(72, 480, 480), "PNG")
    answers = {}
    for name, picture in (("example", example), ("other", other), ("example again", example)):
        answers[name] = demo.chat([user("What is in the picture?", picture)])["choices"][0]["message"]["content"]
    assert answers["example"] == answers["example again"] == DESCRIPTION != answers["other"]


def test_the_shape_of_a_stream(demo: Served, example: bytes) -> None:
    found = chunks(demo, messages=[user("What is in the picture?", example)], stream_options={"include_usage": True})
    first, *middle, last, usage = found
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in middle)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle) == DESCRIPTION
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in [first, *middle])
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert last["timings"]["decode"] > 0
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in found[:-1])
    assert len({chunk["id"] for chunk in found}) == 1


def test_usage_is_streamed_only_if_asked_for(demo: Served) -> None:
    assert all("usage" not in chunk for chunk in chunks(demo, messages=[user("What is red?")]))


def test_progress_is_told_by_events_if_asked_for(demo: Served) -> None:
    picture = encoded(noise(73, 480, 480), "PNG")
    found = chunks(demo, messages=[user("What is in the picture?", picture)], return_progress=True)
    progress = [chunk["progress"] for chunk in found if "progress" in chunk]
    encoding = [(each["done"], each["total"]) for each in progress if each["phase"] == "encoding"]
    reading = [(each["done"], each["total"]) for each in progress if each["phase"] == "reading"]
    assert encoding[0] == (0, 10)
    assert encoding[-1] == (10, 10)
    assert reading
    assert reading[-1][0] == reading[-1][1]
    assert all(one <= two for one, two in pairwise(reading))
    assert all(chunk["choices"] == [] for chunk in found if "progress" in chunk)


def test_logprobs_spell_the_answer(demo: Served) -> None:
    body: dict[str, Any] = {"messages": [user("What is red?")], "logprobs": True, "top_logprobs": 3}
    whole = demo.chat(body["messages"], logprobs=True, top_logprobs=3)["choices"][0]
    tokens = whole["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == whole["message"]["content"]
    for token in tokens:
        likeliest = [each["logprob"] for each in token["top_logprobs"]]
        assert len(likeliest) == 3
        assert likeliest == sorted(likeliest, reverse=True)
        assert token["logprob"] == likeliest[0] <= 0  # the answer is greedy
        assert bytes(token["bytes"]).decode() == token["token"]
    pieces = [chunk["choices"][0]["logprobs"] for chunk in chunks(demo, **body)]
    spelt = "".join(token["token"] for piece in pieces if piece for token in piece["content"])
    assert spelt == whole["message"]["content"]


def test_logprobs_leave_out_what_a_stop_cut(demo: Served) -> None:
    answer = demo.chat("What is red?", logprobs=True, stop=["diamond", "star", "circle", "red", "."])["choices"][0]
    spelt = "".join(token["token"] for token in answer["logprobs"]["content"])
    assert answer["finish_reason"] == "stop"
    assert answer["message"]["content"].startswith(spelt)


def test_several_answers_share_the_picture(demo: Served) -> None:
    picture = encoded(noise(74, 480, 480), "PNG")
    body = {"n": 3, "temperature": 1.5, "top_p": 1, "seed": 7}
    answer = demo.chat([user("What is in the picture?", picture)], **body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["tiles_encoded"] == 10
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert len(set(texts)) > 1


def test_each_answer_takes_the_next_seed(demo: Served) -> None:
    both = demo.chat("What is red?", n=2, temperature=1.0, seed=7)["choices"]
    second = demo.chat("What is red?", temperature=1.0, seed=8)["choices"]
    assert second[0]["message"] == both[1]["message"]


def test_several_streamed_answers_are_told_apart(demo: Served) -> None:
    found = chunks(demo, messages=[user("What is red?")], n=2, temperature=1.0, seed=3)
    whole = demo.chat("What is red?", n=2, temperature=1.0, seed=3)
    for index in (0, 1):
        own = [chunk["choices"][0] for chunk in found if chunk["choices"] and chunk["choices"][0]["index"] == index]
        text = "".join(choice["delta"].get("content", "") for choice in own)
        assert text == whole["choices"][index]["message"]["content"]
        assert own[0]["delta"]["role"] == "assistant"
        assert own[-1]["finish_reason"] == whole["choices"][index]["finish_reason"]


def test_an_answer_that_the_client_began_is_gone_on_with(demo: Served, example: bytes) -> None:
    question = user("What is in the picture?", example)
    begun = [question, assistant("A red circle at the top left, a blue")]
    rest = DESCRIPTION.removeprefix("A red circle at the top left, a blue")
    assert demo.chat(begun)["choices"][0]["message"]["content"] == rest
    as_vllm_asks = {"add_generation_prompt": False, "continue_final_message": True}
    assert demo.chat(begun, **as_vllm_asks)["choices"][0]["message"]["content"] == rest


def test_detail_decides_on_the_tiles(demo: Served, example: bytes) -> None:
    def tiles(detail: str | None, **fields: Any) -> int:
        body = {"messages": [user("What is it?", example, detail=detail)], **fields}
        (picture,) = demo.post(f"{CHAT}/input_tokens", body).json()["images"]
        return int(picture["tiles"])

    assert tiles("low") == 1
    assert tiles("high") == tiles("auto") == tiles(None) == 10
    assert tiles("auto", max_tiles=4) == tiles(None, max_tiles=4) == 5
    assert tiles("high", max_tiles=4) == 10
    assert tiles("low", min_tiles=4, max_tiles=6) == 1


def test_what_a_prompt_takes_is_counted_without_an_answer(demo: Served, example: bytes) -> None:
    messages = [user("What is in the picture?", example)]
    counted = demo.post(f"{CHAT}/input_tokens", {"messages": messages}).json()
    assert counted["input_tokens"] == demo.chat(messages)["usage"]["prompt_tokens"]
    assert counted["context_length"] == 8192
    (picture,) = counted["images"]
    assert picture == {"width": 480, "height": 480, "grid": [3, 3], "thumbnail": True, "tiles": 10, "tokens": 360}


def test_a_picture_stands_where_its_part_does(demo: Served, example: bytes) -> None:
    """Between texts; before or after all of them it stands where the model card has it, before."""

    def tokens(*parts: Any) -> int:
        body = {"messages": [{"role": "user", "content": list(parts)}]}
        return int(demo.post(f"{CHAT}/input_tokens", body).json()["input_tokens"])

    picture = {"type": "image_url", "image_url": {"url": data_uri(example)}}
    one, two = {"type": "text", "text": "Before."}, {"type": "text", "text": "After."}
    assert tokens(picture, one, two) == tokens(one, two, picture)
    between = demo.chat([{"role": "user", "content": [one, picture, {"type": "text", "text": "What is it?"}]}])
    assert between["usage"]["tiles"] == 10


def test_neighbours_of_one_role_are_one_turn(demo: Served) -> None:
    joined = demo.chat([user("What is"), user("red?")])
    assert joined["usage"]["prompt_tokens"] == demo.chat("What is\nred?")["usage"]["prompt_tokens"]


def test_a_system_message_replaces_the_official_one(demo: Served) -> None:
    official = demo.chat("What is red?")["usage"]["prompt_tokens"]
    own = demo.chat([{"role": "developer", "content": "Be brief."}, user("What is red?")])["usage"]["prompt_tokens"]
    assert own < official


@pytest.mark.parametrize("source", ["base64", "a part written as text"])
def test_pictures_as_other_clients_send_them(demo: Served, example: bytes, source: str) -> None:
    uri = data_uri(example)
    image: Any = {"url": uri.partition(",")[2]} if source == "base64" else uri
    parts = [{"type": "image_url", "image_url": image}, {"type": "text", "text": "What is in the picture?"}]
    assert demo.chat([{"role": "user", "content": parts}])["choices"][0]["message"]["content"] == DESCRIPTION


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({}, "messages"),
    "an empty list": ({"messages": []}, "messages"),
    "a text for messages": ({"messages": "hello"}, "messages"),
    "a number for a message": ({"messages": [123]}, "messages[0]"),
    "an empty message": ({"messages": [{}]}, "messages[0].role"),
    "a number for a role": ({"messages": [{"role": 123, "content": "x"}]}, "messages[0].role"),
    "an unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "a tool's message": ({"messages": [user("x"), {"role": "tool", "content": "x"}]}, "messages"),
    "a number for content": ({"messages": [{"role": "user", "content": 123}]}, "messages[0].content"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "an empty question": ({"messages": [user("  ")]}, "messages"),
    "an unknown part": (
        {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
        "messages[0].content[0].type",
    ),
    "sound": ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
    "a picture without address": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].image_url",
    ),
    "an unknown detail": ({"messages": [user("x", b"x", detail="huge")]}, "messages[0].content[0].image_url.detail"),
    "a picture of the assistant": (
        {"messages": [user("x"), {**user("x", b"x"), "role": "assistant"}, user("x")]},
        "messages",
    ),
    "a system message at the end": ({"messages": [user("x"), {"role": "system", "content": "x"}]}, "messages"),
    "an answer that follows no question": (
        {"messages": [user("x"), {"role": "system", "content": "x"}, assistant("x")]},
        "messages",
    ),
    "a misspelt field": ({"messages": [user("x")], "max_tile": 3}, "max_tile"),
    "true for one": ({"messages": [user("x")], "best_of": True}, "best_of"),
    "a refused field": ({"messages": [user("x")], "logit_bias": {"5": 1}}, "logit_bias"),
    "n as text": ({"messages": [user("x")], "n": "2"}, "n"),
    "too many answers": ({"messages": [user("x")], "n": 1000}, "n"),
    "a negative temperature": ({"messages": [user("x")], "temperature": -1}, "temperature"),
    "a huge number": ({"messages": [user("x")], "seed": 10**40}, "seed"),
    "no tokens": ({"messages": [user("x")], "max_tokens": 0}, "max_tokens"),
    "the older of two names": ({"messages": [user("x")], "max_completion_tokens": 5, "max_tokens": "x"}, "max_tokens"),
    "an empty stop": ({"messages": [user("x")], "stop": [""]}, "stop"),
    "top_logprobs alone": ({"messages": [user("x")], "top_logprobs": 2}, "top_logprobs"),
    "no tiles": ({"messages": [user("x")], "max_tiles": 0}, "max_tiles"),
    "a layout of ours misspelt": ({"messages": [user("x")], "layout": "grid"}, "layout"),
    "an answer that goes on with a question": (
        {"messages": [user("x")], "continue_final_message": True},
        "continue_final_message",
    ),
    "an answer that goes on and begins anew": (
        {
            "messages": [user("x"), assistant("x")],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "add_generation_prompt",
    ),
    "stream as text": ({"messages": [user("x")], "stream": "yes"}, "stream"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_used_is_refused_by_name(demo: Served, case: str, stream: bool) -> None:
    body, param = WRONG[case]
    response = demo.post(CHAT, {"stream": stream, **body})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    what, _, todo = error["message"].partition(". ")
    assert what
    assert todo.endswith((".", "?"))


@pytest.mark.parametrize("field", ["user", "metadata", "store", "cache_prompt", "prompt_cache_key"])
def test_what_changes_nothing_is_ignored(demo: Served, field: str) -> None:
    assert demo.chat("What is red?", **{field: "x"})["choices"]


def test_null_is_as_good_as_nothing(demo: Served) -> None:
    fields = dict.fromkeys(("temperature", "stop", "n", "tools", "response_format", "logit_bias", "max_tokens", "seed"))
    assert demo.chat("What is red?", **fields)["choices"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_that_does_not_fit_is_a_400(demo: Served, stream: bool) -> None:
    earlier = [user("What is red?"), assistant("A colour.")]
    response = demo.post(CHAT, {"messages": [*earlier, user("word " * 9000)], "stream": stream})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "an earlier question, too: leave some of the messages out." in error["message"]
    assert "session." not in error["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [user("a" * 20_000_000)],
        [{"role": "system", "content": "a " * 10_000_000}, user("x")],
        [user("x"), assistant("a " * 10_000_000)],
        [message for _ in range(5000) for message in (user("a"), assistant("b"))],
    ],
    ids=["a question", "a system message", "an answer begun", "turns"],
)
def test_what_can_never_fit_is_refused_before_it_is_tokenised(demo: Served, messages: Any) -> None:
    """Fifty megabytes of text took llama.cpp half a minute and gigabytes, and everybody else waited."""
    with demo.client() as client:
        response = client.post(CHAT, json={"messages": messages}, timeout=20)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/chat/completions", "Put /v1 at the end of the base URL."),
        ("/v1/v1/messages", "Leave /v1 out of the base URL."),
        ("/v1/embeddings", "Ask about them instead."),
        ("/v1/completions", "Use /v1/chat/completions."),
        ("/nothing", "GET /openapi.json lists what there is."),
    ],
)
def test_a_wrong_address_is_told_what_is_wrong_with_it(demo: Served, path: str, hint: str) -> None:
    response = demo.post(path, {})
    assert response.status_code == 404
    assert response.json()["error"]["message"].endswith(hint)


def test_another_model_is_a_404_that_names_those_here(demo: Served) -> None:
    response = demo.post(CHAT, {"model": "gpt-4o", "messages": [user("x")]})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert "demo" in response.json()["error"]["message"]
