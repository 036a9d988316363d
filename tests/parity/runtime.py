"""The runtime under test, driven through its public API over the reference's models and cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvl_gguf import Picture as ApiPicture
from internvl_gguf import SamplingParams, Session
from internvl_gguf.config import EngineConfig
from tests.support.exact import EXACT_ARITHMETIC, ExactArithmetic

from .pictures import draw

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from .cases import Case, Picture

EXACT = EXACT_ARITHMETIC
DEFAULTS: ExactArithmetic = {"kv_type": EngineConfig.kv_type, "flash_attn": EngineConfig.flash_attn}


def open_session(folder: Path, settings: ExactArithmetic, system: str | None = None) -> Session:
    """A session on a reference's pair of files, on the CPU with one thread."""
    return Session.open(
        folder / "text.gguf",
        folder / "mmproj.gguf",
        system=system,
        n_gpu_layers=0,
        n_threads=1,
        embedding_disk_bytes=0,  # what is compared was computed here and now
        **settings,
    )


def api_picture(picture: Picture) -> ApiPicture:
    """A reference's picture as the public API takes it."""
    image = draw(picture.seed, picture.width, picture.height)
    return ApiPicture(image, max_tiles=picture.max_tiles, thumbnail=picture.thumbnail)


def embed(session: Session, picture: Picture) -> NDArray[np.float32]:
    """Tile embeddings, float32 [tiles, tokens, width]."""
    image = draw(picture.seed, picture.width, picture.height)
    return session.embed_image(image, max_tiles=picture.max_tiles, thumbnail=picture.thumbnail)


def answer(folder: Path, settings: ExactArithmetic, case: Case) -> tuple[NDArray[np.float32], list[str]]:
    """Log-probabilities after a conversation's last question, and the answers to the questions before it."""
    *earlier, last = case.turns
    with open_session(folder, settings, case.system) as session:
        answers = [
            session.ask(
                turn.ask,
                [api_picture(picture) for picture in turn.pictures],
                sampling=SamplingParams(temperature=0, max_tokens=turn.answer_tokens),
                layout=case.layout,
            ).text
            for turn in earlier
        ]
        pictures = [api_picture(picture) for picture in last.pictures]
        return session.next_token_logprobs(last.ask, pictures, layout=case.layout), answers
