"""A model is loaded as it fits this machine: fewer layers, a smaller context, smaller batches, or an error."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import Session
from internvl_gguf.config import EngineConfig, GPULayers
from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError, LibraryError, ModelFileError
from internvl_gguf.gguf.filenames import RepoFile, sort_out
from internvl_gguf.hardware import cgroups
from internvl_gguf.hardware.trial import find_usable_settings
from internvl_gguf.llama.library import Device
from internvl_gguf.memory import ModelShape
from internvl_gguf.models.listing import list_model
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.planning import Configuration, MemoryBudget, machine_memory
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.planning.choice import Choices
from internvl_gguf.planning.machine_memory import machine_budget
from internvl_gguf.planning.placement import describe, placements, with_memory_hint
from internvl_gguf.session import in_process_runtime, open_encoder
from tests.support.pictures import noise
from tests.support.stand_in_machine import write_container

GIB, MIB = 2**30, 2**20


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    """The 14B in Q4_K_M."""
    listing = list_model("InternVL3-14B-Instruct")
    candidate = next(each for each in listing.candidates if each.quant == "Q4_K_M")
    return candidate.shape(candidate.encoders[0])


def ways(shape: ModelShape, budget: MemoryBudget, n_ctx: int | None = 8192, **config: Any) -> list[Configuration]:
    return list(placements("m", shape, EngineConfig(n_ctx=n_ctx, **config), n_ctx or 8192, 2, budget))


def gpu(free: int, kind: str = "gpu", name: str = "CUDA0") -> Device:
    return Device(name=name, description=f"{name} of a test", kind=kind, free_bytes=free, total_bytes=free)


def test_auto_puts_as_many_layers_on_the_gpu_as_fit(shape: ModelShape) -> None:
    roomy, tight = (ways(shape, MemoryBudget(32 * GIB, (vram * GIB,)))[0] for vram in (16, 8))
    assert roomy.is_full
    assert 0 < tight.gpu_layers < tight.n_layers
    assert tight.fits


def test_what_a_person_fixed_stays(shape: ModelShape) -> None:
    found = ways(shape, MemoryBudget(32 * GIB, (16 * GIB,)), n_gpu_layers=10, kv_type="q8_0", n_ubatch=256)
    for each in found:
        assert each.gpu_layers == 10
        assert each.request.kv_type == "q8_0"
        assert each.request.n_ctx == 8192
    assert found[0].request.n_ubatch == 256


def test_layers_that_do_not_fit_are_refused_unless_forced(shape: ModelShape) -> None:
    budget = MemoryBudget(32 * GIB, (4 * GIB,))
    with pytest.raises(InsufficientMemoryError) as caught:
        ways(shape, budget, n_gpu_layers=-1)
    assert "GPU0" in caught.value.table
    assert "force=True" in caught.value.hint
    forced = ways(shape, budget, n_gpu_layers=-1, force=True)[0]
    assert forced.gpu_layers == forced.n_layers
    assert not forced.fits


def test_a_context_nobody_asked_for_gives_way(shape: ModelShape) -> None:
    budget = MemoryBudget(int(10.6 * GIB))
    assert ways(shape, budget, n_ctx=None)[0].request.n_ctx < 8192
    with pytest.raises(InsufficientMemoryError, match="does not fit this machine"):
        ways(shape, budget, n_ctx=8192)


def test_batches_nobody_asked_for_give_way_before_the_context(shape: ModelShape) -> None:
    """What `internvl pick` says that fits is loaded like that."""
    budget = MemoryBudget(int(11.2 * GIB))
    found = ways(shape, budget)[0]
    assert found.fits
    assert (found.request.n_ctx, found.request.n_ubatch) == (8192, 128)
    with pytest.raises(InsufficientMemoryError, match="does not fit this machine"):
        ways(shape, budget, n_ubatch=512)
    totals = [each.plan.total for each in ways(shape, budget, n_ctx=None)]
    assert len(totals) == 3
    assert totals == sorted(totals, reverse=True)  # where that fails, too, no larger batches come back


def test_each_next_way_takes_less(shape: ModelShape) -> None:
    found = ways(shape, MemoryBudget(32 * GIB, (12 * GIB,)), n_ctx=None)
    on_gpu = [each.gpu_layers for each in found]
    assert on_gpu == sorted(on_gpu, reverse=True)
    assert found[0].is_full
    assert on_gpu[-1] == 0
    totals = [each.plan.gpus[0].total if each.plan.gpus else 0 for each in found]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == 0  # not even what a GPU costs with nothing on it
    assert [each.request.n_ctx for each in found][-3:] == [8192, 4096, 2048]
    assert found[-1].request.n_ubatch == 128
    assert describe(found[-1]).endswith("a context of 2,048 tokens, batches of 128")


# --- This machine ----------------------------------------------------------------------------------------------------


def test_budgets_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "free_host_memory", lambda: 16 * GIB)
    gpus = [gpu(10 * GIB), gpu(6 * GIB, name="CUDA1")]
    # Of the host a fiftieth is kept, as the planner keeps it of each GPU.
    assert machine_budget(gpus=gpus).budget == MemoryBudget(int(16 * GIB * 0.98), (10 * GIB, 6 * GIB))
    assert machine_budget((8 * GIB,), gpus=gpus).budget.gpus == (8 * GIB, 6 * GIB)
    assert machine_budget((8 * GIB, 2 * GIB), gpus=gpus).budget.gpus == (8 * GIB, 2 * GIB)
    assert machine_budget((64 * GIB,), 4 * GIB, gpus).budget == MemoryBudget(4 * GIB, (10 * GIB, 6 * GIB))
    with pytest.raises(InvalidRequestError, match="this machine has 2"):
        machine_budget((GIB, GIB, GIB), gpus=gpus)


def test_memory_that_host_and_gpu_share() -> None:
    for shared in (gpu(12 * GIB, name="MTL0"), gpu(12 * GIB, kind="igpu", name="Vulkan0")):
        assert machine_budget(gpus=[shared]).budget.is_unified
    assert not machine_budget(gpus=[gpu(12 * GIB)]).budget.is_unified


def test_a_machine_without_a_gpu_says_that_a_budget_is_for_nothing(
    monkeypatch: pytest.MonkeyPatch, tiny: ModelFiles
) -> None:
    monkeypatch.setattr(machine_memory, "usable_gpus", list)
    assert machine_budget((8 * GIB,)).budget.gpus == ()
    notices: list[str] = []
    with Session.open(tiny.text, tiny.mmproj, vram="8GiB", n_threads=1, on_notice=notices.append) as session:
        assert session.runtime.configuration.request.gpus == ()
    assert notices == ["No GPU that the installed llama.cpp can use: a budget of GPU memory has no effect here."]


def test_integrated_gpus_count_only_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [gpu(GIB, kind="cpu", name="CPU"), gpu(2 * GIB, kind="igpu", name="Vulkan0"), gpu(3 * GIB)]
    monkeypatch.setattr("internvl_gguf.llama.library.devices", lambda: found)
    assert [each.free_bytes for each in machine_memory.usable_gpus()] == [3 * GIB]
    monkeypatch.setattr("internvl_gguf.llama.library.devices", lambda: found[:2])
    assert [each.free_bytes for each in machine_memory.usable_gpus()] == [2 * GIB]


@pytest.mark.parametrize(("limit", "expected"), [("max\n", 8 * GIB), (str(5 * GIB), 4 * GIB), (str(MIB), 0)])
def test_the_limit_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, limit: str, expected: int
) -> None:
    folder = tmp_path_factory.mktemp("cgroup")
    write_container(folder, memory_max=limit, memory_current=str(GIB))
    monkeypatch.setattr(cgroups, "ROOT", folder)
    memory = type("Memory", (), {"available": 8 * GIB, "total": 16 * GIB})()
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert machine_memory.free_host_memory() == expected


def test_the_budget_decides_on_the_quant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "free_host_memory", lambda: 32 * GIB)
    monkeypatch.setattr(machine_memory, "usable_gpus", lambda: [gpu(24 * GIB)])
    listing = list_model("InternVL3-14B-Instruct")
    texts = sort_out(RepoFile(each.file, each.size) for each in listing.candidates).texts
    encoder = listing.candidates[0].encoders[0]
    mmprojs = sort_out([RepoFile(encoder.file, encoder.size)]).mmprojs
    choices = Choices("m", texts, mmprojs, listing.shape, {})
    sizes = {
        vram: machine_chooser(EngineConfig(vram=vram))(choices).text.size or 0 for vram in (None, "12GiB", "6GiB", GIB)
    }
    assert sizes[None] > sizes["12GiB"] >= sizes["6GiB"], "in 6 GiB part of it is on the CPU, for hardly more time"


# --- Real loads ------------------------------------------------------------------------------------------------------


def test_a_model_without_room_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch, tiny: ModelFiles) -> None:
    monkeypatch.setattr(machine_memory, "free_host_memory", lambda: 64 * MIB)
    with pytest.raises(InsufficientMemoryError) as caught:
        Session.open(tiny.text, tiny.mmproj, n_ctx=2048, n_threads=1)
    assert "process, driver" in str(caught.value)
    with Session.open(tiny.text, tiny.mmproj, n_ctx=2048, n_threads=1, force=True) as session:
        assert session.ask("Hi").usage.prompt_tokens > 0


def test_a_smaller_context_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "free_host_memory", lambda: 120 * MIB)
    notices: list[str] = []
    with Session.open("demo", n_threads=1, on_notice=notices.append) as session:
        assert session.runtime.engine.n_ctx == session.runtime.configuration.request.n_ctx == 4096
    assert notices == [
        "There is no memory for a context of 8,192: loading it with a context of 4,096 tokens, batches of 128."
    ]


_STARVED = """
import resource
from internvl_gguf import Session
Session.open("demo", n_threads=1).close()  # what a first load keeps is not to count
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 400 * 2**20,) * 2)
notices = []
with Session.open("demo", n_threads=1, n_parallel=4, kv_type="f32", on_notice=notices.append) as session:
    print(session.runtime.engine.n_ctx, session.runtime.configuration.request.n_ubatch)
    print(session.ask("Is there a circle?").finish_reason)
print(notices)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by /proc")
def test_a_load_that_fails_all_the_same_is_tried_smaller() -> None:
    """The system refuses memory that it said was there, as it does on a busy machine."""
    done = subprocess.run([sys.executable, "-c", _STARVED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    size, finish, notices = done.stdout.splitlines()
    n_ctx, n_ubatch = map(int, size.split())
    tried = re.findall(r"Trying it with a context of ([\d,]+) tokens(?:, batches of (\d+))?", notices)
    assert (n_ctx, n_ubatch) == (int(tried[-1][0].replace(",", "")), int(tried[-1][1] or 512))
    assert (n_ctx, n_ubatch) < (8192, 512)
    assert finish == "stop"
    assert "made no context" in notices


def test_the_last_failure_is_the_answer(monkeypatch: pytest.MonkeyPatch, tiny: ModelFiles) -> None:
    """No way works: the error of the last, and nothing stays open."""
    from internvl_gguf.errors import LibraryError
    from internvl_gguf.llama.context import Context

    tried = []

    def refuse(self: Context, model: Any, config: EngineConfig, **sizes: int) -> None:
        tried.append((config.n_ubatch, sizes["n_ctx"]))
        raise LibraryError("No context.", "None.")

    monkeypatch.setattr(Context, "__init__", refuse)
    with pytest.raises(LibraryError, match="No context"):
        Session.open(tiny.text, tiny.mmproj, n_threads=1, n_ctx=1024, on_notice=lambda line: None)
    assert tried == [(512, 1024), (128, 1024)]


def test_unified_memory_is_one_budget(shape: ModelShape) -> None:
    apart = MemoryBudget(14 * GIB, (13 * GIB,))
    first = ways(shape, replace(apart, is_unified=True))[0]
    assert first.plan.total <= 14 * GIB


def test_a_model_that_is_to_use_no_gpu(tiny: ModelFiles) -> None:
    """An empty list of devices is not "all of them"."""
    from internvl_gguf.llama.model import TextModel

    with TextModel(tiny.text, devices=()) as model:
        assert model.tokenize("Hi")


def test_no_gpu_is_a_budget_too() -> None:
    found = machine_budget((), gpus=[gpu(10 * GIB)])
    assert found.budget.gpus == ()
    assert found.budget.gpu_numbers == ()
    assert found.budget.has_gpus


@pytest.fixture
def stand_ins_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs that are not there pass the trial of the library."""
    monkeypatch.setattr(
        in_process_runtime, "find_usable_settings", lambda needs, gpus=None: find_usable_settings(needs)
    )


# --- After a failure -------------------------------------------------------------------------------------------------


def after_failures(
    shape: ModelShape, budget: MemoryBudget, now: list[MemoryBudget], **config: Any
) -> list[Configuration]:
    """All ways, where the machine has `now` after each failure in turn; the last of them for ever."""
    left = list(now)
    asked = EngineConfig(n_ctx=8192, **config)
    return list(placements("m", shape, asked, 8192, 2, budget, budget_now=lambda: left.pop(0) if left[1:] else left[0]))


def test_memory_that_others_took_meanwhile_is_planned_with(shape: ModelShape) -> None:
    """16 GiB were free when it was planned, 8 when it was loaded: the next way fits into 8, and is not the CPU."""
    before, now = MemoryBudget(32 * GIB, (16 * GIB,)), MemoryBudget(32 * GIB, (8 * GIB,))
    first, second, *_ = after_failures(shape, before, [now])
    assert first.is_full
    assert 0 < second.gpu_layers < first.gpu_layers
    assert second.plan.gpus[0].total <= 8 * GIB


def test_a_gpu_that_refuses_what_it_says_to_have_gets_less(shape: ModelShape) -> None:
    """An RPC server calls all of its memory free: parts of that still held everything, and the next way was none."""
    says = MemoryBudget(32 * GIB, (64 * GIB,))
    first, *others = after_failures(shape, says, [says])
    totals = [each.plan.gpus[0].total for each in others if each.plan.gpus]
    assert len(totals) >= 3
    assert all(total <= part * first.plan.gpus[0].total for total, part in zip(totals, (0.85, 0.7, 0.5), strict=False))
    assert not others[-1].plan.gpus


def test_layers_that_were_asked_for_have_the_encoder_tried_on_the_cpu(shape: ModelShape) -> None:
    """With -ngl a failure was tried once more with smaller batches, and that was all."""
    budget = MemoryBudget(32 * GIB, (16 * GIB,))
    first, second, *others = after_failures(shape, budget, [budget], n_gpu_layers=25)
    assert first.request.mmproj_on_gpu
    assert not any(each.request.mmproj_on_gpu for each in (second, *others))
    assert {each.gpu_layers for each in (first, second, *others)} == {25}
    assert second.request.n_ubatch == first.request.n_ubatch


def test_layers_that_fit_without_the_encoder_are_no_refusal(shape: ModelShape) -> None:
    whole = ways(shape, MemoryBudget(32 * GIB, (16 * GIB,)), n_gpu_layers=-1)[0]
    short = whole.plan.gpus[0].total - whole.plan.gpus[0].mmproj_weights // 2
    found = ways(shape, MemoryBudget(32 * GIB, (short,)), n_gpu_layers=-1)[0]
    assert found.gpu_layers == found.n_layers
    assert not found.request.mmproj_on_gpu
    assert found.fits


def test_hints_name_what_would_help(shape: ModelShape) -> None:
    """ "Use a smaller context", at a context of 2,048 and with every layer on a GPU that was full."""
    no_room = LibraryError("llama.cpp made no context (failed to allocate CUDA0 buffer).", "Use a smaller context.")
    damaged = ModelFileError("m.gguf cannot be loaded (invalid magic).", "Check the file.")
    on_gpu, on_cpu = ways(shape, MemoryBudget(32 * GIB, (16 * GIB,)))[0], ways(shape, MemoryBudget(32 * GIB))[0]
    assert "n_gpu_layers" in with_memory_hint(no_room, on_gpu).hint
    assert "(vram)" in with_memory_hint(no_room, on_gpu).hint
    assert "n_gpu_layers" not in with_memory_hint(no_room, on_cpu).hint
    assert with_memory_hint(no_room, on_gpu).message == no_room.message
    assert with_memory_hint(damaged, on_gpu) is damaged


@pytest.mark.usefixtures("stand_ins_work")
@pytest.mark.parametrize("layers", ["auto", -1])
def test_an_encoder_without_room_on_the_gpu_moves(
    monkeypatch: pytest.MonkeyPatch, tiny: ModelFiles, layers: GPULayers
) -> None:
    """The process died of GGML_ASSERT(buffer) before the next way could be tried. The GPU here is a stand-in."""
    from internvl_gguf.llama import vision

    asked: list[tuple[int | None, int]] = []

    def can_allocate(device: int | None, sizes: list[int]) -> bool:
        asked.append((device, sum(sizes[:2])))  # of the encoder itself
        return device is None

    monkeypatch.setattr(machine_memory, "usable_gpus", lambda: [gpu(4 * GIB)])
    monkeypatch.setattr(vision, "can_allocate", can_allocate)
    notices: list[str] = []
    with Session.open(tiny.text, tiny.mmproj, n_threads=1, n_gpu_layers=layers, on_notice=notices.append) as session:
        found = session.runtime.configuration
        assert not found.request.mmproj_on_gpu
        assert layers == "auto" or found.gpu_layers == found.n_layers
        assert session.ask("What is it?", [noise(1)]).usage.tiles_encoded == 13
    assert notices[0].startswith("There is no room for the vision encoder")
    assert "Trying it with" in notices[0]
    assert [device is None for device, _ in asked] == [False] * (len(asked) - 1) + [True]
    plan = found.plan.host
    assert asked[-1][1] == plan.mmproj_weights + plan.mmproj_compute_buffer


@pytest.mark.usefixtures("stand_ins_work")
def test_devices_are_named_in_the_order_of_the_plan(monkeypatch: pytest.MonkeyPatch, tiny: ModelFiles) -> None:
    """llama.cpp was notices shares, and of which devices it chose itself: servers of other machines first."""
    from internvl_gguf.llama.model import TextModel
    from internvl_gguf.llama.vision import VisionEncoder

    named: list[Any] = []
    encoders: list[int | None] = []

    def text_model(path: Path, **options: Any) -> TextModel:
        named.append((options["devices"], options["tensor_split"]))
        return TextModel(path, n_gpu_layers=0, devices=())

    def encoder(*args: Any, **options: Any) -> VisionEncoder:
        encoders.append(options["device"])
        return VisionEncoder(*args, **{**options, "use_gpu": False, "device": None, "room": None})

    found = [replace(gpu(GIB, name="Vulkan0"), handle=11), replace(gpu(2 * GIB, name="RPC0"), handle=22)]
    monkeypatch.setattr(machine_memory, "usable_gpus", lambda: found)
    monkeypatch.setattr(in_process_runtime, "TextModel", text_model)
    monkeypatch.setattr(open_encoder, "VisionEncoder", encoder)
    options: dict[str, Any] = {"n_threads": 1, "n_ctx": 512}
    with Session.open(tiny.text, tiny.mmproj, n_gpu_layers=1, **options):
        pass
    with Session.open(tiny.text, tiny.mmproj, vram="none", **options):
        pass
    assert [devices for devices, _ in named] == [[11, 22], []]
    assert len(named[0][1]) == 2
    assert encoders == [22, None]
