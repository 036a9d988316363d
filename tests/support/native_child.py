"""llama.cpp in a process of its own, so that a test can see it die.

`NativeChild` hands files to the process, one after another, and says for each what came out: numbers, an error of ours,
or the death of the process, after which a new one takes over. On Linux the new one is a fork of a parent that has done
nothing yet but import, which takes milliseconds; forking after the first native call would hang.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

PROMPT = "The thing on the ring: 42, naïve?\n"


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        values: logits of the prompt's last token, or embeddings of a tile; None if it was not loaded.
        tokens: the prompt's token ids (text models only).
        error: why it was not loaded; None if it was.
        died: whether the process ended on it.
    """

    values: NDArray[np.float32] | None
    tokens: tuple[int, ...]
    error: str | None
    died: bool


class NativeChild:
    """A process that loads and runs model files with the package's own wrapper.

    Args:
        text: a valid text model, which mmprojs are loaded over.
    """

    def __init__(self, text: Path) -> None:
        self._text = text
        self._process: subprocess.Popen[str] | None = None

    def run_text(self, path: Path) -> Outcome:
        """Load a text model and decode a prompt."""
        return self._ask({"kind": "text", "path": str(path)})

    def run_mmproj(self, path: Path, tile_size: int, tokens_per_tile: int) -> Outcome:
        """Load an mmproj and encode one tile of a fixed pattern."""
        return self._ask(
            {"kind": "mmproj", "path": str(path), "tile_size": tile_size, "tokens_per_tile": tokens_per_tile}
        )

    def _ask(self, request: dict[str, Any]) -> Outcome:
        if self._process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1"}
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(self._text)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        reply: dict[str, Any] = json.loads(line) if line else {"died": self._process.wait()}
        if not line:
            self._process.communicate()
            self._process = None
        if "died" in reply:
            return Outcome(None, (), f"the process ended with status {reply['died']}", died=True)
        values = None if reply["values"] is None else np.array(reply["values"], np.float32)
        return Outcome(values, tuple(reply["tokens"]), reply["error"], died=False)

    def __enter__(self) -> NativeChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


def main(text: Path) -> None:
    """Answer requests on stdin, one JSON object a line, on stdout, however often that takes a new process."""
    import internvl_gguf.llama.context
    import internvl_gguf.llama.vision  # noqa: F401

    if sys.platform != "linux":
        serve(text)
        return
    while True:
        worker = os.fork()
        if worker == 0:
            serve(text)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        if status == 0:
            return
        print(json.dumps({"died": status}), flush=True)


def serve(text: Path) -> None:
    """Answer requests until stdin ends, or a file ends the process."""
    from internvl_gguf.errors import InternVLError
    from internvl_gguf.llama.model import TextModel

    with TextModel(text) as model:
        while line := sys.stdin.readline():
            request = json.loads(line)
            reply: dict[str, Any] = {"values": None, "tokens": [], "error": None}
            try:
                if request["kind"] == "text":
                    _serve_text(request, reply)
                else:
                    _serve_mmproj(request, reply, model)
            except InternVLError as error:
                reply["error"] = str(error)
            print(json.dumps(reply), flush=True)


def _serve_text(request: dict[str, Any], reply: dict[str, Any]) -> None:
    from internvl_gguf.config import EngineConfig
    from internvl_gguf.llama.context import Context, TokenRun
    from internvl_gguf.llama.model import TextModel

    with TextModel(Path(request["path"])) as model:
        tokens = model.tokenize(PROMPT)
        pieces = b"".join(map(model.piece, range(model.n_vocab)))
        with closing(Context(model, EngineConfig(n_batch=256, n_ubatch=256), n_ctx=256, n_threads=1)) as context:
            context.decode_many([TokenRun(tokens or [0], 0, 0, outputs=1)])
            reply["values"] = context.logits().tolist()
        reply["tokens"] = [*tokens, len(pieces)]


def _serve_mmproj(request: dict[str, Any], reply: dict[str, Any], model: Any) -> None:
    from internvl_gguf.llama.vision import VisionEncoder

    side = request["tile_size"]
    pixels = (np.arange(side * side * 3, dtype=np.uint32) * 7919 % 251).astype(np.uint8).tobytes()
    encoder = VisionEncoder(
        Path(request["path"]),
        model,
        tile_size=side,
        tokens_per_tile=request["tokens_per_tile"],
        n_embd=model.n_embd,
        use_gpu=False,
        n_threads=1,
    )
    with closing(encoder):
        reply["values"] = encoder.encode([pixels]).ravel().tolist()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
