"""Numbers of the frames of a container, and where decoding begins for each of them.

A frame's number is its place in the order in which frames are shown. decord, the reader of the model card, numbers them
by reading every packet of the file. That is done here for containers without an index of their frames. An MP4 has one,
in the order of decoding: it tells how many frames come before each keyframe, and the packets from there on tell the
rest, so that a clip of hours is neither read nor decoded as a whole.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

_BACK_SECONDS = 10.0


class Packet(Protocol):
    """The part of a packet of PyAV that is used."""

    pts: int | None
    dts: int | None
    is_keyframe: bool
    is_discard: bool


class Numbers(Protocol):
    """Numbers of the frames that are decoded from a keyframe on."""

    @property
    def by_decoding(self) -> bool:
        """Whether a frame's time stamp is that of the packet with which it came out of the decoder."""
        ...

    def feed(self, packet: Packet) -> None:
        """Note a packet that goes to the decoder."""
        ...

    def of(self, pts: int) -> int:
        """Return the number of a frame; all packets of frames that are shown before it were fed."""
        ...

    def stamp(self, number: int, pts: int) -> int:
        """Return the time stamp at which a frame is shown."""
        ...


class Timeline(Protocol):
    """The frames of a stream. Places to begin are numbers of keyframes, or whatever else `place` returns.

    Attributes:
        is_counted: whether the frames were counted.
        n_missing: frames that are announced and not in the file.
    """

    is_counted: bool
    n_missing: int

    @property
    def n_frames(self) -> int:
        """Frames of the clip."""
        ...

    def place(self, number: int) -> int:
        """Return the last place from which a frame can be decoded, as far as is known."""
        ...

    def earlier(self, place: int, steps: int) -> int:
        """Return a place before another, 0 at the least."""
        ...

    def first_number(self, place: int) -> int:
        """Return the least number of a frame that is decoded from a place on."""
        ...

    def seek_time(self, place: int) -> int:
        """Return the time stamp to seek to for a place."""
        ...

    def numbers(self, first: Packet) -> Numbers | None:
        """Return the numbers of the frames from a packet on; None where it is not known which packet it is."""
        ...


@dataclass
class CountedTimeline:
    """The frames of a stream whose packets were all read.

    Attributes:
        shown: time stamps of the frames, in order.
        keys: those of keyframes, in order.
        seek_times: what to seek to for each keyframe: its time stamp, or that of its decoding in containers that are
            searched by these.
    """

    shown: Sequence[int]
    keys: Sequence[int]
    seek_times: Sequence[int]
    is_counted: bool = True
    n_missing: int = 0
    by_decoding: ClassVar[bool] = False

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.shown)

    def place(self, number: int) -> int:
        """Return the keyframe that is shown last before a frame, or with it."""
        return max(0, bisect_right(self.keys, self.shown[number]) - 1)

    def earlier(self, place: int, steps: int) -> int:
        """Return the keyframe that many before another."""
        return max(0, place - steps)

    def first_number(self, place: int) -> int:
        """Return the number of a keyframe."""
        return bisect_left(self.shown, self.keys[place]) if self.keys else 0

    def seek_time(self, place: int) -> int:
        """Return the time stamp that finds a keyframe."""
        return self.seek_times[place] if self.seek_times else self.shown[0]

    def numbers(self, first: Packet) -> Numbers:
        """Return the numbers, which are known of all frames."""
        return self

    def feed(self, packet: Packet) -> None:
        """Do nothing: all packets are known."""

    def of(self, pts: int) -> int:
        """Return the number of a frame."""
        return bisect_left(self.shown, pts)

    def stamp(self, number: int, pts: int) -> int:
        """Return the frame's own time stamp."""
        return pts


class DecodingTimeline(CountedTimeline):
    """The frames of an AVI, which has no time stamps but those of decoding: a frame comes out of the decoder late.

    Attributes:
        delay: packets that the decoder takes before the first frame comes out.
    """

    delay = 0
    by_decoding: ClassVar[bool] = True

    def of(self, pts: int) -> int:
        """Return the number of a frame."""
        return super().of(pts) - self.delay

    def stamp(self, number: int, pts: int) -> int:
        """Return the time of decoding of the packet that has the frame's number."""
        return self.shown[max(0, min(number, self.n_frames - 1))]


@dataclass(frozen=True)
class IndexEntry:
    """A packet in the index of a container.

    Attributes:
        dts: its time stamp of decoding.
        is_key: whether it is a keyframe.
        is_shown: whether its frame is shown; an edit list may leave it out.
        end: where its bytes end in the file.
    """

    dts: int
    is_key: bool
    is_shown: bool
    end: int


class IndexedTimeline:
    """The frames of a stream whose container has an index of all packets, in the order of decoding.

    Args:
        entries: the index.
        size: bytes of the file; packets beyond are missing.

    Attributes:
        is_even: whether all frames are decoded at the same rate.
    """

    is_counted = True

    def __init__(self, entries: Iterable[IndexEntry], size: int) -> None:
        self.n_frames = self.n_missing = 0
        self.is_even = True
        before, step = None, None
        self._key_times: list[int] = []
        self._shown_before: list[int] = []
        for entry in entries:
            if self.n_missing or entry.end > size:
                self.n_missing += entry.is_shown
                continue
            if before is not None:
                self.is_even = self.is_even and entry.dts - before == (step := step or entry.dts - before)
            before = entry.dts
            if entry.is_key or not self._key_times:
                self._key_times.append(entry.dts)
                self._shown_before.append(self.n_frames)
            self.n_frames += entry.is_shown

    def place(self, number: int) -> int:
        """Return the last keyframe before which no more frames are decoded than are shown before this one."""
        return max(0, bisect_right(self._shown_before, number) - 1)

    def earlier(self, place: int, steps: int) -> int:
        """Return the keyframe that many before another."""
        return max(0, place - steps)

    def first_number(self, place: int) -> int:
        """Return how many frames are decoded before a keyframe."""
        return self._shown_before[place]

    def seek_time(self, place: int) -> int:
        """Return the time of decoding of a keyframe, by which the index is searched."""
        return self._key_times[place]

    def numbers(self, first: Packet) -> Numbers | None:
        """Return the numbers of frames from a keyframe of the index on."""
        if first.dts is None:
            return None
        place = bisect_left(self._key_times, first.dts)
        if place == len(self._key_times) or self._key_times[place] != first.dts:
            return None
        return _Ranked(self._shown_before[place])


@dataclass
class _Ranked:
    """Numbers by rank: frames that are decoded from a keyframe on are shown after those decoded before it."""

    base: int
    fed: list[int] = field(default_factory=list)
    by_decoding: ClassVar[bool] = False

    def feed(self, packet: Packet) -> None:
        """Note a packet whose frame is shown."""
        if packet.pts is not None and not packet.is_discard:
            insort(self.fed, packet.pts)

    def of(self, pts: int) -> int:
        """Return the number of a frame by how many of the packets are shown before it."""
        return self.base + bisect_left(self.fed, pts)

    def stamp(self, number: int, pts: int) -> int:
        """Return the frame's own time stamp."""
        return pts


@dataclass
class EstimatedTimeline:
    """The frames of a file that is too large to be read for their count: a frame's number is its time by the rate.

    Attributes:
        n_frames: their number by the clip's duration and rate.
        start: time stamp of the first frame.
        ticks: time stamps from a frame to the next, on average.
        fps: average frames a second.
    """

    n_frames: int
    start: int
    ticks: float
    fps: float
    is_counted: bool = False
    n_missing: int = 0
    by_decoding: ClassVar[bool] = False

    def place(self, number: int) -> int:
        """Return the number itself: the container finds the keyframe."""
        return number

    def earlier(self, place: int, steps: int) -> int:
        """Return a place as many times some seconds earlier."""
        return max(0, place - steps * self._back)

    def first_number(self, place: int) -> int:
        """Return a number some seconds earlier."""
        return max(0, place - self._back)

    def seek_time(self, place: int) -> int:
        """Return the time stamp of a number."""
        return self.start + int(place * self.ticks)

    def numbers(self, first: Packet) -> Numbers:
        """Return the numbers, which follow from times."""
        return self

    def feed(self, packet: Packet) -> None:
        """Do nothing."""

    def of(self, pts: int) -> int:
        """Return the number of a frame by its time."""
        return round((pts - self.start) / self.ticks)

    def stamp(self, number: int, pts: int) -> int:
        """Return the frame's own time stamp."""
        return pts

    @property
    def _back(self) -> int:
        return max(1, round(_BACK_SECONDS * self.fps))
