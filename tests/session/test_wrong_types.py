"""Every entry of the Python interface with arguments of the wrong kind: an error in words, never a bare TypeError."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internvl_gguf import (
    InternVLError,
    InvalidRequestError,
    Message,
    Picture,
    PictureError,
    Question,
    Reply,
    SamplingParams,
    Session,
    tiling,
)
from internvl_gguf.config import EngineConfig
from internvl_gguf.history import History
from internvl_gguf.models.resolve import ModelFiles
from tests.support.exact import EXACT
from tests.support.kept import SHORT
from tests.support.pictures import encoded, noise

WRONG_SAMPLING: dict[str, list[Any]] = {
    "max_tokens": ["many", 1.5, True],
    "temperature": ["0.7", [0.7], True, 10**400],
    "top_k": ["40", 2.5],
    "top_p": ["0.8"],
    "min_p": [()],
    "repeat_penalty": ["1"],
    "presence_penalty": [None],
    "frequency_penalty": [{}],
    "penalty_last_n": ["64", 2**21],
    "seed": ["1", 1.5],
    "stop": [None, 5, [5], {"a": 1}, b"END"],
}
WRONG_ENGINE: dict[str, list[Any]] = {
    "n_ctx": ["8192", 1.5, True],
    "n_gpu_layers": ["many", 1.5, None, True, 2**40],
    "vram": [1.5, "much", [1.5], {}],
    "force": ["yes", 1],
    "kv_type": [None, 16, ["f16"], np.zeros(2)],
    "flash_attn": ["on", 1, np.zeros(2), None],
    "n_threads": ["4", 2.5],
    "n_parallel": ["2", None],
    "n_batch": ["512", None],
    "n_ubatch": ["512"],
    "n_draft": ["1", None],
    "embedding_cache_bytes": ["1GiB", None],
    "embedding_disk_bytes": [1.5],
}
WRONG_OPTIONS: dict[str, list[Any]] = {
    "sampling": [{"temperature": 1}, "greedy", 0.7],
    "max_tiles": ["6", 1.5, True],
    "min_tiles": ["1"],
    "thumbnail": ["no", 1],
    "layout": [[], "rows", 5],
    "fit_pictures": ["yes"],
    "nothing": [1],
}


def cases(wrong: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in wrong.items() for value in values]


def is_in_words(error: InternVLError) -> bool:
    """Return whether an error is two lines: what happened, and what to do."""
    return all(line.endswith((".", "?")) and "\n" not in line for line in (error.message, error.hint))


@pytest.mark.parametrize(("name", "value"), cases(WRONG_SAMPLING))
def test_sampling_parameters_of_another_kind(name: str, value: Any) -> None:
    """`SamplingParams(temperature="0.7")` ended in "'>=' not supported between instances of 'str' and 'int'"."""
    with pytest.raises(InvalidRequestError, match=name) as caught:
        SamplingParams(**{name: value})
    assert is_in_words(caught.value)


def test_numbers_of_other_libraries_are_numbers() -> None:
    params = SamplingParams(
        max_tokens=np.int64(5),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        top_p=Fraction(1, 2),  # type: ignore[arg-type]
        seed=np.uint8(3),  # type: ignore[arg-type]
        stop=["a", "b"],  # type: ignore[arg-type]
    )
    assert params == SamplingParams(max_tokens=5, temperature=0.5, top_p=0.5, seed=3, stop=("a", "b"))
    assert [type(value) for value in (params.max_tokens, params.temperature, params.seed)] == [int, float, int]
    assert SamplingParams(stop="END").stop == ("END",)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError):
        SamplingParams(temperature=Decimal("0.5"))  # type: ignore[arg-type]  # no numbers.Real
    config = EngineConfig(n_ctx=np.int32(512), n_gpu_layers=np.int64(-1))  # type: ignore[arg-type]
    assert (type(config.n_ctx), type(config.n_gpu_layers)) == (int, int)


@pytest.mark.parametrize(("name", "value"), cases(WRONG_ENGINE))
def test_engine_options_of_another_kind(tiny: ModelFiles, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Session.open(tiny.text, tiny.mmproj, **{name: value})
    assert is_in_words(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    cases(
        {
            "model": [None, 5, b"demo", ["demo"], "a\0b"],
            "mmproj": [5, b"BF16"],
            "system": [5, ["Be brief."]],
            "max_tiles": ["12", 1.5, None],
            "min_tiles": ["1"],
            "thumbnail": ["no"],
            "on_load": [5],
            "on_download": ["print"],
            "on_notice": [True],
        }
    ),
)
def test_opening_with_arguments_of_another_kind(tiny: ModelFiles, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"model": tiny.text, "mmproj": tiny.mmproj, "n_ctx": 1024, **EXACT, name: value}
    with pytest.raises(InvalidRequestError) as caught:
        Session.open(**arguments)
    assert is_in_words(caught.value)


@pytest.mark.parametrize(("name", "value"), cases(WRONG_OPTIONS))
@pytest.mark.parametrize("method", ["ask", "stream", "next_token_logprobs", "batch"])
def test_options_of_a_question_of_another_kind(session: Session, method: str, name: str, value: Any) -> None:
    before = session.messages
    with pytest.raises(InvalidRequestError) as caught:
        getattr(session, method)(["Hello?"] if method == "batch" else "Hello?", **{name: value})
    assert is_in_words(caught.value)
    assert session.messages == before


@pytest.mark.parametrize(
    ("name", "value"),
    cases({name: [each for each in values if each is not None] for name, values in WRONG_SAMPLING.items()}),
)
def test_sampling_by_its_names_of_another_kind(session: Session, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=name) as caught:
        session.ask("Hello?", **{name: value})
    assert is_in_words(caught.value)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("image", "images"),
        ("max_new_tokens", "max_tokens"),
        ("repetition_penalty", "repeat_penalty"),
        ("max_num", "max_tiles"),
        ("do_sample", "temperature"),
        ("stream", "Session.stream"),
        ("tempreature", "Did you mean temperature?"),
        ("question", "prompt"),
        ("length_penalty", "no"),
        ("min_tokens", "no least length"),
        ("messages", "continue_with"),
        ("response_format", "schema"),
        ("guided_json", "schema"),
        ("functions", "tools"),
        ("logprobs", "next_token_logprobs"),
        ("n", "one answer"),
    ],
)
def test_an_option_of_another_tool_is_answered_with_the_one_here(session: Session, name: str, here: str) -> None:
    with pytest.raises(InvalidRequestError, match=name) as caught:
        session.ask("Hello?", **{name: 5})  # type: ignore[arg-type]
    assert here in caught.value.hint
    assert is_in_words(caught.value)


@pytest.mark.parametrize(
    ("make", "here"),
    [
        (lambda: SamplingParams(max_new_tokens=1), "max_tokens"),  # type: ignore[call-arg]
        (lambda: SamplingParams(tempreature=1), "temperature"),  # type: ignore[call-arg]
        (lambda: SamplingParams(guided_json={}), "ask"),  # type: ignore[call-arg]
        (lambda: Question("Hello?", image="a.png"), "images"),
        (lambda: Question(question="Hello?"), "prompt"),
        (lambda: Question("Hello?", custom_id="a"), "id"),
        (lambda: Picture("a.png", max_num=4), "max_tiles"),  # type: ignore[call-arg]
        (lambda: EngineConfig(num_ctx=512), "n_ctx"),  # type: ignore[call-arg]
        (lambda: Session("demo"), "Session.open"),  # type: ignore[arg-type]
        (lambda: Session("demo", n_ctx=512), "Session.open"),  # type: ignore[arg-type]
        (lambda: Session.open(max_model_len=512), "n_ctx"),  # type: ignore[call-arg]
        (lambda: Session.open(max_num_seqs=4), "n_parallel"),  # type: ignore[call-arg]
        (lambda: Session.open(gpu_memory_utilization=0.9), "vram"),  # type: ignore[call-arg]
        (lambda: Session.open(device_map="auto"), "n_gpu_layers"),  # type: ignore[call-arg]
        (lambda: Session.open(num_threads=4), "n_threads"),  # type: ignore[call-arg]
        (lambda: Session.open(cache_dir="a"), "INTERNVL_CACHE"),  # type: ignore[call-arg]
        (lambda: Session.open(temperature=1.0), "ask"),  # type: ignore[call-arg]
        (lambda: Session.open(logprobs=5), "ask"),  # type: ignore[call-arg]
    ],
)
def test_a_name_of_another_tool_is_no_bare_type_error(make: Callable[[], object], here: str) -> None:
    """Only `ask` knew the names of other tools: everything else ended in "unexpected keyword argument"."""
    with pytest.raises(InvalidRequestError) as caught:
        make()
    assert here in caught.value.hint
    assert is_in_words(caught.value)


def test_a_question_takes_its_options_by_their_names(session: Session) -> None:
    asked = Question("Hello?", (), {"max_tokens": 9, "seed": 1}, max_tokens=2)
    assert asked.options == {"max_tokens": 2, "seed": 1}
    assert replace(asked, prompt="And?").options == asked.options
    (outcome, wrong) = session.batch([asked, Question("Hello?", tempreature=1)])
    assert isinstance(outcome, Reply)
    assert outcome.usage.completion_tokens == 2
    assert isinstance(wrong, InvalidRequestError)
    assert "temperature" in wrong.hint


def test_outcomes_of_a_batch_are_written_alike(session: Session) -> None:
    """`[outcome.to_dict() for outcome in outcomes]` failed at the first error."""
    good, bad = (each.to_dict() for each in session.batch(["Hello?", Question("?", "missing.png")], sampling=SHORT))
    assert good["text"]
    assert set(bad) == {"error", "hint"}


def test_a_session_says_what_it_is(session: Session) -> None:
    assert repr(session) == "<Session of text.gguf, n_ctx=1,024>"
    session.close()
    assert repr(session) == "<Session, closed>"


def test_tokens_have_ids_and_texts(session: Session) -> None:
    ids = session.tokens("Hello?")
    assert "".join(map(session.token_text, ids)) == "Hello?"
    for wrong in (-1, 10**9, "a", 1.5):
        with pytest.raises(InvalidRequestError):
            session.token_text(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError):
        session.tokens(5)  # type: ignore[arg-type]


def test_fields_of_the_sampling_are_options_by_their_names(session: Session) -> None:
    """`session.ask("..", max_tokens=10)` was refused, though a line of --batch and the command line took it."""

    def tokens(**options: Any) -> int:
        return session.fork().ask("Hello?", **options).usage.completion_tokens

    assert tokens(max_tokens=3) == tokens(sampling=SamplingParams(max_tokens=3)) == 3
    assert tokens(sampling=SamplingParams(max_tokens=9), max_tokens=2) == 2
    assert tokens(sampling=SamplingParams(max_tokens=2), temperature=1.0, seed=3) == 2
    assert tokens(max_tokens=2, seed=None, stop=None) == 2
    questions = [
        Question("Hello?"),
        Question("Hello?", options={"max_tokens": 1}),
        Question("Hello?", options={"sampling": SamplingParams(max_tokens=2)}),
    ]
    outcomes = session.batch(questions, max_tokens=3)
    assert [each.usage.completion_tokens for each in outcomes if isinstance(each, Reply)] == [3, 1, 2]


def test_none_leaves_an_option_out(session: Session) -> None:
    options = dict.fromkeys(("max_tiles", "min_tiles", "thumbnail", "layout", "fit_pictures"))
    reply = session.ask("Hello?", [noise(1)], sampling=SHORT, **options)  # type: ignore[arg-type]
    session.clear()
    assert session.ask("Hello?", [noise(1)], sampling=SHORT).text == reply.text


@pytest.mark.parametrize("method", ["ask", "stream", "next_token_logprobs"])
@pytest.mark.parametrize("prompt", [None, 5, b"Hello?", ["Hello?"]])
def test_a_prompt_of_another_kind(session: Session, method: str, prompt: Any) -> None:
    with pytest.raises(InvalidRequestError, match="prompt is") as caught:
        getattr(session, method)(prompt)
    assert is_in_words(caught.value)


class Tensor:
    """An array of another library, as numpy knows one."""

    ndim = 3

    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        return np.zeros((12, 12, 3), np.uint8)

    def __iter__(self) -> Any:
        return iter(np.zeros((12, 12, 3), np.uint8))

    def __len__(self) -> int:
        return 12


PICTURE = np.zeros((12, 12, 3), np.uint8)
PICTURE_FILE = encoded(noise(1), "PNG")


@pytest.mark.parametrize(
    "image",
    [
        PICTURE,
        PICTURE[:, :, 0],
        noise(1),
        Picture(PICTURE),
        PICTURE_FILE,
        bytearray(PICTURE_FILE),
        memoryview(PICTURE_FILE),
    ],
    ids=lambda image: type(image).__name__,
)
def test_one_picture_needs_no_list(session: Session, image: Any) -> None:
    """The rows of a numpy array were once taken for twelve pictures; later a picture without a list was refused."""
    expected = session.fork().ask("What is it?", [image], sampling=SHORT)
    assert expected.usage.images == 1
    assert session.fork().ask("What is it?", images=image, sampling=SHORT).text == expected.text
    assert "".join(each.text for each in session.fork().stream("What is it?", image, sampling=SHORT)) == expected.text
    (outcome,) = session.batch([Question("What is it?", image)], sampling=SHORT)
    assert isinstance(outcome, Reply)
    assert (outcome.text, outcome.usage.images) == (expected.text, 1)


def test_one_path_needs_no_list(session: Session, history: History, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(PICTURE_FILE)
    for image in (path, str(path)):
        assert session.fork().ask("What is it?", images=image, sampling=SHORT).usage.images == 1
    conversation = history.begin("tiny")
    assert list(conversation.stream(session, "What is it?", path, sampling=SHORT))
    assert len(conversation.entries[0].pictures) == 1


def test_an_array_of_another_library_is_one_picture_that_cannot_be_used(session: Session) -> None:
    with pytest.raises(PictureError, match="Tensor"):
        session.ask("What is it?", images=Tensor())


def test_an_array_of_several_pictures_says_how_to_give_them(session: Session) -> None:
    with pytest.raises(InvalidRequestError, match="one array of several pictures") as caught:
        session.ask("What is it?", images=np.zeros((2, 12, 12, 3), np.uint8))
    assert caught.value.hint == "Write images=list(array)."


def test_no_pictures_may_be_none(session: Session) -> None:
    """`images=None` was refused, though every program with an optional picture has it."""
    expected = session.fork().ask("What is it?", sampling=SHORT).text
    assert session.fork().ask("What is it?", images=None, sampling=SHORT).text == expected
    (outcome,) = session.batch([Question("What is it?", None)], sampling=SHORT)
    assert isinstance(outcome, Reply)
    assert outcome.text == expected


@pytest.mark.parametrize("images", [5, {"a.png": 1}, {"a.png"}, print])
def test_images_that_are_no_list(session: Session, images: Any) -> None:
    with pytest.raises(InvalidRequestError, match="images is") as caught:
        session.ask("What is it?", images=images)
    assert is_in_words(caught.value)
    (outcome,) = session.batch([Question("What is it?", images)])
    assert isinstance(outcome, InvalidRequestError)


def test_images_may_come_one_after_another(session: Session, history: History) -> None:
    pictures = [noise(1), noise(2)]
    expected = session.fork().ask("What is it?", pictures, sampling=SHORT).text
    for given in (tuple(pictures), iter(pictures), (each for each in pictures)):
        assert session.fork().ask("What is it?", given, sampling=SHORT).text == expected
    (outcome,) = session.batch([Question("What is it?", iter(pictures))], sampling=SHORT)
    assert outcome.text == expected
    conversation = history.begin("tiny")
    chunks = list(conversation.stream(session, "What is it?", iter(pictures), sampling=SHORT))
    assert "".join(chunk.text for chunk in chunks) == expected
    assert len(conversation.entries[0].pictures) == 2


@pytest.mark.parametrize("image", [None, 5, [PICTURE], (), Tensor(), {}])
def test_a_source_that_is_no_picture(session: Session, image: Any) -> None:
    with pytest.raises(PictureError, match="not a kind of picture source") as caught:
        session.embed_image(image)
    assert is_in_words(caught.value)
    with pytest.raises(PictureError):
        session.ask("What is it?", [image])


def test_embedding_takes_a_picture_that_is_cut_already(session: Session) -> None:
    session.ask("What is it?", [noise(1)], sampling=SHORT)
    (cut,) = session.messages[1].pictures
    assert np.array_equal(session.embed_image(cut), session.embed_image(noise(1)))
    for name, value in cases({"max_tiles": ["6", 1.5], "min_tiles": ["1"], "thumbnail": ["no"]}):
        with pytest.raises(InvalidRequestError):
            session.embed_image(noise(1), **{name: value})


@pytest.mark.parametrize(("name", "value"), cases({"max_tiles": ["6"], "min_tiles": [1.5], "thumbnail": ["no"]}))
def test_a_picture_with_limits_of_another_kind(session: Session, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError):
        session.ask("What is it?", [Picture(noise(1), **{name: value})])


@pytest.mark.parametrize("questions", [None, 5, "Hello?", Question("Hello?"), {"a": 1}])
def test_a_batch_of_another_kind(session: Session, questions: Any) -> None:
    with pytest.raises(InvalidRequestError, match="questions is") as caught:
        session.batch(questions)
    assert is_in_words(caught.value)


@pytest.mark.parametrize(
    "question",
    [
        None,
        5,
        Question(5),  # type: ignore[arg-type]
        Question("Hello?", system=5),  # type: ignore[arg-type]
        Question("Hello?", options=5),  # type: ignore[arg-type]
        Question("Hello?", options=[("max_tiles", 6)]),  # type: ignore[arg-type]
        Question("Hello?", options={5: 6}),  # type: ignore[dict-item]
        Question("Hello?", options={"sampling": 5}),
    ],
)
def test_a_wrong_question_is_its_own_outcome(session: Session, question: Any) -> None:
    outcomes = session.batch(["Hello?", question, "And?"], sampling=SHORT)
    assert isinstance(outcomes[1], InvalidRequestError)
    assert is_in_words(outcomes[1])
    assert not isinstance(outcomes[0], InternVLError)
    assert not isinstance(outcomes[2], InternVLError)


WRONG_CALLS: list[tuple[str, Callable[[Session], object]]] = [
    ("save", lambda session: session.save(5)),  # type: ignore[arg-type]
    ("save", lambda session: session.save("a\0b")),
    ("restore", lambda session: Session.restore(None)),  # type: ignore[arg-type]
    ("restore", lambda session: Session.restore("a", recompute="yes")),  # type: ignore[arg-type]
    ("batch", lambda session: session.batch(["Hello?"], on_result=5)),  # type: ignore[arg-type]
    ("set_system", lambda session: session.set_system(5)),  # type: ignore[arg-type]
    ("on_tiles", lambda session: session.on_tiles(5)),  # type: ignore[arg-type]
    ("continue_with", lambda session: session.continue_with(None)),  # type: ignore[arg-type]
    ("continue_with", lambda session: session.continue_with("Hello?")),  # type: ignore[arg-type]
    ("continue_with", lambda session: session.continue_with(["Hello?"])),  # type: ignore[list-item]
    ("continue_with", lambda session: session.continue_with(session.messages, saved=5)),  # type: ignore[arg-type]
    ("continue_with", lambda session: session.continue_with([Message("user", 5)])),  # type: ignore[arg-type]
    (
        "continue_with",
        lambda session: session.continue_with([Message("user", "a", (5,)), Message("assistant", "b")]),  # type: ignore[arg-type]
    ),
    (
        "continue_with",
        lambda session: session.continue_with([Message("user", "a"), Message("assistant", "b", tokens=("c",))]),  # type: ignore[arg-type]
    ),
    ("tile_image", lambda session: tiling.tile_image("photo.png")),  # type: ignore[arg-type]
    ("tile_image", lambda session: tiling.tile_image(PICTURE)),  # type: ignore[arg-type]
    ("tile_image", lambda session: tiling.tile_image(noise(1), max_tiles="6")),  # type: ignore[arg-type]
    ("tile_image", lambda session: tiling.tile_image(noise(1), min_tiles=1.5)),  # type: ignore[arg-type]
    ("tile_image", lambda session: tiling.tile_image(noise(1), tile_size="448")),  # type: ignore[arg-type]
    ("tile_image", lambda session: tiling.tile_image(noise(1), tile_size=0)),
    ("tile_image", lambda session: tiling.tile_image(noise(1), thumbnail="no")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("name", "call"), WRONG_CALLS)
def test_other_calls_with_arguments_of_another_kind(
    session: Session, name: str, call: Callable[[Session], object]
) -> None:
    before = session.messages
    with pytest.raises(InvalidRequestError) as caught:
        call(session)
    assert is_in_words(caught.value)
    assert session.messages == before


def test_the_history_with_arguments_of_another_kind(history: History, session: Session) -> None:
    conversation = history.begin("tiny")
    wrong: Any = 5
    for call in (
        lambda: History.open(wrong),
        lambda: History.open(on_notice=wrong),
        lambda: History.open(state_bytes="4GiB"),  # type: ignore[arg-type]
        lambda: history.begin(wrong),
        lambda: history.begin("tiny", wrong),
        lambda: history.find(wrong),
        lambda: history.search(wrong),
        lambda: history.search("a", limit="5"),  # type: ignore[arg-type]
        lambda: history.forget("k7m"),
        lambda: history.forget([wrong]),
        lambda: history.load(wrong),
        lambda: conversation.stream(wrong, "Hello?"),
        lambda: conversation.stream(session, wrong),
        lambda: conversation.undo(wrong),
        lambda: conversation.set_system(wrong, "Be brief."),
        lambda: conversation.set_system(session, wrong),
        lambda: conversation.set_model(wrong),
        lambda: conversation.continue_in(wrong),
        lambda: conversation.keep_state(wrong),
        lambda: conversation.export(wrong),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            call()
        assert is_in_words(caught.value)
    assert not conversation.entries
    assert not history.search()


def test_the_history_takes_its_folder_as_text(tmp_path: Any) -> None:
    with History.open(str(tmp_path / "data")) as opened:
        assert opened.folder == tmp_path / "data"
