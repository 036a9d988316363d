"""Decode the frames of MP4, Matroska and AVI files with FFmpeg, by PyAV. Imported only by the child process.

A frame is reached by a seek to the keyframe before it and exact time stamps from there; frames between two keyframes
share that way. Pixels are those of PyAV's `VideoFrame.to_image`, or with their transparency where a clip has any.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal, cast

import av

# PyAV imports these when it meets such a stream, when this process can open no file any more.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from internvl_gguf.video.decoder import ClipRefusedError, RawFrame, check_frame_size
from internvl_gguf.video.decoder_log import DecoderLog, NoLog
from internvl_gguf.video.decoding import Run, Shown, next_packet
from internvl_gguf.video.stated_bytes import stated_bytes
from internvl_gguf.video.timeline import (
    CountedTimeline,
    DecodingTimeline,
    EstimatedTimeline,
    IndexedTimeline,
    IndexEntry,
    Timeline,
)

CODECS: Final = (
    *("h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "mpeg4", "msmpeg4v2", "msmpeg4", "h263", "flv", "mpeg1video"),
    *("mpeg2video", "mjpeg", "prores", "dnxhd", "qtrle", "png", "ffv1", "huffyuv", "rawvideo", "cinepak", "theora"),
)
"""Decoders that may run: those of phones, cameras, screen recorders and editors. FFmpeg has some 200 more."""

_BUFFER_BYTES: Final = 2**17
_AGAIN: Final = "Export or download it again."
_CONVERT: Final = "Convert it to MP4 with H.264 first, for example with ffmpeg."
_ENCRYPTED: Final = ("its pictures are encrypted", "Give a clip without copy protection.")
_ENCRYPTED_TAGS: Final = ("encv", "drmi", "drms")
_DISAGREEMENT: Final = 0.05
_FIRST_PACKETS: Final = 250
_TURNS: Final = {
    (1, 0, 0, 1): "",
    (0, 1, -1, 0): "ROTATE_270",  # Pillow's angles are counterclockwise
    (-1, 0, 0, -1): "ROTATE_180",
    (0, -1, 1, 0): "ROTATE_90",
    (-1, 0, 0, 1): "FLIP_LEFT_RIGHT",
    (1, 0, 0, -1): "FLIP_TOP_BOTTOM",
    (0, 1, 1, 0): "TRANSPOSE",
    (0, -1, -1, 0): "TRANSVERSE",
}


def open_container(
    file: io.IOBase, demuxer: str, limits: Mapping[str, Any], threads: int, log: DecoderLog | None = None
) -> ContainerDecoder:
    """Open a clip.

    Args:
        file: its bytes.
        demuxer: FFmpeg's name of the only demuxer to use.
        limits: "size" (bytes of the file), "pixels" of a frame, "streams", "counted_bytes".
        threads: threads that decode.
        log: what FFmpeg logs; None where it is not kept.

    Raises:
        ClipRefusedError: it is damaged, has no pictures, is encrypted, or needs more than the limits.
    """
    options = {
        "format_whitelist": demuxer,
        "protocol_whitelist": "none",  # a container that names another file finds it nowhere
        "codec_whitelist": ",".join(CODECS),
        "max_streams": str(limits["streams"]),
        "max_pixels": str(limits["pixels"]),
        "fflags": "+genpts",
    }
    try:
        stated = stated_bytes(file, demuxer)
        container = av.open(
            file, "r", format=demuxer, options=options, buffer_size=_BUFFER_BYTES, metadata_errors="replace"
        )
        is_cut_off = stated is not None and stated > limits["size"]
        return ContainerDecoder(container, demuxer, limits, threads, log or NoLog(), is_cut_off=is_cut_off)
    except MemoryError:
        raise
    except FFmpegError as error:
        raise _damaged(error) from error


class ContainerDecoder:
    """An open clip; see `open_container`."""

    def __init__(
        self,
        container: InputContainer,
        demuxer: str,
        limits: Mapping[str, Any],
        threads: int,
        log: DecoderLog,
        *,
        is_cut_off: bool,
    ) -> None:
        self._container = container
        self._demuxer = demuxer
        self._log = log
        self._is_cut_off = is_cut_off
        self.found_damage = False
        self._most_pixels: int = limits["pixels"]
        self._stream = _choose_stream(container, limits["streams"])
        context = self._stream.codec_context
        check_frame_size(max(1, context.width), max(1, context.height), self._most_pixels)
        context.options = {"max_pixels": str(self._most_pixels), "err_detect": "crccheck"}
        context.thread_type, context.thread_count = "AUTO", threads
        self._timeline = self._read_timeline(limits["size"], limits["counted_bytes"])
        if self._timeline.n_frames < 1:
            raise ClipRefusedError("it has no frames", _AGAIN)
        self._end_of_index = self._indexed_end()
        self._run: Run | None = None
        self._last: Shown | None = None
        self._end: int | None = None  # from this number on nothing can be decoded
        self._first = self._decode_first()

    def _decode_first(self) -> Shown:
        first = self._reach(0)
        if first is not None and isinstance(self._timeline, DecodingTimeline):
            self._timeline.delay, self._run = first.number, None
            first = self._reach(0)
        if first is None:
            if size := self._log.too_large():
                check_frame_size(*size, self._most_pixels)
            raise ClipRefusedError("none of its frames can be decoded", _AGAIN)
        return first

    def facts(self) -> dict[str, Any]:
        """Return the fields of `ClipInfo` but for its name and container; see `Decoder`."""
        frame, timeline = self._first.frame, self._timeline
        turned = _turn(frame) in ("ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE")
        n_frames, duration = timeline.n_frames, self._duration
        if isinstance(timeline, IndexedTimeline):
            n_missing, all_frames = timeline.n_missing, n_frames + timeline.n_missing
            rate, duration = self._rate(all_frames, duration), duration * n_frames / all_frames
        else:
            rate = self._rate(n_frames, duration)
            n_missing = self._lost(rate, duration)
        return {
            "codec": self._stream.codec_context.name,
            "size": (frame.height, frame.width) if turned else (frame.width, frame.height),
            "n_frames": n_frames,
            "fps": rate,
            "duration": duration,
            "is_counted": timeline.is_counted,
            "n_missing": n_missing,
        }

    def _lost(self, rate: float, duration: float) -> int:
        """Return how many frames a file lost by being cut off, if they are counted: by the duration it states."""
        if not self._is_cut_off or not self._timeline.is_counted:
            return 0
        if self._demuxer == "avi":  # FFmpeg shortens the duration to what is there
            stated = self._stream.frames * float(self._stream.time_base or 0)
        else:
            stated = (self._container.duration or 0) / av.time_base
        return max(0, round((stated - duration) * rate))

    def frames(self, wanted: Sequence[int]) -> Iterator[RawFrame]:
        """Yield a frame for each number; see `Decoder`.

        Raises:
            ClipRefusedError: none can be decoded, or one is too large.
        """
        for number in wanted:
            try:
                found = self._reach(number)
                self.found_damage = self.found_damage or (self._run is not None and self._run.found_damage)
                if found is None:
                    found = self._last if self._last and self._last.number <= number else self._first
                raw = self._raw(found, number)
            except MemoryError:
                raise
            except FFmpegError as error:
                raise _damaged(error) from error
            self._last = found
            yield raw

    def _reach(self, number: int) -> Shown | None:
        """Decode up to a frame; return it or the one before it, None if nothing can be decoded from there on."""
        if self._end is not None and number >= self._end:
            return None
        place, steps = self._timeline.place(number), 1
        if self._run is not None and self._run.leads_to(number, self._timeline.first_number(place)):
            return self._run.to(number)
        while True:
            self._run = self._begin(place)
            found = self._run.to(number) if self._run else None
            if self._run is not None and found is not None and (place == 0 or self._run.is_good(found, number)):
                return found
            if place == 0:
                self._end = number
                return None
            place, steps = self._timeline.earlier(place, steps), 2 * steps

    def _begin(self, place: int) -> Run | None:
        """Seek to a place; None where the packets there are not known."""
        try:
            self._container.seek(self._timeline.seek_time(place), stream=self._stream)
        except FFmpegError:
            self._stream.codec_context.flush_buffers()
            with contextlib.suppress(FFmpegError):
                self._container.seek(0)
        packets = self._container.demux(self._stream)
        first = next_packet(packets)
        if first is None or not first.size:
            return None
        if first.has_sidedata("encryption_info"):
            raise ClipRefusedError(*_ENCRYPTED)
        numbers = self._timeline.numbers(first)
        return Run(self._stream.codec_context, first, packets, numbers, self._log) if numbers else None

    def _raw(self, shown: Shown, stands_for: int) -> RawFrame:
        frame = shown.frame
        check_frame_size(frame.width, frame.height, self._most_pixels)
        components = frame.format.components
        has_alpha = len(components) in (2, 4) and any(each.is_alpha for each in components)
        flat = frame.reformat(format="rgba" if has_alpha else "rgb24")
        time = float((shown.stamp - self._first.stamp) * (self._stream.time_base or 0))
        size = (frame.width, frame.height)
        pixels = _without_gaps(flat, 4 if has_alpha else 3)
        mode: Literal["RGB", "RGBA"] = "RGBA" if has_alpha else "RGB"
        return RawFrame(shown.number, stands_for, max(0.0, time), size, mode, _turn(frame), pixels, shown.is_damaged)

    @property
    def _duration(self) -> float:
        """Seconds of the clip: by the times of its frames, else as the stream or the container states."""
        base, timeline = self._stream.time_base, self._timeline
        if isinstance(timeline, CountedTimeline) and timeline.n_frames > 1 and base:
            between = float((timeline.shown[-1] - timeline.shown[0]) * base) / (timeline.n_frames - 1)
            return between * timeline.n_frames
        if self._stream.duration and base:
            return float(max(self._stream.duration, self._end_of_index) * base)
        if self._container.duration:
            return (self._container.duration - max(0, self._container.start_time or 0)) / av.time_base
        return self._timeline.n_frames / float(self._stream.average_rate or self._stream.guessed_rate or 25)

    def _indexed_end(self) -> int:
        """Return where the last frame of uneven ones ends, in ticks from the first; 0 where nothing has to be read.

        An MP4 states the sum of the times between decodings, which is less where frames are shown in another order and
        the last of them are the longest.
        """
        index, timeline = self._stream.index_entries, self._timeline
        if not isinstance(timeline, IndexedTimeline) or timeline.is_even or timeline.n_missing:
            return 0
        place = timeline.place(timeline.n_frames - 1)
        if len(index) - timeline.first_number(place) > _FIRST_PACKETS:
            return 0
        self._container.seek(timeline.seek_time(place), stream=self._stream)
        ends = [
            packet.pts + (packet.duration or 0)
            for packet in self._container.demux(self._stream)
            if packet.pts is not None and not packet.is_discard
        ]
        return max(ends, default=0) - (self._stream.start_time or 0)

    def _rate(self, n_frames: int, duration: float) -> float:
        """Return the average rate that the container states, as the card takes it, or by count where that is wrong."""
        stated = float(self._stream.average_rate or 0)
        counted = n_frames / duration if duration > 0 else stated or 1.0
        agrees = abs(stated - counted) <= _DISAGREEMENT * counted + 1 / max(duration, 1e-9)
        return stated if stated > 0 and agrees else counted

    def _read_timeline(self, size: int, counted_bytes: int) -> Timeline:
        index = self._stream.index_entries
        if self._stream.frames and self._stream.frames == len(index) and self._demuxer == "mov":
            entries = (IndexEntry(e.timestamp, e.is_keyframe, not e.is_discard, e.pos + e.size) for e in index)
            return IndexedTimeline(entries, size)
        if size > counted_bytes and self._container.duration:
            return self._estimated_timeline()
        return self._counted_timeline()

    def _counted_timeline(self) -> CountedTimeline:
        """Read all packets; a file that breaks off has those before."""
        is_avi = self._demuxer == "avi"
        by_decoding = self._demuxer != "matroska"
        shown: list[int] = []
        keys: list[tuple[int, int]] = []
        with contextlib.suppress(FFmpegError):
            for packet in self._container.demux(self._stream):
                times = (packet.dts, packet.pts) if is_avi else (packet.pts, packet.dts)
                time = next((each for each in times if each is not None), None)
                if not packet.size or packet.is_discard or time is None:
                    continue
                shown.append(time)
                if packet.is_keyframe:
                    keys.append((time, packet.dts if by_decoding and packet.dts is not None else time))
        keys.sort()
        kind = DecodingTimeline if is_avi else CountedTimeline
        return kind(sorted(shown), [key for key, _ in keys], [seek for _, seek in keys])

    def _estimated_timeline(self) -> EstimatedTimeline:
        base = float(self._stream.time_base or 1)
        rate = self._rate_of_beginning(base)
        seconds = (self._container.duration or 0) / av.time_base - float((self._stream.start_time or 0) * base)
        n_frames = max(1, int(seconds * rate))
        return EstimatedTimeline(n_frames, self._stream.start_time or 0, 1 / (rate * base), rate)

    def _rate_of_beginning(self, base: float) -> float:
        """Return the frames a second of the first packets; what is stated may be the resolution of the time stamps."""
        packets = islice(self._container.demux(self._stream), _FIRST_PACKETS)
        with contextlib.suppress(FFmpegError):
            stamps = [packet.pts for packet in packets if packet.pts is not None]
            if len(stamps) > 1 and max(stamps) > min(stamps):
                return self._rate(len(stamps) - 1, (max(stamps) - min(stamps)) * base)
        return float(self._stream.average_rate or 25)


def _choose_stream(container: InputContainer, most: int) -> VideoStream:
    """Return the stream of pictures that FFmpeg thinks is the main one.

    Raises:
        ClipRefusedError: there is none, or it cannot be decoded.
    """
    if len(container.streams) > most:
        raise ClipRefusedError(f"it has more than {most} streams", "Export it with its pictures alone.")
    if not container.streams:
        raise ClipRefusedError("it has neither moving pictures nor sound", "Give a clip with pictures.")
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    clips = [each for each in container.streams.video if not each.disposition & covers]
    if not clips:
        kind = "sound and no moving pictures" if container.streams.audio else "no moving pictures"
        raise ClipRefusedError(f"it has {kind}", "Give a clip with pictures.")
    best = container.streams.best("video")
    stream = best if best in clips else clips[0]
    context = getattr(stream, "codec_context", None)
    tag = "" if context is None else context.codec_tag
    if tag in _ENCRYPTED_TAGS or any(name.startswith("enc_") for name in stream.metadata):
        raise ClipRefusedError(*_ENCRYPTED)
    if context is None or context.name not in CODECS:
        name = "an unknown codec" if context is None else f"the codec {context.name}"
        raise ClipRefusedError(f"its pictures are coded by {name}, which is not decoded here", _CONVERT)
    return stream


def _turn(frame: VideoFrame) -> str:
    """Return the name of Pillow's turn that the display matrix of a frame asks for; "" for none."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return ""
    a, b, _, c, d = struct.unpack_from("=5i", cast("Any", matrix))
    largest = max(abs(a), abs(b), abs(c), abs(d), 1)
    return _TURNS.get((round(a / largest), round(b / largest), round(c / largest), round(d / largest)), "")


def _without_gaps(frame: VideoFrame, pixel_bytes: int) -> bytes:
    """Return the rows of an RGB or RGBA frame; FFmpeg pads them."""
    plane = frame.planes[0]
    data, width, step = bytes(plane), frame.width * pixel_bytes, plane.line_size
    if step == width:
        return data[: width * frame.height]
    return b"".join(data[row * step : row * step + width] for row in range(frame.height))


def _damaged(error: FFmpegError) -> ClipRefusedError:
    reason = (error.strerror or type(error).__name__).rstrip(".")
    return ClipRefusedError(f"it is damaged or cut off ({reason})", _AGAIN)
