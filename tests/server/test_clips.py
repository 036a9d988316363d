"""Clips over HTTP: answers equal to a session's, the forms of other servers, and what is refused of them."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from internvl_gguf import Session, Video
from internvl_gguf.video import read_clip
from tests.support.clips import clip, picture
from tests.support.damaged_clips import GROUPS, spoilt
from tests.support.pictures import encoded
from tests.support.served import Served, assert_refused, served

CHAT = "/v1/chat/completions"
COUNT = f"{CHAT}/input_tokens"
PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/secret.ts\n"
WAIT = threading.Event()


@pytest.fixture(scope="module")
def film() -> bytes:
    """A clip of 40 frames at 25 a second."""
    return clip()


def uri(data: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def asked(part: dict[str, Any], text: str = "What happens?", **fields: Any) -> dict[str, Any]:
    """A request about one part."""
    content = [part, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 8, **fields}


def video_url(url: str, **wishes: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url, **wishes}}


def counted(server: Served, part: dict[str, Any], **fields: Any) -> tuple[int, int]:
    """Number of frames that the prompt has, and of its tokens."""
    response = server.post(COUNT, asked(part, **fields))
    assert response.status_code == 200, response.text
    found = response.json()
    return len(found["images"]), found["input_tokens"]


def refusal(server: Served, part: dict[str, Any], path: str = CHAT) -> tuple[int, str, str]:
    """Status, code and message of an error."""
    response = server.post(path, asked(part))
    error = response.json()["error"]
    assert error["message"].endswith(".")
    return response.status_code, error.get("code") or "", error["message"]


def test_an_answer_is_the_one_of_a_session(demo: Served, film: bytes) -> None:
    found = demo.post(CHAT, asked(video_url(uri(film), frames=3, start=0.4, end=1.4))).json()
    with Session.open("demo") as session:
        reply = session.ask("What happens?", Video(film, frames=3, start=0.4, end=1.4), max_tokens=8)
    assert found["choices"][0]["message"]["content"] == reply.text
    assert found["usage"]["prompt_tokens"] == reply.usage.prompt_tokens
    assert (found["usage"]["images"], found["usage"]["tiles"]) == (3, 3)
    assert found["clips"] == [{**reply.clips[0].to_dict(), "name": "clip 1"}]


def test_a_second_turn_decodes_and_encodes_nothing_again(demo: Served, film: bytes) -> None:
    first = asked(video_url(uri(film), frames=2), "How does it begin?")
    answer = demo.post(CHAT, first).json()["choices"][0]["message"]["content"]
    more = [*first["messages"], {"role": "assistant", "content": answer}, {"role": "user", "content": "And then?"}]
    usage = demo.post(CHAT, {**first, "messages": more}).json()["usage"]
    assert usage["tiles_encoded"] == 0
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] // 2


def test_frames_are_chosen_beside_the_url(demo: Served, film: bytes) -> None:
    url = uri(film)
    assert counted(demo, video_url(url))[0] == 8
    assert counted(demo, video_url(url, frames=3))[0] == 3
    assert counted(demo, video_url(url, fps=2.5))[0] == 4
    assert counted(demo, {**video_url(url), "frames": 5})[0] == 5
    assert counted(demo, {"type": "video_url", "video_url": url, "frames": 2})[0] == 2
    assert counted(demo, video_url(url, frames="auto"))[0] > 4


def test_the_words_of_vllm_are_taken(demo: Served, film: bytes) -> None:
    url = uri(film)
    assert counted(demo, video_url(url), media_io_kwargs={"video": {"num_frames": 2}})[0] == 2
    assert counted(demo, video_url(url, frames=3), media_io_kwargs={"video": {"num_frames": 2}})[0] == 3
    assert counted(demo, video_url(url), media_io_kwargs={"video": {"num_frames": -1, "fps": 2.5}})[0] == 4
    frames = ",".join(base64.b64encode(encoded(picture(number), "JPEG")).decode() for number in (0, 9, 18))
    assert counted(demo, video_url(f"data:video/jpeg;base64,{frames}"))[0] == 3


def test_a_list_of_frames_is_the_clip_that_it_is_of(demo: Served, film: bytes) -> None:
    frames = [uri(encoded(each.image, "PNG"), "image/png") for each in read_clip(Video(film, frames=3)).frames]
    listed = asked({"type": "video", "video": frames})
    whole = asked(video_url(uri(film), frames=3))
    of_list, of_clip = (demo.post(CHAT, each).json() for each in (listed, whole))
    assert of_list["choices"][0]["message"] == of_clip["choices"][0]["message"]
    assert of_list["usage"]["prompt_tokens"] == of_clip["usage"]["prompt_tokens"]


def test_times_and_tiles_of_frames(demo: Served, film: bytes) -> None:
    url = uri(film)
    _, plain = counted(demo, video_url(url, frames=2))
    n_frames, timed = counted(demo, video_url(url, frames=2), frame_times=True)
    assert (n_frames, timed > plain) == (2, True)
    listed = {"type": "video", "video": [uri(encoded(picture(0), "PNG"), "image/png")] * 2}
    assert counted(demo, {**listed, "fps": 2}, frame_times=True)[1] > counted(demo, listed, frame_times=True)[1]
    assert counted(demo, video_url(url, frames=2), max_tiles=6)[1] > plain
    assert counted(demo, video_url(url, frames=2, max_tiles=1), max_tiles=6)[1] == plain
    assert counted(demo, video_url(url, frames=2), min_tiles=6)[1] == plain


def test_pictures_and_clips_stand_where_they_are(demo: Served, film: bytes, example: bytes) -> None:
    """The places of the frames stay when the prompt is laid out, and are found again in the next turn."""
    parts = [
        {"type": "text", "text": "First"},
        {"type": "image_url", "image_url": {"url": uri(example, "image/png"), "detail": "low"}},
        {"type": "text", "text": "then"},
        video_url(uri(film), frames=2),
        {"type": "text", "text": "What differs?"},
    ]
    found = demo.post(CHAT, {"messages": [{"role": "user", "content": parts}], "max_tokens": 1})
    assert found.status_code == 200, found.text
    prompt = "First\n<image>\nthen\n<image>\nWhat differs?"
    with Session.open("demo", max_tiles=1) as session:
        reply = session.ask(prompt, [example, Video(film, frames=2)], max_tokens=1, max_tiles=1)
    assert found.json()["usage"]["prompt_tokens"] == reply.usage.prompt_tokens


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (PLAYLIST, "a list of other files, which is never followed"),
        (b"\xff\xd8\xff\xe0 a picture", "a picture, not a clip"),
        (b"no clip at all", "not a clip of a known format"),
    ],
)
def test_what_is_no_clip_is_refused(demo: Served, source: bytes, problem: str) -> None:
    status, code, message = refusal(demo, video_url(uri(source)))
    assert (status, code) == (400, "invalid_video")
    assert message.startswith("Cannot use clip 1: ")
    assert problem in message


@pytest.mark.parametrize("data", ["", "!!!!"])
def test_a_clip_without_data_is_an_invalid_clip_and_the_hint_is_for_clients(demo: Served, data: str) -> None:
    status, code, message = refusal(demo, video_url(f"data:video/mp4;base64,{data}"))
    assert (status, code) == (400, "invalid_video")
    assert "path" not in message
    assert "path" not in refusal(demo, video_url(uri(PLAYLIST)))[2]


def test_a_list_of_frames_is_a_clip_of_the_answer(demo: Served) -> None:
    """With the times that `fps` gives; without it none is known."""
    frames = [uri(encoded(picture(number), "PNG"), "image/png") for number in range(3)]
    shown = demo.post(CHAT, asked({"type": "video", "video": frames, "fps": 2})).json()["clips"]
    expected = [{"image": number, "index": number, "time": number / 2} for number in range(3)]
    assert shown == [{"name": "clip 1", "frames": expected}]
    jpeg = ",".join(base64.b64encode(encoded(picture(number), "JPEG")).decode() for number in range(2))
    (untimed,) = demo.post(CHAT, asked(video_url(f"data:video/jpeg;base64,{jpeg}"))).json()["clips"]
    assert [frame["time"] for frame in untimed["frames"]] == [None, None]


def test_a_damaged_clip_is_told_of_in_the_answer(demo: Served) -> None:
    data = spoilt(clip(size=(320, 240), frames=20, options={**GROUPS, "g": "1000"}), 3)
    notices = demo.post(CHAT, asked(video_url(uri(data), frames=2))).json()["notices"]
    assert notices == ["clip 1 is damaged: all 2 frames shown may look wrong."]


def test_a_clip_that_is_sent_as_a_picture_is_told_its_place(demo: Served, film: bytes) -> None:
    status, code, message = refusal(demo, {"type": "image_url", "image_url": {"url": uri(film)}})
    assert (status, code) == (400, "invalid_image")
    assert "Send it as video_url" in message


def test_a_damaged_clip_is_refused_and_the_server_goes_on(demo: Served, film: bytes) -> None:
    status, code, message = refusal(demo, video_url(uri(film[: len(film) // 4])))
    assert (status, code) == (400, "invalid_video"), message
    assert counted(demo, video_url(uri(film), frames=2))[0] == 2


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (video_url("data:video/mp4;base64,AAAA", frames=0), "messages[0].content[0].video_url"),
        (video_url("data:video/mp4;base64,AAAA", start=2, end=1), "messages[0].content[0].video_url"),
        (video_url("data:video/mp4;base64,AAAA", max_tiles=0), "messages[0].content[0].video_url.max_tiles"),
        (video_url(""), "messages[0].content[0].video_url"),
        (video_url("data:video/mp4;base64,AAAA", bogus=1), "messages[0].content[0].video_url.bogus"),
        (video_url("data:video/mp4;base64,AAAA", num_frames=4), "messages[0].content[0].video_url.num_frames"),
        ({"type": "video", "video": ["x"], "nframes": 3}, "messages[0].content[0].nframes"),
        ({"type": "video", "video": []}, "messages[0].content[0].video"),
        ({"type": "video", "video": ["x"], "frames": 3}, "messages[0].content[0].video.frames"),
    ],
)
def test_a_wish_that_cannot_be_used_is_named(demo: Served, part: dict[str, Any], param: str) -> None:
    assert_refused(demo, CHAT, asked(part), param)


def test_a_start_after_the_end_of_the_clip_is_said(demo: Served, film: bytes) -> None:
    status, _, message = refusal(demo, video_url(uri(film), start=60))
    assert (status, message) == (
        400,
        "Cannot use clip 1: it lasts 1.60 s, and start is 60 s. Give a start before its end.",
    )


def test_interfaces_without_clips_say_where_they_go(demo: Served) -> None:
    part = {"type": "input_video", "video_url": "data:video/mp4;base64,AAAA"}
    response = demo.post("/v1/responses", {"input": [{"role": "user", "content": [part]}]})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_value")
    assert "/v1/chat/completions takes clips" in response.json()["error"]["message"]
    response = demo.post(
        "/v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "video"}]}]}
    )
    assert response.status_code == 400
    assert "/v1/chat/completions takes clips" in response.json()["error"]["message"]


def test_files_and_addresses_are_refused_unless_allowed(demo: Served, tmp_path: Path, film: bytes) -> None:
    (tmp_path / "film.mp4").write_bytes(film)
    assert refusal(demo, video_url(f"file://{tmp_path}/film.mp4"))[1] == "local_images_not_allowed"
    assert refusal(demo, video_url("http://example.org/film.mp4"))[1] == "remote_images_not_allowed"


@pytest.fixture(scope="module")
def rooted(cache_folder: Path, tmp_path_factory: pytest.TempPathFactory, film: bytes) -> Iterator[tuple[Served, Path]]:
    """A server that takes files of a folder and addresses, and clips of 1 MiB; and the folder."""
    root = tmp_path_factory.mktemp("media")
    (root / "film.mp4").write_bytes(film)
    (root / "large.mp4").write_bytes(film + bytes(2**20))
    options = ["--media-root", str(root), "--allow-remote-images", "--max-clip", "1"]
    with served(["demo"], *options) as found:
        yield found, root


def test_a_clip_below_the_media_root_may_be_named(rooted: tuple[Served, Path], film: bytes) -> None:
    server, root = rooted
    assert counted(server, video_url(f"file://{root}/film.mp4", frames=3)) == counted(
        server, video_url(uri(film), frames=3)
    )
    for name in ("large.mp4", "absent.mp4", "../film.mp4"):
        status, _, message = refusal(server, video_url(f"file://{root}/{name}"))
        assert (status, message) == (400, "Cannot use clip 1: there is no such file. Name one below the media root.")


def test_a_clip_that_is_too_large_is_refused(rooted: tuple[Served, Path], film: bytes) -> None:
    status, _, message = refusal(rooted[0], video_url(uri(film + bytes(2**20))))
    assert (status, "Cannot use clip 1: it has more than 1 MiB." in message) == (400, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "169.254.169.254", "10.0.0.1"])
def test_clips_are_fetched_from_public_addresses_only(rooted: tuple[Served, Path], host: str) -> None:
    assert refusal(rooted[0], video_url(f"http://{host}/film.mp4"))[:2] == (400, "invalid_video")


def endless_animation() -> bytes:
    """A GIF whose frames take minutes to decode: one frame of 25 megapixels, a thousand times."""
    file = io.BytesIO()
    frames = [Image.new("P", (5000, 5000), number) for number in (0, 1)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    data = file.getvalue()
    last = data.rindex(b"\x21\xf9\x04")  # the control block of the last frame, up to the trailer
    return data[:-1] + data[last:-1] * 1000 + data[-1:]


def decoders(server: Served) -> list[psutil.Process]:
    """The processes of a server that decode clips."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        try:
            if "internvl_gguf.video.child_main" in child.cmdline():
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def wait_for_decoders(server: Served, most: int) -> int:
    """Wait until there are as many, within twenty seconds, and return how many there are."""
    for _ in range(400):
        if len(decoders(server)) == most:
            break
        WAIT.wait(0.05)
    return len(decoders(server))


def test_decoders_are_few_and_end_when_their_clients_leave(cache_folder: Path) -> None:
    body = asked(video_url(uri(endless_animation(), "image/gif"), frames=2))
    with served(["demo"]) as server:
        clients = [server.client() for _ in range(4)]

        def ask(client: httpx2.Client) -> None:
            with pytest.raises(httpx2.HTTPError):
                client.post(CHAT, json=body, timeout=8)

        threads = [threading.Thread(target=ask, args=[client]) for client in clients]
        for thread in threads:
            thread.start()
        assert wait_for_decoders(server, 2) == 2
        for thread in threads:
            thread.join()
        assert wait_for_decoders(server, 0) == 0
        for client in clients:
            client.close()
        assert server.chat("Is it still there?", max_tokens=1)["usage"]["completion_tokens"] == 1
