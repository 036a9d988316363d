"""How workers share a machine: threads, GPUs and memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.bulk import layout
from internvl_gguf.bulk.answerer import Answering
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.layout import MAX_WORKERS, Layout, lay_out, read_workers, shared_threads
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError
from internvl_gguf.llama.library import Device
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.planning import machine_memory
from internvl_gguf.utils.sizes import parse_vram

GIB, MIB = 2**30, 2**20


def answering(files: ModelFiles, **engine: Any) -> Answering:
    opening = {"max_tiles": None, "min_tiles": None, "thumbnail": True, **EngineConfig(n_ctx=1024, **engine).options}
    return Answering(files, opening, {}, Common())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the GPUs and the free memory of this machine."""

    def has(*gpus: int, host: int = 64 * GIB) -> None:
        found = [
            Device(name=f"CUDA{number}", description="a card", kind="gpu", free_bytes=free, total_bytes=free)
            for number, free in enumerate(gpus)
        ]
        monkeypatch.setattr(machine_memory, "usable_gpus", lambda: found)
        monkeypatch.setattr(machine_memory, "free_host_memory", lambda: host)

    return has


def told_of(files: ModelFiles, workers: layout.Workers, **engine: Any) -> Layout:
    return lay_out(answering(files, **engine), workers, lambda line: None)


@given(st.integers(1, 200), st.integers(1, MAX_WORKERS))
def test_threads_are_shared_out_and_nobody_has_none(threads: int, workers: int) -> None:
    shared = [options["n_threads"] or 0 for options in shared_threads(threads, workers)]
    assert len(shared) == workers
    assert sum(shared) == max(threads, workers)
    assert max(shared) - min(shared) <= 1


@pytest.mark.parametrize("text", ["0", "1000", "-1", "two", "", "1.5", "²"])
def test_a_number_that_is_none_is_refused_in_two_lines(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_workers(text)
    assert "--workers" in caught.value.message
    assert "auto" in caught.value.hint


def test_numbers_and_auto_are_read() -> None:
    assert (read_workers("3"), read_workers("AUTO"), read_workers("64")) == (3, "auto", 64)


def test_on_a_cpu_the_number_is_the_users_or_is_measured(tiny: ModelFiles, machine: Any) -> None:
    machine()
    assert told_of(tiny, 3, n_threads=8).engines == ({"n_threads": 3}, {"n_threads": 3}, {"n_threads": 2})
    assert told_of(tiny, 1, n_threads=8) == Layout(({},), 1, 8)
    assert told_of(tiny, "auto", n_threads=8) == Layout(({},), 8, 8)


def test_memory_is_planned_before(tiny: ModelFiles, machine: Any) -> None:
    machine(host=600 * MIB)
    most = told_of(tiny, "auto", n_threads=16).most
    assert 1 < most < 8
    assert len(told_of(tiny, most).engines) == most
    with pytest.raises(InsufficientMemoryError, match="There is no memory for 16 workers") as caught:
        told_of(tiny, 16)
    assert f"--workers {most}," in caught.value.hint
    assert len(told_of(tiny, 16, force=True).engines) == 16


def test_each_gpu_has_a_worker(tiny: ModelFiles, machine: Any) -> None:
    machine(8 * GIB, 6 * GIB, 8 * GIB)
    found = told_of(tiny, "auto", n_threads=7)
    assert [options["vram"] for options in found.engines] == [[8 * GIB, 0, 0], [0, 6 * GIB, 0], [0, 0, 8 * GIB]]
    assert [options["n_threads"] for options in found.engines] == [3, 2, 2]
    assert parse_vram(found.engines[1]["vram"]) == (0, 6 * GIB, 0)


def test_gpus_are_shared_out_where_there_are_more_or_fewer_than_workers(tiny: ModelFiles, machine: Any) -> None:
    machine(8 * GIB, 6 * GIB, 4 * GIB)
    assert [options["vram"] for options in told_of(tiny, 2).engines] == [[8 * GIB, 0, 0], [0, 6 * GIB, 4 * GIB]]
    assert [options["vram"] for options in told_of(tiny, 4).engines] == [
        [4 * GIB, 0, 0],
        [0, 6 * GIB, 0],
        [0, 0, 4 * GIB],
        [4 * GIB, 0, 0],
    ]
    assert told_of(tiny, 1).engines == ({},)


def test_a_gpu_that_was_given_no_memory_has_no_worker(tiny: ModelFiles, machine: Any) -> None:
    machine(8 * GIB, 6 * GIB)
    assert told_of(tiny, "auto", vram="5GiB").engines[1]["vram"] == [0, 5 * GIB]
    assert told_of(tiny, "auto", vram="5GiB,1B").engines == ({},)
    for on_cpu in ({"vram": "none"}, {"n_gpu_layers": 0}):
        assert told_of(tiny, "auto", n_threads=4, **on_cpu) == Layout(({},), 4, 4)


def test_servers_have_one_worker(tiny: ModelFiles, machine: Any) -> None:
    machine(8 * GIB, 8 * GIB)
    assert told_of(tiny, "auto", rpc="127.0.0.1:50052").engines == ({},)
    with pytest.raises(InvalidRequestError, match="one client at a time"):
        told_of(tiny, 2, rpc="127.0.0.1:50052")


def test_a_gpu_too_small_for_two_has_one(tiny: ModelFiles, machine: Any) -> None:
    machine(700 * MIB)
    with pytest.raises(InsufficientMemoryError, match="GPU memory for 2 workers on 1 GPU"):
        told_of(tiny, 2)
