"""The header reader: what honest files say is read exactly, what dishonest ones say is refused, and quickly."""

from __future__ import annotations

import os
import stat
import struct
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.header import FIRST_WINDOW, IncompleteHeaderError, parse_header, read_header
from tests.support.calls import calls_of
from tests.support.damage import (
    Blueprint,
    Key,
    Tensor,
    array,
    header_of,
    number,
    real,
    serialise,
    serialise_header,
    text,
    truth,
    write,
)
from tests.support.tiny_models import tiny_mmproj, tiny_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def refusal(data: bytes, file_size: int | None = None) -> str:
    with pytest.raises(ModelFileError) as caught:
        parse_header(data, len(data) if file_size is None else file_size, "file.gguf")
    assert not isinstance(caught.value, IncompleteHeaderError)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("make", [tiny_text, tiny_mmproj])
def test_reads_what_the_gguf_package_reads(make: Callable[[], Blueprint], tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", make())
    header, reference = read_header(path), gguf.GGUFReader(path)
    assert [tensor.name for tensor in reference.tensors] == list(header.tensors)
    for tensor in reference.tensors:
        ours = header.tensors[tensor.name]
        assert (ours.offset, ours.n_bytes, ours.type) == (tensor.data_offset, tensor.n_bytes, tensor.tensor_type)
        assert ours.shape == tuple(tensor.shape)
    own_fields = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}
    assert header.key_values.keys() == reference.fields.keys() - own_fields
    assert header.data_offset == reference.data_offset
    assert header.weight_bytes == sum(tensor.n_bytes for tensor in reference.tensors)


def test_every_value_type_comes_back_as_written() -> None:
    scalars = {
        GGUFValueType.UINT8: 200,
        GGUFValueType.INT8: -7,
        GGUFValueType.UINT16: 65535,
        GGUFValueType.INT16: -300,
        GGUFValueType.UINT32: 2**32 - 1,
        GGUFValueType.INT32: -(2**31),
        GGUFValueType.UINT64: 2**64 - 1,
        GGUFValueType.INT64: -(2**63),
        GGUFValueType.FLOAT32: 0.5,
        GGUFValueType.FLOAT64: 1e-300,
    }
    keys = [Key(f"one.{kind.name}", kind, value) for kind, value in scalars.items()]
    keys += [array(f"many.{kind.name}", kind, [value, value]) for kind, value in scalars.items()]
    keys += [truth("yes", True), text("words", "书生·万象"), array("texts", GGUFValueType.STRING, ["a", "", "é"])]
    header = header_of(Blueprint(keys, []))
    for kind, value in scalars.items():
        read = header.number if kind in (GGUFValueType.FLOAT32, GGUFValueType.FLOAT64) else header.integer
        assert read(f"one.{kind.name}") == value
        assert header.array(f"many.{kind.name}", kind).numbers() == (value, value)
    assert header.boolean("yes") is True
    assert header.text("words") == "书生·万象"
    assert header.array("texts", GGUFValueType.STRING).raw_strings() == [b"a", b"", "é".encode()]
    assert header.number("one.UINT8") == 200.0


def test_getters_take_a_default_for_a_missing_key() -> None:
    header = header_of(Blueprint([], []))
    assert (header.integer("a", 3), header.number("a", 0.5), header.text("a", "x")) == (3, 0.5, "x")
    assert header.boolean("a", False) is False
    assert header.integer("a", 0) == 0
    assert "a" not in header
    with pytest.raises(ModelFileError, match=r"model\.gguf: the key a is missing"):
        header.integer("a")


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("integer", "is STRING where a whole number belongs"),
        ("number", "is STRING where a number belongs"),
        ("boolean", "is STRING where BOOL belongs"),
    ],
)
def test_a_key_of_another_type_is_named_with_both_types(read: str, expected: str) -> None:
    header = header_of(Blueprint([text("clip.vision.image_size", "448")], []))
    with pytest.raises(ModelFileError, match=f"clip.vision.image_size {expected}"):
        getattr(header, read)("clip.vision.image_size")


def test_arrays_are_checked_by_the_type_of_their_items() -> None:
    header = header_of(Blueprint([array("a", GGUFValueType.INT32, [1]), number("b", 1)], []))
    with pytest.raises(ModelFileError, match="a is an array of INT32 where an array of FLOAT32 belongs"):
        header.array("a", GGUFValueType.FLOAT32)
    with pytest.raises(ModelFileError, match="b is UINT32 where an array of INT32 belongs"):
        header.array("b", GGUFValueType.INT32)
    with pytest.raises(ModelFileError, match="a is an array of INT32 where STRING belongs"):
        header.text("a")


def test_text_that_is_not_utf8_is_refused_only_when_read() -> None:
    header = header_of(Blueprint([text("general.name", b"\xff\xfe")], []))
    with pytest.raises(ModelFileError, match=r"general\.name is not UTF-8"):
        header.text("general.name")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not a GGUF"),
        (b"GG", "not a GGUF"),
        (b"PK\x03\x04" + bytes(60), "not a GGUF"),
        (b"GGUF", "wants more bytes than the file has"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version 4"),
        (b"GGUF" + struct.pack("<IQQ", 0, 0, 0), "version 0"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "claims to hold 9223372036854775808 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "claims to hold 1099511627776 keys"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1), "wants more bytes than the file has"),
    ],
)
def test_what_is_no_readable_gguf_is_refused(data: bytes, expected: str) -> None:
    assert expected in refusal(data)


def test_version_2_is_read() -> None:
    plan = tiny_mmproj()
    plan.version = 2
    assert header_of(plan).version == 2


KEY_DAMAGE: dict[str, tuple[Callable[[Blueprint], object], str]] = {
    "a key twice": (lambda plan: plan.keys.append(plan.keys[0]), "general.architecture appears twice"),
    "an empty key": (lambda plan: plan.keys.append(number("", 1)), "has 0 bytes"),
    "a key with NUL": (lambda plan: plan.keys.append(number("a\0b", 1)), "unprintable"),
    "a key that is not UTF-8": (lambda plan: plan.keys.append(number(b"\xff", 1)), "is not UTF-8"),  # type: ignore[arg-type]
    "a long key": (lambda plan: plan.keys.append(number("k" * 70000, 1)), "has 70000 bytes"),
    "an unknown type": (
        lambda plan: plan.keys.append(Key("odd", GGUFValueType.UINT32, 1)),
        "is of the unknown type 99",
    ),
    "a truth value of 2": (lambda plan: plan.keys.append(Key("b", GGUFValueType.BOOL, 2)), "truth value of b is 2"),
    "an array of arrays": (
        lambda plan: plan.keys.append(Key("n", GGUFValueType.ARRAY, [], GGUFValueType.ARRAY)),
        "array of arrays",
    ),
    "alignment 0": (lambda plan: plan.keys.append(number("general.alignment", 0)), "alignment is 0"),
    "alignment 48": (lambda plan: plan.keys.append(number("general.alignment", 48)), "alignment is 48"),
    "alignment as text": (lambda plan: plan.keys.append(text("general.alignment", "32")), "STRING, not UINT32"),
}


@pytest.mark.parametrize("name", KEY_DAMAGE)
def test_damaged_keys_are_refused(name: str) -> None:
    damage, expected = KEY_DAMAGE[name]
    plan = tiny_mmproj()
    damage(plan)
    data = serialise(plan)
    if name == "an unknown type":
        data = data.replace(b"odd" + struct.pack("<I", 4), b"odd" + struct.pack("<I", 99))
    assert expected in refusal(data)


def test_lengths_and_counts_are_never_believed() -> None:
    """A count of 2**60 strings, or a string of 2**60 bytes, once made readers ask for that much memory."""
    for claim in (2**31, 2**60, 2**64 - 1):
        claims = struct.pack("<Q", claim)
        start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
        string = struct.pack("<I", GGUFValueType.STRING) + claims
        strings = struct.pack("<II", GGUFValueType.ARRAY, GGUFValueType.STRING) + claims
        numbers = struct.pack("<II", GGUFValueType.ARRAY, GGUFValueType.UINT8) + claims
        for value in (string, strings, numbers):
            assert "wants more bytes than the file has" in refusal(start + value + bytes(64))
    inner = struct.pack("<IIQ", GGUFValueType.ARRAY, GGUFValueType.STRING, 2) + struct.pack("<Q", 2**64 - 1)
    assert "wants more bytes than the file has" in refusal(start + inner + bytes(64))


def test_a_header_of_gigabytes_is_refused_although_the_file_would_have_them() -> None:
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    claim = struct.pack("<IQ", GGUFValueType.STRING, 3 * 2**30)
    assert "longer than 256 MiB" in refusal(start + claim, file_size=2**40)


def _set(**changes: object) -> Callable[[Tensor], None]:
    def change(tensor: Tensor) -> None:
        for name, value in changes.items():
            setattr(tensor, name, value)

    return change


TENSOR_DAMAGE = {
    "no dimensions": (_set(shape=()), "has 0 dimensions"),
    "five dimensions": (_set(shape=(32, 1, 1, 1, 1)), "has 5 dimensions"),
    "a zero": (_set(shape=(32, 0)), r"has the shape [32, 0]"),
    "a negative size": (_set(shape=(-32,)), "has the shape"),
    "more elements than counted": (_set(shape=(2**32, 2**32)), "has the shape"),
    "a long name": (_set(name="n" * 64), "has 64 bytes"),
    "a name with NUL": (_set(name="v.patch\0bias"), "unprintable"),
    "a removed type": (_set(type=4), "is of type 4, which this version does not know"),
    "an unknown type": (_set(type=77), "is of type 77"),
    "rows no multiple of the block": (_set(type=GGMLQuantizationType.Q4_K), "no multiple of the 256 of Q4_K"),
    "another offset": (_set(offset=64), "starts at 64, not at"),
    "an unaligned offset": (_set(offset=7), "starts at 7, not at"),
    "an offset beyond the file": (_set(offset=2**60), "not at"),
    "a larger shape": (_set(shape=(64,)), "starts at"),
}


@pytest.mark.parametrize("name", TENSOR_DAMAGE)
def test_damaged_tensor_tables_are_refused(name: str) -> None:
    damage, expected = TENSOR_DAMAGE[name]
    plan = tiny_mmproj()
    damage(plan.tensor("v.patch_embd.bias"))
    assert expected in refusal(serialise(plan))


def test_a_tensor_name_twice_is_refused() -> None:
    plan = tiny_mmproj()
    plan.tensors.append(plan.tensors[0])
    assert "v.class_embd appears twice" in refusal(serialise(plan))


def test_a_file_cut_inside_its_last_tensor_is_refused() -> None:
    """Stock llama.cpp loads such an mmproj and computes with whatever was in memory."""
    data = serialise(tiny_mmproj())
    for missing in (1, 100, 256):
        message = refusal(data[:-missing])
        assert f"at least {missing} bytes are missing, from inside mm.model.mlp.3.bias on" in message


def test_the_padding_after_the_last_tensor_may_be_missing_but_nothing_may_follow_it() -> None:
    """A last tensor whose type has become a smaller one leaves bytes over."""
    plan = Blueprint([], [Tensor("t", (3,), GGMLQuantizationType.F32, bytes(12))])
    data = serialise(plan)
    unpadded = data[: -(32 - 12)]
    assert parse_header(unpadded, len(unpadded), "f").tensors["t"].n_bytes == 12
    assert "32 bytes follow the last tensor" in refusal(data + bytes(32))
    plan = tiny_text()
    plan.tensors[-1].type = GGMLQuantizationType.F16
    assert "bytes follow the last tensor" in refusal(serialise(plan))


def test_a_cut_anywhere_is_refused() -> None:
    data = serialise(tiny_mmproj(n_layers=1))
    header_length = len(serialise_header(tiny_mmproj(n_layers=1)))
    for end in [*range(0, header_length + 64, 7), len(data) - 1]:
        assert refusal(data[:end])


class Served:
    """A file behind requests for its first bytes, which remembers how much was asked for."""

    label = "https://host/file.gguf"
    first_window = FIRST_WINDOW

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.asked: list[int] = []

    def read_prefix(self, length: int) -> bytes:
        self.asked.append(length)
        return self.data[:length]


def _header_of_strings(**counts: tuple[int, int]) -> bytes:
    """A file of arrays of strings and one number: for each key how many strings, and how long each is."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, 0, len(counts) + 1)]
    for key, (count, length) in counts.items():
        parts += [
            struct.pack("<Q", len(key)),
            key.encode(),
            struct.pack("<II", GGUFValueType.ARRAY, GGUFValueType.STRING),
        ]
        parts += [struct.pack("<Q", count), (struct.pack("<Q", length) + bytes(length)) * count]
    return b"".join([*parts, struct.pack("<Q", 5), b"after", struct.pack("<II", GGUFValueType.UINT32, 7)])


def test_a_prefix_says_how_much_more_it_needs() -> None:
    data = serialise(tiny_text())
    for end in (10, 100, 1000, 5000):
        with pytest.raises(IncompleteHeaderError) as caught:
            parse_header(data[:end], len(data), "file.gguf")
        assert end < caught.value.needed <= len(data)
    header_length = len(serialise_header(tiny_text()))
    assert parse_header(data[:header_length], len(data), "file.gguf").data_offset == header_length


def test_a_remote_header_is_read_with_few_and_growing_requests() -> None:
    source = Served(_header_of_strings(tokens=(9000, 1000)))
    header = read_header(source)
    assert header.integer("after") == 7
    assert header.array("tokens", GGUFValueType.STRING).raw_strings()[-1] == bytes(1000)
    assert source.asked == [8 * 2**20, source.size]
    assert source.size < 16 * 2**20


def test_a_vocabulary_of_152k_takes_one_call_a_string(tmp_path: Path) -> None:
    """It was 0.06 s on an idle core; readers that make an object of each string take seconds."""
    path = tmp_path / "large.gguf"
    path.write_bytes(_header_of_strings(tokens=(152_000, 9), merges=(151_000, 8)))
    assert read_header(path).array("tokens", GGUFValueType.STRING).count == 152_000
    assert calls_of(lambda: read_header(path)) < 1.05 * (152_000 + 151_000)


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    source = Served(serialise(tiny_text()))
    source.data = source.data[:100]
    with pytest.raises(ModelFileError, match="got shorter while it was read"):
        read_header(source)


@contextmanager
def _without_privileges() -> Iterator[None]:
    """Root may read everything: become nobody for a moment."""
    if sys.platform == "win32" or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits")
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_refused(closed: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", tiny_mmproj())
    (path if closed == "file" else tmp_path).chmod(0)
    try:
        with _without_privileges(), pytest.raises(ModelFileError, match="may not be read by this user"):
            read_header(path)
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_paths_that_are_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    for path, expected in (
        (tmp_path / "absent.gguf", "There is no file"),
        (tmp_path / "empty.gguf", "is empty"),
        (tmp_path, "is a folder"),
        (tmp_path / "empty.gguf" / "inside", "cannot be read"),
        ("nul\0byte.gguf", "cannot be read"),
        ("x" * 5000, "cannot be read"),
    ):
        with pytest.raises(ModelFileError, match=expected):
            read_header(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Opening one would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="not an ordinary file"):
        read_header(tmp_path / "pipe.gguf")


@pytest.mark.parametrize(
    "kind", [kind for kind in GGMLQuantizationType if kind.name in ("Q4_0", "Q8_0", "BF16", "F16")]
)
def test_sizes_of_quantised_tensors_are_those_of_their_blocks(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    plan = tiny_mmproj()
    plan.retype("v.blk.0.ffn_up.weight", kind)
    path = write(tmp_path / "model.gguf", plan)
    reference = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, tensor in read_header(path).tensors.items():
        assert (tensor.offset, tensor.n_bytes) == (reference[name].data_offset, reference[name].n_bytes)


def test_headers_do_not_print_their_data() -> None:
    assert len(repr(header_of(tiny_text()))) < 300


def test_real_values_survive_in_single_precision() -> None:
    header = header_of(Blueprint([real("eps", 1e-6)], []))
    assert header.number("eps") == float(np.float32(1e-6))
