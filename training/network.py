"""The demo model in PyTorch: InternViT, pixel unshuffle and MLP, Qwen2 - with the names and the arithmetic of
transformers' `InternVLForConditionalGeneration`, so that its state dict is the exporter's input as it stands.

Attention layers keep q, k and v apart (as published files do) and join them at the moment of use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VisionShape:
    """Sizes of the vision part; the names are those of the published config."""

    image_size: int = 144
    patch_size: int = 12
    hidden_size: int = 192
    intermediate_size: int = 768
    num_hidden_layers: int = 3
    num_attention_heads: int = 3
    layer_norm_eps: float = 1e-6

    @property
    def side(self) -> int:
        """Patches along a tile's side."""
        return self.image_size // self.patch_size

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one tile, after the pixel unshuffle by 2."""
        return (self.side // 2) ** 2


@dataclass(frozen=True)
class TextShape:
    """Sizes of the text part; the names are those of the published config."""

    vocab_size: int = 768
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 8192

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


def joined(x: Tensor, *layers: nn.Linear) -> Tensor:
    """Several linear layers of one input as a single product."""
    return F.linear(x, torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of [batch, heads, tokens, head_dim]; `mask` is added to the scores.

    Written out because on a CPU in bfloat16 it takes half the time of PyTorch's fused attention.
    """
    scores = query * query.shape[-1] ** -0.5 @ key.mT
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    return scores.softmax(-1) @ value


class VisionAttention(nn.Module):
    """Self-attention over all patches of a tile, biased, no norm on q and k (InternViT-300M's form)."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.heads = shape.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.projection_layer = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        tiles, patches, width = x.shape
        qkv = joined(x, self.q_proj, self.k_proj, self.v_proj).view(tiles, patches, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        out = attended(query, key, value)
        return self.projection_layer(out.transpose(1, 2).reshape(tiles, patches, width))


class VisionMLP(nn.Module):
    """Two linear layers around the exact GELU."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.fc2 = nn.Linear(shape.intermediate_size, shape.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class VisionLayer(nn.Module):
    """A pre-norm block whose two branches are scaled by lambda_1 and lambda_2."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.attention = VisionAttention(shape)
        self.mlp = VisionMLP(shape)
        self.layernorm_before = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.lambda_1 = nn.Parameter(torch.ones(shape.hidden_size))
        self.lambda_2 = nn.Parameter(torch.ones(shape.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.lambda_1 * self.attention(self.layernorm_before(x))
        return x + self.lambda_2 * self.mlp(self.layernorm_after(x))


class PatchEmbeddings(nn.Module):
    """The convolution over patches, as one matrix product."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.shape = shape
        self.projection = nn.Conv2d(3, shape.hidden_size, shape.patch_size, shape.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        side, patch = self.shape.side, self.shape.patch_size
        cut = (
            pixels.view(-1, 3, side, patch, side, patch)
            .permute(0, 2, 4, 1, 3, 5)
            .reshape(-1, side * side, 3 * patch**2)
        )
        return F.linear(cut, self.projection.weight.flatten(1), self.projection.bias)


class VisionEmbeddings(nn.Module):
    """Class token, patches and the learned positions of both (row 0 is the class token's)."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.patch_embeddings = PatchEmbeddings(shape)
        self.cls_token = nn.Parameter(torch.randn(1, 1, shape.hidden_size) * 0.02)
        self.position_embeddings = nn.Parameter(_grid_waves(shape))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embeddings(pixels)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.position_embeddings


def _grid_waves(shape: VisionShape) -> Tensor:
    """Start positions from sines and cosines of row and column: [1, 1 + patches, width]; they are trained further."""
    quarter = shape.hidden_size // 4
    steps = torch.arange(shape.side, dtype=torch.float32)[:, None] * 30 ** (-torch.arange(quarter) / quarter)
    wave = torch.cat([steps.sin(), steps.cos()], 1)
    rows = wave[:, None].expand(-1, shape.side, -1)
    columns = wave[None].expand(shape.side, -1, -1)
    grid = torch.cat([rows, columns], 2).reshape(1, -1, shape.hidden_size)
    return torch.cat([torch.zeros(1, 1, shape.hidden_size), grid], 1) * 0.3


class VisionEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(VisionLayer(shape) for _ in range(shape.num_hidden_layers))


class VisionTower(nn.Module):
    """Normalised pixels [tiles, 3, size, size] to patch features [tiles, side * side, width], class token dropped."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = VisionEmbeddings(shape)
        self.encoder = VisionEncoder(shape)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embeddings(pixels)
        for layer in self.encoder.layer:
            x = layer(x)
        return x[:, 1:]


class Projector(nn.Module):
    """Four patch features, joined by the pixel unshuffle, to one visual token of the text part's width."""

    def __init__(self, vision: VisionShape, text: TextShape) -> None:
        super().__init__()
        self.side = vision.side
        self.layer_norm = nn.LayerNorm(4 * vision.hidden_size)
        self.linear_1 = nn.Linear(4 * vision.hidden_size, text.hidden_size)
        self.linear_2 = nn.Linear(text.hidden_size, text.hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """[tiles, side * side, width] to [tiles, side * side / 4, text width]; blocks of 2x2, row by row."""
        half = self.side // 2
        blocks = (
            features.view(-1, half, 2, half, 2, features.shape[-1]).permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2)
        )
        return self.linear_2(F.gelu(self.linear_1(self.layer_norm(blocks))))


class RMSNorm(nn.Module):
    """Scale by the root mean square; no mean is taken off."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


Rope = tuple[Tensor, Tensor]


def taken(x: Tensor, wanted: Tensor) -> Tensor:
    """Rows `wanted` [..., n] of x [..., rows, width]."""
    return torch.take_along_dim(x, wanted[..., None], -2)


def rotary(positions: Tensor, shape: TextShape) -> Rope:
    """Cosines and sines [batch, 1, tokens, head_dim] of positions [batch, tokens], halves repeated (Qwen2's form)."""
    exponents = torch.arange(0, shape.head_dim, 2, device=positions.device) / shape.head_dim
    angles = positions[:, None, :, None].float() * shape.rope_theta**-exponents
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Apply the rotary embedding to [batch, heads, tokens, head_dim]."""
    low, high = x.chunk(2, -1)
    return x * rope[0] + torch.cat([-high, low], -1) * rope[1]


class TextAttention(nn.Module):
    """Grouped-query attention with biased q, k, v and a plain output."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        keys = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.k_proj, self.v_proj = nn.Linear(shape.hidden_size, keys), nn.Linear(shape.hidden_size, keys)
        self.o_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, mask: Tensor, rope: Rope, wanted: Tensor | None) -> Tensor:
        heads, groups = self.shape.num_attention_heads, self.shape.num_key_value_heads
        key, value = self._heads(joined(x, self.k_proj, self.v_proj)).split((groups, groups), 1)
        key = rotate(key, rope)
        if wanted is not None:
            x, rope = taken(x, wanted), (taken(rope[0], wanted[:, None]), taken(rope[1], wanted[:, None]))
            mask = taken(mask, wanted[:, None])
        query = rotate(self._heads(self.q_proj(x)), rope)
        key, value = (part.repeat_interleave(heads // groups, 1) for part in (key, value))
        out = attended(query.to(value.dtype), key.to(value.dtype), value, mask)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """[batch, tokens, heads * head_dim] to [batch, heads, tokens, head_dim]."""
        return x.unflatten(2, (-1, self.shape.head_dim)).transpose(1, 2)


class TextMLP(nn.Module):
    """The gated feed-forward layer (SwiGLU)."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TextLayer(nn.Module):
    """A Qwen2 block."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.self_attn = TextAttention(shape)
        self.mlp = TextMLP(shape)
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, rope: Rope, wanted: Tensor | None = None) -> Tensor:
        """All tokens of x [batch, tokens, width] attended to; with `wanted` [batch, n] only those tokens computed."""
        attended = self.self_attn(self.input_layernorm(x), mask, rope, wanted)
        x = attended + (x if wanted is None else taken(x, wanted))
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    """Embeddings in, normalised hidden states out."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(TextLayer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.inner: list[Tensor] = []  # what each layer but the last gave, for targets that only training has

    def forward(self, embeddings: Tensor, mask: Tensor, positions: Tensor, wanted: Tensor | None = None) -> Tensor:
        """[batch, tokens, width] with a mask [batch, 1, tokens, tokens] (0: may look, else very low).

        With `wanted` [batch, n], token indices, the last layer computes those only: [batch, n, width].
        """
        rope = rotary(positions, self.shape)
        x = embeddings
        self.inner = []
        for layer in self.layers[:-1]:
            x = layer(x, mask, rope)
            self.inner.append(x)
        return self.norm(self.layers[-1](x, mask, rope, wanted))


class Body(nn.Module):
    """The three parts under the names of transformers' `InternVLModel`."""

    def __init__(self, vision: VisionShape, text: TextShape) -> None:
        super().__init__()
        self.vision_tower = VisionTower(vision)
        self.multi_modal_projector = Projector(vision, text)
        self.language_model = LanguageModel(text)


class DemoModel(nn.Module):
    """A small InternVL; its state dict has the names of `InternVLForConditionalGeneration`."""

    def __init__(self, vision: VisionShape, text: TextShape) -> None:
        super().__init__()
        self.vision_shape, self.text_shape = vision, text
        self.model = Body(vision, text)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        deep = 0.02 / (2 * text.num_hidden_layers) ** 0.5
        for name, parameter in self.model.language_model.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=deep if "o_proj" in name or "down_proj" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    def visual_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised tiles to patch features [tiles, side * side, width] and visual tokens [tiles, n, text width]."""
        features = self.model.vision_tower(pixels)
        return features, self.model.multi_modal_projector(features)

    def hidden(
        self,
        ids: Tensor,
        visual: Tensor | None,
        context_token: int,
        mask: Tensor,
        positions: Tensor,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of token ids [batch, tokens] (of those `wanted`), context tokens replaced by `visual`."""
        return self.model.language_model(self.embedded(ids, visual, context_token), mask, positions, wanted)

    def embedded(self, ids: Tensor, visual: Tensor | None, context_token: int) -> Tensor:
        """What the first layer of the text part takes: embeddings of token ids, context tokens replaced by `visual`."""
        embeddings = self.model.language_model.embed_tokens(ids)
        if visual is None:
            return embeddings
        places = (ids == context_token).unsqueeze(-1).expand_as(embeddings)
        return embeddings.masked_scatter(places, visual.reshape(-1))
