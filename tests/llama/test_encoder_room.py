"""Memory that runs out under the vision encoder is an error, where mtmd aborts, segfaults, or aborts a question later.

Each story runs in a process of its own whose address space is limited, so that the system really refuses: what a GPU
does when another program took its memory. The encoder has one block of InternViT-300M's width: 75 MiB of
weights, and 28 MiB of intermediate results for each tile of a batch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by /proc")

START = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
from internvl_gguf.errors import LibraryError
from internvl_gguf.gguf.arch.base import MmprojShape
from internvl_gguf.llama import vision
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.synthetic import write_encoder, write_vocabulary
from internvl_gguf.llama.vision import EncoderMemory, VisionEncoder

MIB = 2**20
shape = MmprojShape(1, 1024, 16, 4096, 448, 14, 256, "layernorm", projection_dim=1024, projector_hidden=1024)
folder = Path(sys.argv[1])
write_vocabulary(folder / "text.gguf", shape.projection_dim)
random = np.random.default_rng(0)
projector = 0.05 * random.standard_normal((1024, 4096), dtype=np.float32)
write_encoder(folder / "mmproj.gguf", shape, {"mm.model.mlp.1.weight": projector})
model = TextModel(folder / "text.gguf", vocab_only=True)
tile = bytes(448 * 448 * 3)
limits = resource.getrlimit(resource.RLIMIT_AS)

def encoder(room=None):
    return VisionEncoder(
        folder / "mmproj.gguf", model, tile_size=448, tokens_per_tile=256, n_embd=1024, use_gpu=False, n_threads=1,
        room=room,
    )

def leave(mebibytes):
    "Let the process take so many MiB more."
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * MIB, limits[1]))

def refused(call):
    try:
        call()
    except LibraryError as error:
        print(error.message)
    else:
        print("not refused")

with encoder() as first:
    expected = first.encode([tile])  # what a first load keeps is not to count
"""


def run(tmp_path: Path, story: str) -> list[str]:
    """The lines that a story prints, told in a process that must live to its end."""
    script = START + textwrap.dedent(story)
    command = [sys.executable, "-c", script, str(tmp_path)]
    # Buffers that are freed go back to the system, so that what is left of the room is known.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_room_for_the_weights(tmp_path: Path) -> None:
    """mtmd: GGML_ASSERT(buffer) failed, the process aborts."""
    (message,) = run(
        tmp_path,
        """
        leave(200)
        refused(lambda: encoder(EncoderMemory(75 * MIB, 28 * MIB)))
        """,
    )
    assert message.startswith("There is no room for the vision encoder: 103.00 MiB were asked for (")


def test_no_room_for_what_it_computes(tmp_path: Path) -> None:
    """mtmd: the process segfaults at the first picture, since the encoder was opened as if nothing had happened.

    The buffer of results is taken last, so as the room shrinks it is the first that does not fit.
    """
    said = run(
        tmp_path,
        """
        for mebibytes in range(342, 0, -6):
            leave(mebibytes)
            try:
                with encoder():
                    print("opened")
            except LibraryError as error:
                print(error.message)
                break
            finally:
                resource.setrlimit(resource.RLIMIT_AS, limits)
        """,
    )
    assert said[0] == "opened"
    assert said[-1].startswith("There is no room for the vision encoder's results ("), said


def test_an_encoder_that_failed_is_made_anew(tmp_path: Path) -> None:
    """mtmd: the picture after one that failed aborts the process, the allocator believing in a buffer it never got."""
    said = run(
        tmp_path,
        """
        with encoder() as again:
            again.tiles_per_batch = 4
            leave(60)
            together = again.encode([tile] * 4)  # 112 MiB of results
            print(again.tiles_per_batch, all(np.array_equal(each, expected[0]) for each in together))
            leave(60)
            print(np.array_equal(again.encode([tile]), expected))
        """,
    )
    assert said == ["1 True", "True"]


def test_an_encoder_that_cannot_be_made_anew_is_tried_again(tmp_path: Path) -> None:
    """Each question says why, and the first one after there is memory again is answered; closing it is still clean."""
    said = run(
        tmp_path,
        """
        from internvl_gguf.errors import SessionStateError
        room = EncoderMemory(75 * MIB, 112 * MIB)
        again = encoder(room)
        again.tiles_per_batch = 4
        leave(20)
        original, vision.can_allocate = vision.can_allocate, lambda device, sizes: False
        refused(lambda: again.encode([tile] * 4))
        refused(lambda: again.encode([tile]))
        vision.can_allocate = original
        resource.setrlimit(resource.RLIMIT_AS, limits)
        print(np.array_equal(again.encode([tile]), expected))
        again.close()
        try:
            again.encode([tile])
        except SessionStateError:
            print("closed")
        """,
    )
    assert [line.split(":")[0] for line in said] == ["There is no room for the vision encoder"] * 2 + ["True", "closed"]
