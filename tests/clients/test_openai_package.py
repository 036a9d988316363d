"""OpenAI's own package for Python asks the server, with and without asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.clients.conftest import KEY, RED_CIRCLE
from tests.support.served import Served, data_uri, user

openai = pytest.importorskip("openai", reason="the package openai is not installed: make test-clients")

WHAT = "What is in the picture?"
RED = "What is red?"


def client_of(server: Served, key: str = "any", kind: str = "OpenAI") -> Any:
    return getattr(openai, kind)(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture
def client(demo: Served) -> Any:
    with client_of(demo) as opened:
        yield opened


def items(picture: bytes) -> list[dict[str, Any]]:
    """The input of a response."""
    parts = [
        {"type": "input_image", "image_url": data_uri(picture), "detail": "auto"},
        {"type": "input_text", "text": WHAT},
    ]
    return [{"role": "user", "content": parts}]


def test_a_completion_about_a_picture(client: Any, example: bytes) -> None:
    answer = client.chat.completions.create(model="demo", messages=[user(WHAT, example)])
    assert answer.choices[0].message.content == RED_CIRCLE
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.tiles == 10


def test_a_completion_as_a_stream(client: Any, example: bytes) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage = client.chat.completions.create(model="demo", messages=[user(WHAT, example)], **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == RED_CIRCLE
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage.completion_tokens > 0


def test_the_package_puts_a_stream_together(client: Any, example: bytes) -> None:
    options = {"stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2}
    with client.chat.completions.stream(model="demo", messages=[user(WHAT, example)], **options) as stream:
        told = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(told) == answer.choices[0].message.content == RED_CIRCLE
    assert "".join(token.token for token in answer.choices[0].logprobs.content) == RED_CIRCLE
    assert answer.usage.completion_tokens == len(answer.choices[0].logprobs.content)


def test_several_answers_and_how_likely_they_were(client: Any) -> None:
    options = {"n": 3, "temperature": 1.5, "seed": 7, "logprobs": True, "top_logprobs": 2}
    answer = client.chat.completions.create(model="demo", messages=[user(RED)], **options)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in choice.logprobs.content)


def test_a_seed_repeats_an_answer(client: Any) -> None:
    def ask(seed: int) -> Any:
        return client.chat.completions.create(model="demo", messages=[user(RED)], temperature=1.5, seed=seed)

    texts = [ask(seed).choices[0].message.content for seed in (5, 5, 6, 7, 8)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_stops_and_lengths(client: Any, example: bytes) -> None:
    messages = [user(WHAT, example)]
    stopped = client.chat.completions.create(model="demo", messages=messages, stop=["blue", "green"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (RED_CIRCLE.partition("blue")[0], "stop")
    cut = client.chat.completions.create(model="demo", messages=messages, max_completion_tokens=3)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 3)


def test_a_second_turn_is_about_the_same_picture(client: Any, example: bytes) -> None:
    messages: list[Any] = [user(WHAT, example)]
    first = client.chat.completions.create(model="demo", messages=messages)
    messages += [first.choices[0].message.to_dict(), user("What number is written?")]
    second = client.chat.completions.create(model="demo", messages=messages)
    assert second.choices[0].message.content == "98"
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1
    assert second.usage.tiles_encoded == 0


def test_fields_that_the_package_does_not_know(client: Any, example: bytes) -> None:
    extra = {"max_tiles": 1, "thumbnail": False}
    answer = client.chat.completions.create(model="demo", messages=[user(WHAT, example)], extra_body=extra)
    assert answer.usage.tiles == 1


def test_a_response_about_a_picture(client: Any, example: bytes) -> None:
    response = client.responses.create(model="demo", input=items(example), instructions="Be brief.")
    assert response.output_text
    assert (response.status, response.incomplete_details) == ("completed", None)
    assert response.usage.input_tokens > 360
    count = client.responses.input_tokens.count(model="demo", input=items(example), instructions="Be brief.")
    assert count.input_tokens == response.usage.input_tokens


def test_a_response_as_a_stream(client: Any, example: bytes) -> None:
    include = ["message.output_text.logprobs"]
    with client.responses.stream(model="demo", input=items(example), include=include) as stream:
        told = [event.delta for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()
    assert "".join(told) == response.output_text == RED_CIRCLE
    assert response.status == "completed"
    assert "".join(token.token for token in response.output[0].content[0].logprobs) == RED_CIRCLE
    assert response.usage.output_tokens > 0


def test_a_response_goes_on_with_what_was_put_out(client: Any, example: bytes) -> None:
    first = client.responses.create(model="demo", input=items(example))
    more = [{"role": "user", "content": "What number is written?"}]
    second = client.responses.create(model="demo", input=[*items(example), *first.output, *more])
    assert second.output_text == "98"


def test_a_response_that_is_cut(client: Any) -> None:
    events = list(client.responses.create(model="demo", input=RED, max_output_tokens=1, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"


def test_the_models(client: Any) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object, model.owned_by) == ("demo", "model", "internvl-gguf")
    assert client.models.retrieve("demo").created == model.created
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_asyncio(demo: Served, example: bytes) -> None:
    async def ask() -> tuple[Any, str, Any]:
        messages = [user(WHAT, example)]
        async with client_of(demo, kind="AsyncOpenAI") as client:
            stream = await client.chat.completions.create(model="demo", messages=messages, stream=True)

            async def read() -> str:
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            whole = client.chat.completions.create(model="demo", messages=messages)
            answer, text = await asyncio.gather(whole, read())
            async with client.responses.stream(model="demo", input=items(example)) as events:
                response = await events.get_final_response()
            return answer, text, response

    answer, text, response = asyncio.run(ask())
    assert answer.choices[0].message.content == text == response.output_text == RED_CIRCLE


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_names_its_field(client: Any, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=[user(RED)], temperature=-1, stream=stream)
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")
    assert "temperature" in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_that_is_too_long_has_its_code(client: Any, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=[user("red " * 9000)], stream=stream)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="demo", input="red " * 9000, stream=stream)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_not_there(client: Any, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=[user(RED)], stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_the_key_is_checked(keyed: Served) -> None:
    with client_of(keyed, "a wrong one") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    with client_of(keyed, KEY) as client:
        assert client.chat.completions.create(model="demo", messages=[user(RED)]).choices


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_busy_says_when_to_ask_again(busy: Served, stream: bool) -> None:
    model = busy.get("/v1/models").json()["data"][0]["id"]
    with client_of(busy) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=[user(RED)], stream=stream)
    assert (caught.value.status_code, caught.value.code) == (503, "queue_full")
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_an_interface_that_is_not_offered(client: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="demo", input="red")
