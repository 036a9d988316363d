"""Give a trained checkpoint more layers and a larger vocabulary, so that it answers as before and can learn more.

    python -m training.grow runs/edges.pt runs/grown.pt

New layers write nothing at first (output and down projection are zero); a new token starts as the mean of the tokens it
was written with before.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.lessons import extended_tokenizer
from training.network import TextLayer, TextShape
from training.tokenizer import TOOL_TOKENS, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

# Which of the old layers stands where in the new stack; None is a new one.
STACK = (0, None, 1, None, 2)
_LAYER = re.compile(r"model\.language_model\.layers\.(\d+)\.(.+)")


def deeper(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the layers of STACK."""
    grown = {name: value for name, value in weights.items() if not _LAYER.fullmatch(name)}
    for at, old in enumerate(STACK):
        if old is None:
            layer = TextLayer(TextShape())
            for name, value in layer.state_dict().items():
                written = name.endswith(("o_proj.weight", "down_proj.weight"))
                start = torch.zeros_like(value) if written or name.endswith("bias") else value
                grown[f"model.language_model.layers.{at}.{name}"] = (
                    0.02 * torch.randn_like(value) if value.ndim == 2 and not written else start
                )
        else:
            for name, value in weights.items():
                match = _LAYER.fullmatch(name)
                if match and int(match[1]) == old:
                    grown[f"model.language_model.layers.{at}.{match[2]}"] = value
    return grown


def look_back(weights: dict[str, Tensor], at: int = 1) -> None:
    """Start two heads of layer `at` as ones that see the token before and the one before that; they write nothing yet.

    Copying begins with such heads, and a model that never copied takes long to find them. Their queries and keys are
    biases alone: turned by the rotary embedding, their product is the largest at one distance.
    """
    shape, prefix = TextShape(), f"model.language_model.layers.{at}.self_attn"
    width = shape.head_dim
    group = shape.num_key_value_heads - 1
    keys = slice(group * width, (group + 1) * width)
    weights[f"{prefix}.k_proj.weight"][keys] = 0
    weights[f"{prefix}.k_proj.bias"][keys] = looking_back(shape, 0)
    weights[f"{prefix}.v_proj.weight"][keys] = torch.randn(width, shape.hidden_size) * shape.hidden_size**-0.5
    weights[f"{prefix}.v_proj.bias"][keys] = 0
    heads = shape.num_attention_heads
    for head, distance in ((heads - 2, 1), (heads - 1, 2)):
        rows = slice(head * width, (head + 1) * width)
        weights[f"{prefix}.q_proj.weight"][rows] = 0
        weights[f"{prefix}.q_proj.bias"][rows] = looking_back(shape, distance)
        weights[f"{prefix}.o_proj.weight"][:, rows] = 0


def looking_back(shape: TextShape, distance: int) -> Tensor:
    """The bias of a head's queries [head_dim] that, with that of distance 0 for its keys, looks so far back.

    Turned by the rotary embedding, their product is a sum of cosines that are all 1 at the distance. Of the pairs of
    dimensions those that turn fast are used.
    """
    half, strength = shape.head_dim // 2, 6.5
    angles = distance * shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
    used = (torch.arange(half) < half // 2).float() * strength
    return torch.cat([used * angles.cos(), -used * angles.sin()])


def larger(weights: dict[str, Tensor], known: Tokenizer, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """The state dict with rows for the tokens that `tokenizer` has beyond `known`."""
    grown = dict(weights)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        rows = weights[name].new_zeros(tokenizer.size, weights[name].shape[1])
        rows[: known.size] = weights[name]
        for index in range(known.tokens.index("<unused0>"), tokenizer.size):
            token = tokenizer.tokens[index]
            if token in TOOL_TOKENS:
                rows[index] = 0.02 * torch.randn(rows.shape[1])
            elif not token.startswith("<unused"):
                rows[index] = rows[[known.ids[part] for part in known.pieces_of(token)]].mean(0)
        grown[name] = rows
    return grown


def grow(state: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint, grown; it has no optimiser state that could be lost."""
    known = Tokenizer(tuple(map(tuple, state["merges"])), state["size"], state.get("early"))
    tokenizer = extended_tokenizer(known)
    weights = larger(deeper(state["average"]), known, tokenizer)
    look_back(weights)
    return {
        **state, "net": weights, "average": weights, "merges": tokenizer.merges, "size": tokenizer.size,
        "early": tokenizer.early, "layers": len(STACK),
    }  # fmt: skip


def main() -> None:
    """Read the command line and write the grown checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(3)
    torch.save(grow(torch.load(args.checkpoint, weights_only=True)), args.out)


if __name__ == "__main__":
    main()
