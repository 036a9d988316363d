"""OpenAI's own package for Python asks the server, with and without asyncio."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from tests.clients.conftest import KEY
from tests.support.served import DESCRIPTION, Served, data_uri, user
from tests.support.wishes import COLOURS

pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed: make test-clients")
openai = pytest.importorskip("openai", reason="the package openai is not installed: make test-clients")

WHAT = "What is in the picture?"
RED = "What is red?"
ONE = {"tool_choice": "required", "parallel_tool_calls": False}


def client_of(server: Served, key: str = "any", kind: str = "OpenAI") -> Any:
    return getattr(openai, kind)(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture
def client(demo: Served) -> Any:
    with client_of(demo) as opened:
        yield opened


def seen() -> Any:
    """A model that an answer is read into."""
    number = pydantic.Field(ge=0, le=99)
    return pydantic.create_model("Seen", colour=(Literal["red", "blue"], ...), number=(int, number))


def look() -> Any:
    """A tool whose arguments are read into a model."""
    arguments = pydantic.create_model("Look", colour=(Literal["red", "blue"], ...), exact=(bool, ...))
    return openai.pydantic_function_tool(arguments, name="look", description="Looks at shapes.")


def items(picture: bytes) -> list[dict[str, Any]]:
    """The input of a response."""
    parts = [
        {"type": "input_image", "image_url": data_uri(picture), "detail": "auto"},
        {"type": "input_text", "text": WHAT},
    ]
    return [{"role": "user", "content": parts}]


def test_a_completion_about_a_picture(client: Any, example: bytes) -> None:
    answer = client.chat.completions.create(model="demo", messages=[user(WHAT, example)])
    assert answer.choices[0].message.content == DESCRIPTION
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.tiles == 10


def test_a_completion_as_a_stream(client: Any, example: bytes) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage = client.chat.completions.create(model="demo", messages=[user(WHAT, example)], **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == DESCRIPTION
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage.completion_tokens > 0


def test_the_package_puts_a_stream_together(client: Any, example: bytes) -> None:
    options = {"stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2}
    with client.chat.completions.stream(model="demo", messages=[user(WHAT, example)], **options) as stream:
        told = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(told) == answer.choices[0].message.content == DESCRIPTION
    assert "".join(token.token for token in answer.choices[0].logprobs.content) == DESCRIPTION
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
    assert (stopped.message.content, stopped.finish_reason) == (DESCRIPTION.partition("blue")[0], "stop")
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
    assert "".join(told) == response.output_text == DESCRIPTION
    assert response.status == "completed"
    assert "".join(token.token for token in response.output[0].content[0].logprobs) == DESCRIPTION
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


def test_an_answer_read_into_a_model(client: Any, example: bytes) -> None:
    answer = client.chat.completions.parse(model="demo", messages=[user(WHAT, example)], response_format=seen())
    assert answer.choices[0].message.parsed.colour in COLOURS
    response = client.responses.parse(model="demo", input=items(example), text_format=seen())
    assert response.output_parsed.number in range(100)
    with client.responses.stream(model="demo", input=items(example), text_format=seen()) as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == response.output_text


def test_an_answer_that_is_cut_is_not_parsed(client: Any) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="demo", messages=[user(RED)], response_format=seen(), max_tokens=3)


def test_tools_of_completions(client: Any) -> None:
    options = {"model": "demo", "messages": [user(RED)], "tools": [look()], **ONE}
    (call,) = client.chat.completions.parse(**options).choices[0].message.tool_calls
    assert call.function.parsed_arguments.colour in COLOURS
    with client.chat.completions.stream(**options) as stream:
        told = [event for event in stream if event.type.startswith("tool_calls")]
        message = stream.get_final_completion().choices[0].message
    assert told[-1].type == "tool_calls.function.arguments.done"
    assert message.tool_calls[0].function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "3"}
    more = [user(RED), message.to_dict(), result]
    after = client.chat.completions.create(**{**options, "messages": more, "tool_choice": "none"}, max_tokens=20)
    assert after.choices[0].message.content
    assert after.usage.prompt_tokens_details.cached_tokens > after.usage.prompt_tokens - 40  # the new turn alone


def test_tools_of_responses(client: Any) -> None:
    tool = {"type": "function", **look()["function"]}
    options = {"model": "demo", "tools": [tool], **ONE}
    response = client.responses.create(input=RED, **options)
    (call,) = response.output
    with client.responses.stream(input=RED, **options) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    assert streamed.output[0].arguments == call.arguments
    more = [user(RED), *streamed.output, {"type": "function_call_output", "call_id": streamed.output[0].call_id,
                                          "output": "3"}]  # fmt: skip
    after = client.responses.create(input=more, **{**options, "tool_choice": "none"}, max_output_tokens=20)
    assert after.output_text
    assert after.usage.input_tokens_details.cached_tokens > after.usage.input_tokens - 40


def test_a_schema_that_cannot_be_used_names_its_field(client: Any) -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "frog"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=[user(RED)], response_format=wrong, stream=True)
    assert (caught.value.param, caught.value.code) == ("response_format.json_schema.schema", "invalid_json_schema")


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
    assert answer.choices[0].message.content == text == response.output_text == DESCRIPTION


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
