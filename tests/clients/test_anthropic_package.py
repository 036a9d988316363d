"""Anthropic's own package for Python asks the server, with and without asyncio."""

from __future__ import annotations

import asyncio
import base64
import json
from operator import attrgetter
from typing import Any, Literal

import pytest

from tests.clients.conftest import KEY
from tests.support.served import DESCRIPTION, Served
from tests.support.wishes import anthropic_tools, fits_tool

pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed: make test-clients")
anthropic = pytest.importorskip("anthropic", reason="the package anthropic is not installed: make test-clients")

RED = [{"role": "user", "content": "What is red?"}]


def client_of(server: Served, key: str | None = "any", kind: str = "Anthropic", **options: Any) -> Any:
    return getattr(anthropic, kind)(base_url=server.url, api_key=key, max_retries=0, timeout=60, **options)


@pytest.fixture
def client(demo: Served) -> Any:
    with client_of(demo) as opened:
        yield opened


@pytest.fixture
def asked(example: bytes) -> dict[str, Any]:
    """A question about the picture."""
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(example).decode()}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is in the picture?"}]
    return {"model": "demo", "max_tokens": 60, "messages": [{"role": "user", "content": parts}]}


def test_a_message_about_a_picture(client: Any, asked: dict[str, Any]) -> None:
    message = client.messages.create(**asked)
    assert [block.text for block in message.content] == [DESCRIPTION]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens > 360
    assert message._request_id.startswith("req_")


def test_the_package_puts_a_stream_together(client: Any, asked: dict[str, Any]) -> None:
    with client.messages.stream(**asked) as stream:
        told = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert told == message.content[0].text == DESCRIPTION
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


def test_the_events_of_a_stream(client: Any, asked: dict[str, Any]) -> None:
    events = list(client.messages.create(**{**asked, "max_tokens": 4}, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[-2].delta.stop_reason == "max_tokens"
    assert events[-2].usage.output_tokens == 4


def test_stop_sequences(client: Any, asked: dict[str, Any]) -> None:
    message = client.messages.create(**asked, stop_sequences=["green", "blue"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "blue")
    assert message.content[0].text == DESCRIPTION.partition("blue")[0]


def test_an_answer_that_the_client_began_is_gone_on_with(client: Any, asked: dict[str, Any]) -> None:
    begun = "A red circle at the"
    messages = [*asked["messages"], {"role": "assistant", "content": begun}]
    message = client.messages.create(**{**asked, "messages": messages})
    assert begun + message.content[0].text == DESCRIPTION


def test_a_second_turn_with_the_blocks_of_the_first(client: Any, asked: dict[str, Any]) -> None:
    first = client.messages.create(**asked)
    more = [{"role": "assistant", "content": first.content}, {"role": "user", "content": "What number is written?"}]
    second = client.messages.create(**{**asked, "messages": [*asked["messages"], *more]})
    assert second.content[0].text == "98"
    assert second.usage.cache_read_input_tokens > 360


def test_a_system_message_in_blocks_that_are_to_be_cached(client: Any, asked: dict[str, Any]) -> None:
    block = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    blocks = client.messages.count_tokens(model="demo", messages=asked["messages"], system=[block])
    text = client.messages.count_tokens(model="demo", messages=asked["messages"], system="Be brief.")
    assert blocks.input_tokens == text.input_tokens
    assert client.messages.create(**asked, system=[block]).content[0].text


def test_tokens_are_counted(client: Any, asked: dict[str, Any]) -> None:
    count = client.messages.count_tokens(model="demo", messages=asked["messages"])
    usage = client.messages.create(**asked).usage
    assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.parametrize("kind", ["messages", "beta.messages"])
def test_an_answer_read_into_a_model(client: Any, kind: str) -> None:
    seen = pydantic.create_model("Seen", colour=(Literal["red", "blue"], ...), exact=(bool, ...))
    message = attrgetter(kind)(client).parse(model="demo", max_tokens=60, messages=RED, output_format=seen)
    assert isinstance(message.parsed_output, seen)


def test_a_tool_as_a_stream_and_its_result(client: Any, example: bytes) -> None:
    options = {"model": "demo", "max_tokens": 200, "tools": anthropic_tools()}
    choice = {"type": "any", "disable_parallel_tool_use": True}
    with client.messages.stream(messages=RED, tool_choice=choice, **options) as stream:
        told = "".join(event.partial_json for event in stream if event.type == "input_json")
        message = stream.get_final_message()
    (use,) = message.content
    assert json.loads(told) == use.input
    assert fits_tool(use.input)
    assert message.stop_reason == "tool_use"
    whole = client.messages.create(messages=RED, tool_choice=choice, **options)
    assert whole.content[0].input == use.input
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(example).decode()}
    seen = [{"type": "text", "text": "This is what I saw."}, {"type": "image", "source": source}]
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": seen}]
    more = [*RED, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    counted = client.messages.count_tokens(model="demo", messages=more, tools=anthropic_tools())
    after = client.messages.create(messages=more, tool_choice={"type": "none"}, **options)
    assert after.usage.cache_read_input_tokens > message.usage.input_tokens
    assert counted.input_tokens == after.usage.input_tokens + after.usage.cache_read_input_tokens
    assert after.usage.tiles == 10


def test_the_package_runs_tools(client: Any) -> None:
    calls = []

    def count(colour: Literal["red", "blue"], exact: bool) -> str:
        """Count shapes."""
        calls.append((colour, exact))
        return "3"

    runner = client.beta.messages.tool_runner(
        model="demo", max_tokens=200, max_iterations=2, messages=RED, tools=[anthropic.beta_tool(count)],
        tool_choice={"type": "any", "disable_parallel_tool_use": True}, thread=False,
    )  # fmt: skip
    assert [message.stop_reason for message in runner] == ["tool_use", "tool_use"]
    assert len(calls) >= 1


def test_the_models(client: Any) -> None:
    (model,) = client.models.list()
    assert (model.id, model.type, model.display_name) == ("demo", "model", "demo")
    assert model.created_at.year >= 2024
    assert client.models.retrieve("demo").max_input_tokens == 8192
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-9")


def test_asyncio(demo: Served, asked: dict[str, Any]) -> None:
    async def ask() -> tuple[Any, Any, Any]:
        async with client_of(demo, kind="AsyncAnthropic") as client:

            async def read() -> Any:
                async with client.messages.stream(**asked) as stream:
                    return await stream.get_final_message()

            count = client.messages.count_tokens(model="demo", messages=asked["messages"])
            return await asyncio.gather(client.messages.create(**asked), read(), count)

    message, streamed, count = asyncio.run(ask())
    assert message.content[0].text == streamed.content[0].text == DESCRIPTION
    assert count.input_tokens > 360


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "red " * 9000}]}, "tokens"),
        ({"stop_sequences": "red"}, "stop_sequences"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "cannot think"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"tools": [{"name": "look", "input_schema": {"type": "frog"}}]}, r"tools\[0\]\.input_schema"),
    ],
)
def test_bad_requests(client: Any, wrong: dict[str, Any], says: str, stream: bool) -> None:
    with pytest.raises(anthropic.BadRequestError, match=says) as caught:
        client.messages.create(**{"model": "demo", "max_tokens": 9, "messages": RED, **wrong}, stream=stream)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("req_")


def test_a_model_that_is_not_there(client: Any) -> None:
    with pytest.raises(anthropic.NotFoundError, match="claude-9") as caught:
        client.messages.create(model="claude-9", max_tokens=9, messages=RED)
    assert caught.value.type == "not_found_error"


def test_the_key_is_checked(keyed: Served) -> None:
    with client_of(keyed, "a wrong one") as client, pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(model="demo", max_tokens=9, messages=RED)
    assert caught.value.type == "authentication_error"
    with client_of(keyed, KEY) as client:
        assert client.messages.create(model="demo", max_tokens=9, messages=RED).content
    with client_of(keyed, None, auth_token=KEY) as client:
        assert client.messages.create(model="demo", max_tokens=9, messages=RED).content


def test_a_server_that_is_busy(busy: Served) -> None:
    with client_of(busy) as client, pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=busy.get("/v1/models").json()["data"][0]["id"], max_tokens=9, messages=RED)
    assert (caught.value.status_code, caught.value.type) == (503, "overloaded_error")
