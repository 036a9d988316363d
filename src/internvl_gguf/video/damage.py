"""Which frames damage may reach: those decoded behind an error, up to the next keyframe.

A decoder hides what it cannot read: it fills the hole with grey or with what was there before, and frames that are
coded as changes carry that on. So an error counts for its packet and for all after it in the group. Threads of the
decoder report late, by one packet each at most, so it counts for as many packets before, too.
"""

from __future__ import annotations

from internvl_gguf.video.decoder_log import DecoderLog
from internvl_gguf.video.timeline import Packet


class Damage:
    """Follows the packets that are decoded from a keyframe on, and the errors between them.

    Args:
        log: what the decoder logs.
        delay: packets by which an error may be logged late.
        key_stamp: time stamp of the keyframe. Frames shown before it need what was decoded before: their errors say
            nothing of the file.
        by_decoding: whether frames are known by the time stamps of decoding.
    """

    def __init__(self, log: DecoderLog, delay: int, key_stamp: int, *, by_decoding: bool) -> None:
        self._log, self._delay, self._key_stamp, self._by_decoding = log, delay, key_stamp, by_decoding
        self._seen = log.size()
        self._groups: list[int] = []  # of each packet, its group
        self._places: dict[int, int] = {}  # of time stamps, the packet's place
        self._first_bad: dict[int, int] = {}  # of groups, the place of the first packet that may be damaged
        self._innocent = 0  # places before this one are those of the first keyframe and what is shown before it

    @property
    def is_found(self) -> bool:
        """Whether there was an error."""
        return bool(self._first_bad)

    def feed(self, packet: Packet) -> None:
        """Note a packet that goes to the decoder."""
        place = len(self._groups)
        group = self._groups[-1] if self._groups else 0
        self._groups.append(group + bool(packet.is_keyframe and place))
        times = (packet.dts, packet.pts) if self._by_decoding else (packet.pts, packet.dts)
        stamp = next((each for each in times if each is not None), None)
        if stamp is not None:
            self._places[stamp] = place
        if self._groups[-1] == 0 and packet.pts is not None and packet.pts < self._key_stamp:
            self._innocent = place + 1

    def look(self, *, failed: bool) -> None:
        """Note whether there was an error since the last look.

        Args:
            failed: whether the decoder refused the last packet.
        """
        size = self._log.size()
        if size > self._seen or failed:
            last = len(self._groups) - 1
            first = max(0, last - self._delay)
            if first >= self._innocent:
                for place in range(first, last + 1):
                    self._first_bad.setdefault(self._groups[place], place)
        self._seen = size

    def forget(self) -> None:
        """Count nothing that was logged since the last look: it was about the file, not about its pictures."""
        self._seen = self._log.size()

    def reaches(self, stamp: int | None) -> bool:
        """Return whether the frame with a time stamp may show damage."""
        place = self._places.get(stamp) if stamp is not None else None
        if place is None:
            return self.is_found
        first = self._first_bad.get(self._groups[place])
        return first is not None and first <= place
