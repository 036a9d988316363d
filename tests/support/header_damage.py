"""Seeded damage to GGUF headers: flipped bytes, and valid plans changed into invalid ones."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from tests.support.damage import Blueprint, Key, serialise, serialise_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

NUMBERS = (0, 1, 2, 3, 5, 7, 8, 16, 24, 45, 64, 100, 255, 256, 1000, 4096, 8193, 65535, 2**31 - 1, 2**31, 2**32 - 1)
REALS = (0.0, -1.0, 1e-30, 1e-6, 0.5, 1.0, 2.0, 1e6, 1e30, float("inf"), float("nan"))
LENGTHS = (*NUMBERS, 2**33, 2**62, 2**63, 2**64 - 1)
OTHER_NAMES = (b"clip", b"qwen2", b"llama", b"internvl", b"qwen2.5vl_merger", b"gpt2", b"none")
TEXTS = (b"", *OTHER_NAMES, b"\xff\xfe\x00", b"x" * 5000)
SCALARS = tuple(kind for kind in GGUFValueType if kind is not GGUFValueType.ARRAY)


def damaged(random: Random, plan: Blueprint) -> tuple[bytes, str]:
    """The bytes of a damaged file, and what was done to it."""
    if random.random() < 0.5:
        return _damage_bytes(random, serialise(plan), len(serialise_header(plan)))
    changed = plan.copy()
    done = [random.choice(_CHANGES)(random, changed) for _ in range(random.choice((1, 1, 1, 2)))]
    return serialise(changed), " and ".join(done)


def _damage_bytes(random: Random, data: bytes, header_length: int) -> tuple[bytes, str]:
    """Damage somewhere in the header, or a cut anywhere."""
    place = random.randrange(header_length)
    broken = bytearray(data)
    match random.randrange(7):
        case 0:
            places = [random.randrange(header_length) for _ in range(random.choice((1, 1, 1, 2, 5)))]
            for each in places:
                broken[each] ^= 1 << random.randrange(8)
            return bytes(broken), f"turn bits in bytes {places}"
        case 1:
            broken[place] = random.randrange(256)
            return bytes(broken), f"byte {place} becomes {broken[place]}"
        case 2:
            number = random.choice(LENGTHS)
            size = random.choice((4, 8))
            end = min(place + size, header_length)
            broken[place:end] = struct.pack("<Q", number % 2**64)[: end - place]
            return bytes(broken), f"bytes {place} to {end} become those of {number}"
        case 3:
            count = random.choice((1, 4, 8, 32, 100))
            del broken[place : min(place + count, header_length)]
            return bytes(broken), f"take out up to {count} bytes at {place}"
        case 4:
            extra = random.randbytes(random.choice((1, 4, 8, 32, 100)))
            broken[place:place] = extra
            return bytes(broken), f"put {len(extra)} bytes in at {place}"
        case 5:
            count = random.choice((8, 64, 512))
            end = min(place + count, header_length)
            broken[place:end] = bytes(end - place)
            return bytes(broken), f"bytes {place} to {end} become zero"
        case _:
            end = random.randrange(len(data))
            return bytes(broken[:end]), f"cut at {end} of {len(data)}"


def _drop_key(random: Random, plan: Blueprint) -> str:
    key = plan.keys.pop(random.randrange(len(plan.keys)))
    return f"drop the key {key.name!r}"


def _repeat_key(random: Random, plan: Blueprint) -> str:
    key = random.choice(plan.keys)
    plan.keys.append(key)
    return f"repeat the key {key.name!r}"


def _rename_key(random: Random, plan: Blueprint) -> str:
    key = random.choice(plan.keys)
    before, key.name = key.name, _misspelt(random, key.name)
    return f"rename the key {before!r} to {key.name!r}"


def _revalue_key(random: Random, plan: Blueprint) -> str:
    key = random.choice(plan.keys)
    if key.type is GGUFValueType.ARRAY:
        return _change_array(random, key)
    key.value = _value_for(random, key.type)
    return f"{key.name!r} becomes {key.value!r}"


def _retype_key(random: Random, plan: Blueprint) -> str:
    key = random.choice(plan.keys)
    key.type, key.item_type = random.choice(SCALARS), None
    key.value = _value_for(random, key.type)
    return f"{key.name!r} becomes {key.type.name} {key.value!r}"


def _rearrange_key(random: Random, plan: Blueprint) -> str:
    key = random.choice(plan.keys)
    item_type = random.choice(SCALARS)
    count = random.choice((0, 1, 3, 100))
    key.type, key.item_type = GGUFValueType.ARRAY, item_type
    key.value = [_value_for(random, item_type) for _ in range(count)]
    return f"{key.name!r} becomes an array of {count} {item_type.name}"


def _change_array(random: Random, key: Key) -> str:
    assert key.item_type is not None
    match random.randrange(4):
        case 0:
            key.value = key.value[: random.randrange(len(key.value) + 1)]
            return f"{key.name!r} keeps {len(key.value)} items"
        case 1:
            key.value = [*key.value, *key.value[: random.choice((1, 5))]]
            return f"{key.name!r} repeats items"
        case 2:
            index = random.randrange(max(1, len(key.value)))
            key.value = [*key.value[:index], _value_for(random, key.item_type), *key.value[index + 1 :]]
            return f"item {index} of {key.name!r} becomes {key.value[index]!r}"
        case _:
            key.value = list(reversed(key.value))
            return f"{key.name!r} is reversed"


def _drop_tensor(random: Random, plan: Blueprint) -> str:
    tensor = plan.tensors.pop(random.randrange(len(plan.tensors)))
    return f"drop the tensor {tensor.name!r}"


def _repeat_tensor(random: Random, plan: Blueprint) -> str:
    tensor = random.choice(plan.tensors)
    plan.tensors.append(tensor)
    return f"repeat the tensor {tensor.name!r}"


def _rename_tensor(random: Random, plan: Blueprint) -> str:
    tensor = random.choice(plan.tensors)
    before, tensor.name = tensor.name, _misspelt(random, tensor.name)
    return f"rename the tensor {before!r} to {tensor.name!r}"


def _reshape_tensor(random: Random, plan: Blueprint) -> str:
    tensor = random.choice(plan.tensors)
    shape = list(tensor.shape)
    match random.randrange(4):
        case 0:
            shape.reverse()
        case 1:
            shape[random.randrange(len(shape))] = random.choice(NUMBERS)
        case 2:
            shape = shape[:-1]
        case _:
            shape += [random.choice((1, 1, 2, -1))] * random.choice((1, 3))
    tensor.shape = tuple(shape)
    return f"{tensor.name!r} gets the shape {shape}"


def _retype_tensor(random: Random, plan: Blueprint) -> str:
    """Another type, but none whose data has the same length: only a checksum could tell F16 from BF16."""
    tensor = random.choice([tensor for tensor in plan.tensors if isinstance(tensor.type, GGMLQuantizationType)])
    sizes = {kind: Fraction(bytes_, block) for kind, (block, bytes_) in GGML_QUANT_SIZES.items()}
    others = [kind for kind in GGMLQuantizationType if sizes[kind] != sizes[tensor.type]]
    tensor.type = random.choice((*others, 4, 5, 31, 42, 43, 99, 2**31))
    return f"{tensor.name!r} claims the type {tensor.type!r}"


def _move_tensor(random: Random, plan: Blueprint) -> str:
    tensor = random.choice(plan.tensors)
    tensor.offset = random.choice(LENGTHS)
    return f"{tensor.name!r} claims the offset {tensor.offset}"


def _restate_header(random: Random, plan: Blueprint) -> str:
    if random.random() < 0.5:
        plan.version = random.choice((0, 1, 2, 4, 3 << 24, 2**31))
        return f"version {plan.version}"
    claimed = random.choice((0, 1, 4, 8, 16, 33, 64, 4096, 2**31))
    plan.set("general.alignment", claimed, GGUFValueType.UINT32)
    return f"claim an alignment of {claimed}"


def _add_tensor(random: Random, plan: Blueprint) -> str:
    """A tensor that llama.cpp's shared code knows but this model does not have."""
    model = random.choice(plan.tensors)
    extra = Blueprint([], [model]).copy().tensors[0]
    extra.name = random.choice(
        (
            *("v.pre_ln.weight", "v.post_ln.weight", "v.blk.0.ffn_gate.weight", "v.blk.0.attn_q_norm.weight"),
            *("v.blk.1.attn_sinks", "v.blk.0.attn_qkv.weight", "v.deepstack.0.norm.weight", "v.blk.7.ln1.weight"),
            *("output.bias", "blk.0.attn_qkv.weight", "rope_freqs.weight", "blk.0.attn_q.scale", "blk.9.ffn_up.weight"),
            *("blk.0.attn_rot_embd", "v.patch_embd.weight.1", "v.blk.0.out_scale.weight", "mm.model.mlp.2.weight"),
        )
    )
    plan.tensors.insert(random.randrange(len(plan.tensors) + 1), extra)
    return f"add {extra.name!r} like {model.name!r}"


_CHANGES: tuple[Callable[[Random, Blueprint], str], ...] = (
    *(_drop_key, _repeat_key, _rename_key, _revalue_key, _revalue_key, _revalue_key, _retype_key, _rearrange_key),
    *(_drop_tensor, _repeat_tensor, _rename_tensor, _reshape_tensor, _reshape_tensor, _retype_tensor, _move_tensor),
    *(_restate_header, _add_tensor),
)


def _misspelt(random: Random, name: str | bytes) -> bytes:
    raw = bytearray(name.encode() if isinstance(name, str) else name)
    raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    return bytes(raw)


def _value_for(random: Random, kind: GGUFValueType) -> Any:
    if kind is GGUFValueType.STRING:
        return random.choice(TEXTS)
    if kind in (GGUFValueType.FLOAT32, GGUFValueType.FLOAT64):
        return random.choice(REALS)
    if kind is GGUFValueType.BOOL:
        return random.choice((0, 1, 2, 255))
    bits = int("".join(filter(str.isdigit, kind.name)))
    value = random.choice(NUMBERS) % 2**bits
    return value if kind.name.startswith("U") or value < 2 ** (bits - 1) else value - 2**bits
