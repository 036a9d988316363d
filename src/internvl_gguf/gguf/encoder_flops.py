"""How many operations a vision encoder takes for a tile."""

from __future__ import annotations


def encoder_operations(
    *, n_layers: int, width: int, n_ff: int, patches: int, patch_size: int, merged: int, hidden: int, n_embd: int
) -> int:
    """Operations of encoder and projector for one tile, two for each multiplication (`clip_graph_internvl` in mtmd).

    Matrix products and attention; the rest is below a hundredth. About 730e9 for InternViT-300M, tiles of 448 pixels.

    Args:
        n_layers, width, n_ff: of the encoder.
        patches: of a tile.
        patch_size: side of a patch in pixels.
        merged: patches that make a visual token.
        hidden: inner width of the projector.
        n_embd: width of a visual token.
    """
    rows = patches + 1  # the class token
    layer = 2 * rows * (4 * width**2 + 2 * width * n_ff) + 4 * rows**2 * width
    embedding = 2 * patches * 3 * patch_size**2 * width
    projector = 2 * (patches // merged) * (merged * width * hidden + hidden * n_embd)
    return n_layers * layer + embedding + projector
