"""Refuse llama.cpp in a child forked from a process that used it: the library would hang or abort there.

The threads it computes with (OpenMP's) are not copied by a fork but waited for, and drivers of GPUs do not work in a
forked child. A child may use the library if its parent did nothing with it, or only asked which devices of a machine
without a GPU there are.
"""

from __future__ import annotations

from internvl_gguf.utils.owned import call_in_children, inherited

_is_used = False
_was_used_by_parent = False


def note_use() -> None:
    """Record that this process uses the library; children forked later cannot use it.

    Raises:
        SessionStateError: this process was forked from one that used the library.
    """
    global _is_used
    refuse_child()
    _is_used = True


def refuse_child() -> None:
    """Raise SessionStateError in a child that was forked after the library was used."""
    if _was_used_by_parent:
        raise inherited()


def _begin_child() -> None:
    global _was_used_by_parent
    _was_used_by_parent = _is_used


call_in_children(_begin_child)
