"""Our side of the benchmarks: engines and sessions whose answers go on, and pictures of any number of tiles."""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from internvl_gguf import Session
from internvl_gguf.config import EngineConfig
from internvl_gguf.engine import Engine
from internvl_gguf.engine.embedding_cache import EmbeddingCache
from internvl_gguf.gguf.header import read_header
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.model import TextModel
from measure import Settings

GRID, TILES = (4, 3), 13


class EndlessModel(TextModel):
    """A text model whose answers go on until `max_tokens`: every one is equally long."""

    def is_end_of_generation(self, token: int) -> bool:
        return False


def open_engine(model: TextModel, settings: Settings, owned: ExitStack) -> Engine:
    """An engine without a vision encoder and without a cache of embeddings."""
    context = Context(
        model, EngineConfig(**settings.engine_options()), n_ctx=settings.n_ctx, n_threads=settings.threads
    )
    owned.callback(context.close)
    engine = Engine(model, None, context, EmbeddingCache(0))
    owned.callback(engine.close)
    return engine


def engine_of(session: Session) -> Engine:
    """The engine of a session in this process."""
    engine = session.runtime.engine
    assert isinstance(engine, Engine)
    return engine


def make_endless(session: Session) -> Session:
    """Let the answers of a session go on until `max_tokens`."""
    engine_of(session).model.__class__ = EndlessModel
    return session


def noise(columns: int, rows: int, tile_size: int, seed: int) -> Image.Image:
    """A picture whose grid is (columns, rows): smooth colours with some noise, so that no two tiles are alike."""
    draw = np.random.default_rng(seed)
    size = (columns * tile_size, rows * tile_size)
    coarse = Image.fromarray(draw.integers(0, 256, (4 * rows, 4 * columns, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    fine = draw.integers(-8, 9, smooth.shape, dtype=np.int16)
    return Image.fromarray((smooth + fine).clip(0, 255).astype(np.uint8))


def picture_of_tiles(mmproj: Path) -> bytes:
    """A JPEG that is `TILES` tiles for a vision encoder: twelve and a thumbnail."""
    tile_size = read_header(mmproj).integer("clip.vision.image_size")
    return jpeg(noise(*GRID, tile_size, seed=0))


def jpeg(picture: Image.Image) -> bytes:
    """A picture as a camera stores it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
