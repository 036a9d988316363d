"""The processes that `memory.py` measures, each of which prints one JSON document.

python benchmarks/memory_children.py run         < request    a model loaded and used as a session does; its peak
python benchmarks/memory_children.py mmproj      < request    compute buffers that llama.cpp logs for an mmproj
python benchmarks/memory_children.py stand-in N SO < request  `internvl_gguf.llama.dry_run_process` with N stand-in GPUs
"""

from __future__ import annotations

import ctypes
import json
import logging
import resource
import sys
from contextlib import closing
from pathlib import Path
from typing import Any


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Load a model, encode tiles, fill the context; the process's peak in bytes."""
    import internvl_gguf.session.session  # noqa: F401  (a session's process has it)
    from internvl_gguf.config import EngineConfig
    from internvl_gguf.llama.context import TokenRun
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session.in_process_runtime import InProcessRuntime
    from internvl_gguf.types import Tile

    files = ModelFiles("benchmark", Path(request["text"]), Path(request["mmproj"]))
    n_ctx, tiles = request["n_ctx"], request["tiles"]
    options = {name: request[name] for name in ("kv_type", "flash_attn", "n_ubatch", "n_batch")}
    config = EngineConfig(n_ctx=n_ctx, n_threads=1, embedding_disk_bytes=0, encoder="llama.cpp", **options)
    runtime = InProcessRuntime(files, config)
    loaded = _peak()
    size = runtime.vision.image_size
    blank = bytes(size * size * 3)
    kept = runtime.engine.embed([Tile(key=bytes([index]), pixels=blank) for index in range(tiles)])
    context, position = runtime.engine.context, 0
    while position < n_ctx:
        count = min(n_ctx - position, context.n_batch)
        context.decode_many([TokenRun([5] * count, position, 0, outputs=1)])
        position += count
    peak = _peak()
    runtime.release()
    return {"loaded": loaded, "peak": peak, "tiles": len(kept)}


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def mmproj(request: dict[str, Any]) -> list[int]:
    """Compute buffer of each batch size of `tiles`, in bytes as logged; encodes blank tiles."""
    from internvl_gguf.llama.model import TextModel
    from internvl_gguf.llama.vision import VisionEncoder

    lines = _log_lines()
    sizes = []
    with closing(TextModel(Path(request["vocabulary"]), vocab_only=True)) as model:
        for tiles in request["tiles"]:
            lines.clear()
            encoder = VisionEncoder(
                Path(request["mmproj"]),
                model,
                tile_size=448,
                tokens_per_tile=256,
                n_embd=request["n_embd"],
                use_gpu=False,
                n_threads=1,
            )
            with closing(encoder):
                encoder.encode([bytes(448 * 448 * 3)] * tiles)
            logged = [line.split("=")[1].split()[0] for line in lines if "compute buffer size" in line]
            sizes.append(round(float(logged[0]) * 1024**2))
    return sizes


def _log_lines() -> list[str]:
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("internvl_gguf.llama")
    logger.addHandler(Collector())
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return lines


def stand_in(count: int, library: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The dry run's answers on a machine with so many GPUs of `stand_in_gpu.cpp`."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    base = next(folder.glob("libggml-base.so.0"), folder / "libggml-base.so")
    ctypes.CDLL(str(base), ctypes.RTLD_GLOBAL)
    make = ctypes.CDLL(library).stand_in_gpus
    make.restype = ctypes.c_void_p
    registry = make(count)

    from internvl_gguf.llama.dry_run_process import answers
    from internvl_gguf.llama.library import ggml_function

    ggml_function("ggml_backend_register", None, ctypes.c_void_p)(registry)

    return list(answers(request))


def main() -> None:
    request = json.load(sys.stdin)
    mode = sys.argv[1]
    if mode == "run":
        result: Any = run(request)
    elif mode == "mmproj":
        result = mmproj(request)
    else:
        result = stand_in(int(sys.argv[2]), sys.argv[3], request)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
