"""Where a critic's own layers start.

What the demo expected in the place of a token is in the residual stream of the token before, and can be read there as
the output layer reads it. So two heads of the first layer start as ones that look one token back, and carry what tells
the tokens of answers apart. Gradients find the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training.grow import looking_back

if TYPE_CHECKING:
    from training.network import DemoModel, TextLayer, TextShape

Row = dict[str, Any]


@torch.no_grad()
def look_back(layer: TextLayer, shape: TextShape, demo: DemoModel, rows: list[Row]) -> None:
    """Set the first head of each group to carry from the token before what the demo expected, as far as there is room.

    Args:
        layer: the critic's first.
        shape: of the model.
        demo: the model whose layers are below.
        rows: some that `training.critic_residuals` wrote.
    """
    attention, width = layer.self_attn, shape.head_dim
    tokens = torch.cat([row["ids"][row["before"] >= 0] for row in rows])
    used = (demo.lm_head.weight * demo.model.language_model.norm.weight)[tokens]
    read: Tensor = torch.linalg.svd(used - used.mean(0), full_matrices=False)[2]
    attention.v_proj.weight.copy_(read[: len(attention.v_proj.weight)])
    attention.k_proj.weight.mul_(0.3)
    attention.k_proj.bias.copy_(looking_back(shape, 0).repeat(shape.num_key_value_heads))
    each = shape.num_attention_heads // shape.num_key_value_heads
    for group in range(shape.num_key_value_heads):
        rows_of_head = slice(group * each * width, (group * each + 1) * width)
        attention.q_proj.weight[rows_of_head] *= 0.3
        attention.q_proj.bias[rows_of_head] = looking_back(shape, 1)
        attention.o_proj.weight[:, rows_of_head] *= 3
