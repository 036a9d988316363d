"""Read clips: the parent's side of the process that decodes them, which is started for one clip and ends with it.

It is not kept for the next clip: what a damaged file does to it ends there.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, Any, Final, Self

from PIL import Image

from internvl_gguf.errors import InternVLError, InvalidRequestError, VideoError
from internvl_gguf.types import Video
from internvl_gguf.utils import arguments
from internvl_gguf.utils.child_process import end_child, error_file, python_module, start_child, stdin_of, stdout_of
from internvl_gguf.utils.process_end import describe_end, last_error_line
from internvl_gguf.utils.safe_text import safe_line, shortened
from internvl_gguf.video.choice import choose_frames
from internvl_gguf.video.clip import Clip, ClipFrame, ClipInfo
from internvl_gguf.video.clip_file import describe_clip, open_clip_file
from internvl_gguf.video.formats import HEAD_BYTES, ClipFormat, identify
from internvl_gguf.video.limits import ClipLimits
from internvl_gguf.video.served_file import MOST_BYTES
from internvl_gguf.video.stop import ClipStop
from internvl_gguf.video.wire import WireEndError, WireError, receive, send

_COMMAND: Final = python_module("internvl_gguf.video.child_main")
_NO_LIMITS: Final = ClipLimits()
_RELEASES: Final = "18"  # the extra in pyproject.toml asks for the same
_PIPE_BYTES: Final = 2**20  # Linux: frames pass with fewer switches between the processes
_LONGEST_TEXT: Final = 200
_ENDING_SECONDS: Final = 5.0
_TURNS: Final = {turn.name: turn for turn in Image.Transpose}
_FFMPEG_LINES: Final = ("[", "Last message repeated")
"""How lines begin that FFmpeg logs: about the clip, not about the end of the process."""
_AGAIN: Final = "Export it again, for example with ffmpeg, and try that file."


class ClipReader:
    """An open clip. Close it, best as a context manager: a process runs for it.

    Attributes:
        info: facts of the clip.
        limits: bounds on what it may cost.
        found_damage: whether the decoder found damage on the way to the frames that were taken.
    """

    def __init__(self, video: Video, limits: ClipLimits, stop: ClipStop | None = None) -> None:
        self.limits = limits
        self.found_damage = False
        self._name = describe_clip(video)
        self._seconds_left = limits.seconds
        self._timed_out = False
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            self._file = open_clip_file(video, limits, self._name)
            opened.callback(self._file.close)
            kind = identify(bytes(self._file.read(0, HEAD_BYTES)), self._name)
            self._errors = opened.enter_context(error_file())
            self._process = _start(kind, self._file.size, limits, self._errors, self._name)
            opened.callback(end_child, self._process)
            if stop is not None:
                stop.watch(self._process)
            self.info = self._read_info(kind)
            self._open = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int:
        """Id of the process that decodes."""
        return self._process.pid

    def close(self) -> None:
        """End the process and close the file. Closing twice is harmless."""
        self._open.close()

    def frames(self, indices: Sequence[int]) -> Iterator[ClipFrame]:
        """Yield frames of the clip, one at a time, so that no more than one has to be held.

        Frames are decoded from the keyframe before each; those near one another share that. The reader is closed if
        not all of them are taken.

        Args:
            indices: their numbers, ascending; see `choose_frames`. One that is there several times is yielded as often.

        Raises:
            InvalidRequestError: numbers that are not whole, do not ascend or are not in the clip.
            VideoError: a clip that is damaged, or takes more time or memory than the limits.
        """
        wanted = [arguments.whole("indices", index) for index in indices]
        if wanted and (wanted != sorted(wanted) or wanted[0] < 0 or wanted[-1] >= self.info.n_frames):
            raise InvalidRequestError(
                f"indices are not all frames of {self._name}, or not in order.",
                f"Give ascending numbers from 0 to {self.info.n_frames - 1}.",
            )
        distinct = sorted(set(wanted))
        self._tell({"frames": distinct})
        try:
            for index in distinct:
                message, pixels = self._next(self.limits.pixels * 4)
                frame = self._frame(message.get("frame"), pixels, index)
                for _ in range(wanted.count(index)):
                    yield frame
        except GeneratorExit:  # the frames that are left would be taken for those of another request
            self.close()
            raise
        self.found_damage = bool(self._next(0)[0].get("found_damage"))

    def _read_info(self, kind: ClipFormat) -> ClipInfo:
        facts: Any = self._next(0)[0].get("info")
        try:
            width, height = (int(each) for each in facts["size"])
            fps, duration = float(facts["fps"]), float(facts["duration"])
            info = ClipInfo(
                name=self._name,
                container=kind.container,
                codec=shortened(safe_line(str(facts["codec"])), _LONGEST_TEXT),
                size=(width, height),
                n_frames=int(facts["n_frames"]),
                fps=fps,
                duration=duration,
                is_counted=bool(facts["is_counted"]),
                n_missing=int(facts["n_missing"]),
            )
        except (TypeError, KeyError, ValueError, OverflowError):
            raise self._broken() from None
        if min(width, height, info.n_frames) < 1 or not (0 < fps < math.inf and 0 <= duration < math.inf):
            raise self._broken()
        return info

    def _frame(self, header: Any, pixels: bytes, stands_for: int) -> ClipFrame:
        """Make a picture of what the child sent."""
        try:
            size, mode, turn = (int(header["size"][0]), int(header["size"][1])), header["mode"], header["turn"]
            index, seconds = int(header["index"]), float(header["time"])
            if mode not in ("RGB", "RGBA") or (turn and turn not in _TURNS) or not 0 <= seconds < math.inf:
                raise ValueError(mode)
            is_damaged = bool(header.get("is_damaged"))
            image = Image.frombytes(mode, size, pixels)
        except (TypeError, KeyError, ValueError, IndexError, OverflowError):
            raise self._broken() from None
        return ClipFrame(index, seconds, _finished(image, turn), stands_for, is_damaged)

    def _next(self, most: int) -> tuple[dict[str, Any], bytes]:
        """Return the next message of the child that is no request for bytes, within the time that is left.

        Raises:
            VideoError: the child refuses the clip, took too long, or died.
        """
        began = time.monotonic()
        watchdog = threading.Timer(max(0.0, self._seconds_left), self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            while "read" in (answer := receive(stdout_of(self._process), most))[0]:
                self._serve(answer[0]["read"])
        except WireEndError:
            raise self._broken(is_ending=True) from None
        except WireError:
            raise self._broken() from None
        finally:
            watchdog.cancel()
            self._seconds_left -= time.monotonic() - began
        message = answer[0]
        if "refused" in message:
            reason, hint = (safe_line(str(message.get(each))) for each in ("refused", "hint"))
            raise VideoError(
                f"Cannot use {self._name}: {shortened(reason, _LONGEST_TEXT)}.", shortened(hint, _LONGEST_TEXT)
            )
        return answer

    def _serve(self, place: Any) -> None:
        """Send the child the bytes of the file that it asked for."""
        try:
            offset, size = place
            if not (type(offset) is int and type(size) is int and offset >= 0 and 0 < size <= MOST_BYTES):
                raise WireError("a request for no bytes")
            data = self._file.read(offset, size)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise WireError(str(error)) from error
        send(stdin_of(self._process), {}, data)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            send(stdin_of(self._process), message)
        except WireError:
            raise self._broken(is_ending=True) from None

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _broken(self, *, is_ending: bool = False) -> VideoError:
        """End the process, and return the error of a clip that it could not decode.

        Args:
            is_ending: whether it closed its pipe, so that it ends by itself and may say why.
        """
        if is_ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_SECONDS)
        self._process.kill()
        status = self._process.wait()
        if self._timed_out:
            return VideoError(
                f"Cannot use {self._name}: decoding it took longer than the limit of {self.limits.seconds:g} s.",
                "Cut out the part that matters, ask for fewer frames, or save it at a lower resolution.",
            )
        line = last_error_line(self._errors)
        said = "" if line.startswith(_FFMPEG_LINES) else line
        ending = describe_end(status, said) if is_ending else "sent what is no frame"
        return VideoError(f"Cannot use {self._name}: its decoder {ending}.", _AGAIN)


def open_clip(video: Video, *, limits: ClipLimits = _NO_LIMITS, stop: ClipStop | None = None) -> ClipReader:
    """Open a clip and read its facts; its first frame is decoded, and no other.

    Args:
        video: the clip; its wishes for frames are not looked at.
        limits: bounds on what it may cost.
        stop: ends its process from another thread, while it is opened, too.

    Raises:
        VideoError: no such file, not a clip, damaged, encrypted, coded in a way that is not read, beyond the limits, or
            PyAV is not installed.
    """
    return ClipReader(video, limits, stop)


def probe_clip(video: Video, *, limits: ClipLimits = _NO_LIMITS) -> ClipInfo:
    """Return the facts of a clip; see `open_clip`."""
    with open_clip(video, limits=limits) as reader:
        return reader.info


def read_clip(video: Video, *, most: int | None = None, limits: ClipLimits = _NO_LIMITS) -> Clip:
    """Read the frames of a clip that are asked for, and hold them all.

    Args:
        video: the clip.
        most: most frames that `frames="auto"` may be; see `choose_frames`.
        limits: bounds on what it may cost.

    Raises:
        VideoError: as `open_clip` and `choose_frames`; or no frame can be decoded.
    """
    with open_clip(video, limits=limits) as reader:
        choice = choose_frames(video, reader.info, most=most, limits=limits)
        frames = tuple(reader.frames(choice.indices))
    return Clip(reader.info, frames, (*choice.notices, *damage_notices(reader, frames)))


def damage_notices(reader: ClipReader, frames: Sequence[ClipFrame]) -> tuple[str, ...]:
    """Return what users should know of the frames that were read: whether others stand for some, or damage may show.

    Args:
        reader: what gave them.
        frames: the frames.
    """
    found, name = [], reader.info.name
    replaced = sum(frame.index != frame.stands_for for frame in frames)
    if replaced and reader.info.is_counted:
        found.append(f"{replaced} of the frames of {name} cannot be decoded; those nearest to them are shown.")
    damaged = sum(frame.is_damaged for frame in frames)
    if damaged:
        many = f"{damaged} of the {len(frames)}" if damaged < len(frames) else f"all {damaged}"
        which = "the frame" if len(frames) == 1 else f"{many} frames"
        found.append(f"{name} is damaged: {which} shown may look wrong.")
    elif reader.found_damage and not replaced:
        found.append(f"{name} is damaged in places; the decoder found nothing wrong with the frames that are shown.")
    return tuple(found)


def _check_decoder(name: str) -> None:
    """Refuse a clip if PyAV is missing or too old; it is not imported.

    Raises:
        VideoError: saying which.
    """
    install = "Install it: pip install 'internvl-gguf[video]'."
    try:
        version = importlib.metadata.version("av")
    except importlib.metadata.PackageNotFoundError:
        raise VideoError(f"Cannot use {name}: clips are decoded by PyAV, which is not installed.", install) from None
    if not version.startswith(f"{_RELEASES}."):
        raise VideoError(f"Cannot use {name}: clips need PyAV {_RELEASES}, and {version} is installed.", install)


def _start(kind: ClipFormat, size: int, limits: ClipLimits, errors: IO[bytes], name: str) -> subprocess.Popen[bytes]:
    if kind.demuxer:
        _check_decoder(name)
    order = {
        "demuxer": kind.demuxer,
        "size": size,
        "seconds": limits.seconds,
        "memory": limits.memory,
        "pixels": limits.pixels,
        "streams": limits.streams,
        "counted_bytes": limits.counted_bytes,
    }
    try:
        return start_child([*_COMMAND, json.dumps(order)], errors, pipe_bytes=_PIPE_BYTES)
    except OSError as error:
        raise InternVLError(
            f"No process for the clip {name} can be started: {error.strerror or error}.", "End other programs."
        ) from error


def _finished(image: Image.Image, turn: str) -> Image.Image:
    """Return a frame upright in RGB, its transparency on white."""
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return image.transpose(_TURNS[turn]) if turn else image
