"""Decode a stream from a keyframe on, and know which frame is which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from internvl_gguf.video.damage import Damage
from internvl_gguf.video.decoder_log import DecoderLog
from internvl_gguf.video.timeline import Numbers


@dataclass(frozen=True)
class Shown:
    """A decoded frame.

    Attributes:
        number: its number in the clip.
        stamp: its time stamp.
        frame: its picture.
        is_led: whether a keyframe came out of the decoder before it, or it is one.
        is_damaged: whether the decoder found damage that may show in it.
    """

    number: int
    stamp: int
    frame: VideoFrame
    is_led: bool
    is_damaged: bool


class Run:
    """Frames that are decoded one after another from a keyframe on.

    Args:
        context: the decoder.
        first: the packet of the keyframe.
        packets: those after it.
        numbers: what tells the numbers of frames.
        log: what the decoder logs.
    """

    def __init__(
        self, context: VideoCodecContext, first: Any, packets: Iterator[Any], numbers: Numbers, log: DecoderLog
    ) -> None:
        self._context = context
        self._numbers = numbers
        self._key_stamp: int = first.pts if first.pts is not None else first.dts or 0
        self._damage = Damage(log, context.thread_count, self._key_stamp, by_decoding=numbers.by_decoding)
        self._frames = self._decoded(first, packets)
        self._behind: Shown | None = None
        self._ahead: Shown | None = None

    @property
    def found_damage(self) -> bool:
        """Whether the decoder found damage on the way so far, be it in frames that nobody asked for."""
        return self._damage.is_found

    def leads_to(self, number: int, key: int) -> bool:
        """Return whether decoding on is the way to a frame, whose keyframe has the number `key`."""
        nearest = self._ahead or self._behind
        if nearest is None:
            return False
        if self._behind is not None and self._behind.number <= number < nearest.number:
            return True
        return nearest.number <= number and key <= nearest.number

    def to(self, number: int) -> Shown | None:
        """Decode up to a frame; return it, or the one before it if it is missing, or the first one after it."""
        while self._ahead is None or self._ahead.number < number:
            self._behind = self._ahead or self._behind
            self._ahead = next(self._frames, None)
            if self._ahead is None:
                return self._behind
        if self._ahead.number == number or self._behind is None:
            return self._ahead
        return self._behind

    def is_good(self, found: Shown, number: int) -> bool:
        """Return whether a frame is as it was coded, and not beyond the one that was looked for.

        Frames that are shown before their keyframe need what was decoded before it. A seek may lead too far.
        """
        is_whole = found.is_led if self._numbers.by_decoding else found.stamp >= self._key_stamp
        return is_whole and found.number <= number

    def _decoded(self, first: Any, packets: Iterator[Any]) -> Iterator[Shown]:
        number, is_led = -1, False  # no number is known yet
        for frame in self._decoder_output(first, packets):
            times = (frame.dts, None) if self._numbers.by_decoding else (frame.pts, frame.dts)
            stamp = next((each for each in times if each is not None), None)
            if stamp is not None:
                number = self._numbers.of(stamp)
            elif number >= 0:
                number += 1
            else:
                continue
            is_led = is_led or bool(frame.key_frame)
            is_damaged = frame.is_corrupt or self._damage.reaches(stamp)
            yield Shown(number, self._numbers.stamp(number, stamp or 0), frame, is_led, is_damaged)

    def _decoder_output(self, first: Any, packets: Iterator[Any]) -> Iterator[VideoFrame]:
        """Yield what comes out of the decoder, up to the end of the stream or of what can be read of it."""
        packet = first
        while packet is not None and packet.size:
            self._numbers.feed(packet)
            self._damage.feed(packet)
            yield from self._decode(packet)
            packet = next_packet(packets)
        self._damage.forget()
        yield from self._decode(None)

    def _decode(self, packet: Any) -> list[VideoFrame]:
        """Return the frames that a packet completes, or that are left at the end; a damaged packet completes none."""
        failed, found = False, list[VideoFrame]()
        try:
            found = self._context.decode(packet)
        except MemoryError:
            raise
        except BlockingIOError as error:  # of opening the decoder: the system has no memory for its threads
            raise MemoryError from error
        except FFmpegError:
            failed = packet is not None
        self._damage.look(failed=failed)
        return found


def next_packet(packets: Iterator[Any]) -> Any:
    """Return the next packet; None at the end, be it that of a damaged file."""
    try:
        return next(packets, None)
    except MemoryError:
        raise
    except FFmpegError:
        return None
