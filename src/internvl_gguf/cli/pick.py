"""`internvl pick`: rank the quants that fit a machine, before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import typer

from internvl_gguf.cli import options, pick_options
from internvl_gguf.cli.output import say
from internvl_gguf.cli.picks import Picks, usual_tiles
from internvl_gguf.cli.run import option_errors
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.tiling import MAX_TILES
from internvl_gguf.utils.sizes import counted, memory_note

if TYPE_CHECKING:
    from internvl_gguf.hardware.device_speed import Roofline
    from internvl_gguf.models.hub_resolver import HubResolver
    from internvl_gguf.models.listing import ModelListing
    from internvl_gguf.planning import MemoryBudget, Preference, Workload

_FRAMES: Final = 32  # of a clip, as many as are planned for with --for video


def pick(
    model: pick_options.ModelArgument = None,
    mmproj: pick_options.MmprojOption = None,
    vram: pick_options.VRAMOption = None,
    ram: pick_options.RAMOption = None,
    mac: pick_options.MacOption = None,
    rpc: options.RPCOption = None,
    rpc_insecure_network: options.InsecureNetworkOption = False,
    context: pick_options.ContextOption = None,
    images: pick_options.ImagesOption = None,
    max_tiles: pick_options.MaxTilesOption = None,
    parallel: pick_options.ParallelOption = 1,
    kv: pick_options.KVOption = None,
    task: pick_options.TaskOption = None,
    speed: pick_options.SpeedOption = False,
    quality: pick_options.QualityOption = False,
    why: pick_options.WhyOption = None,
    headers: pick_options.HeadersOption = False,
    show_all: pick_options.AllOption = False,
    json_output: options.JSONOption = False,
) -> None:
    """Pick what to run: the quants that fit this machine, or another, the best first, before anything is fetched.

    Memory is planned as llama.cpp plans it, speeds are estimates.

    A Mac's GPU shares one memory with the CPU. On it, leave out --vram and --ram: both are known. For another Mac give
    its memory, as --mac 16GiB.
    """
    from internvl_gguf.cli.pick_report import explain, print_picks
    from internvl_gguf.hardware.cpu_tuning import host_settings
    from internvl_gguf.planning import Workload, rank

    if speed and quality:
        raise typer.BadParameter("give --speed or --quality, not both", param_hint="--speed")
    preference: Preference = "speed" if speed else "quality" if quality else "balanced"
    with option_errors():
        name, are_frames = _one_name(model), task == "video"
        wanted, host = _Machine(vram, ram, mac, options.rpc_servers(rpc, rpc_insecure_network)), host_settings()
        asked = Workload(
            pictures=(_FRAMES if are_frames else 1) if images is None else images,
            max_tiles=(1 if are_frames else MAX_TILES) if max_tiles is None else max_tiles,
            are_frames=are_frames,
            n_parallel=parallel,
            kv_type=kv,
            host_ubatch=host.n_ubatch,
            n_threads=host.most_threads,
        )
    listings = _listings(name, mmproj, read_headers=headers)
    is_usual = max_tiles is None and not are_frames
    asked = replace(asked, max_tiles=usual_tiles(listings)) if is_usual else asked
    with option_errors():
        workload, cut = _with_context(asked, context, listings)
    budget, memory, notices = wanted.budget()
    limit = _limit_note(listings) if is_usual else ""
    notices = (*(note for note in (memory_note(vram, ram, mac), limit, cut) if note), *notices)
    picks = Picks(listings, budget, memory, wanted.roofline(), workload, preference, task, mmproj, notices, wanted.rpc)
    for notice in (*notices, *(notice for listing in listings for notice in listing.notices)):
        say(notice)
    explained = why or (listings[0].wanted if len(listings) == 1 else None)
    if explained:
        explain(picks, explained, json_output)
        return
    candidates = [candidate for listing in listings for candidate in listing.candidates]
    print_picks(picks, rank(candidates, budget, workload, picks.roofline, preference, task), show_all, json_output)


def _one_name(named: Sequence[str] | None) -> str | None:
    """Return the one model that was named; None for the whole family.

    Raises:
        InvalidRequestError: several were named.
    """
    names = [name for each in named or () for name in ([each] if os.path.exists(each) else each.split(","))]  # noqa: PTH110
    if len(names) > 1:
        raise InvalidRequestError(
            f"pick takes one model, or none for the whole family, and {len(names)} were named.",
            f"Name one of {', '.join(names)}, or leave all out: then the family is compared.",
        )
    return names[0] if names else None


def _limit_note(listings: Sequence[ModelListing]) -> str:
    """Say that the mmproj has another limit on tiles than the model card; "" if it does not."""
    usual = usual_tiles(listings)
    if usual == MAX_TILES:
        return ""
    return f"Pictures of up to {usual} tiles, as the mmproj says; the model card has {MAX_TILES}."


class _Machine:
    """The machine that is picked for: memory given by options, or this one's if none was given.

    Attributes:
        rpc: addresses of RPC servers that are used, too.

    Raises:
        InvalidRequestError: sizes that are none, or of a Mac beside others.
    """

    def __init__(self, vram: str | None, ram: str | None, mac: str | None, rpc: tuple[str, ...] = ()) -> None:
        from internvl_gguf.utils.sizes import parse_memory, parse_vram

        if mac is not None and (vram is not None or ram is not None):
            raise InvalidRequestError("--mac is all of a Mac's memory.", "Leave --vram and --ram out.")
        self._vram = parse_vram(vram)
        self._ram = parse_memory(ram) if ram is not None else None
        self._mac = parse_memory(mac) if mac is not None else None
        self.rpc = rpc

    def budget(self) -> tuple[MemoryBudget, str, tuple[str, ...]]:
        """Return the bytes of each device, the same in words, and notices about this machine.

        Raises:
            RPCServerError: a server cannot be reached, gives no answer in time, or speaks another version.
        """
        budget, words, notices = self._local_budget()
        if not self.rpc:
            return budget, words, notices
        from internvl_gguf.planning.remote_devices import asked_servers, room_at, with_servers
        from internvl_gguf.utils.rpc_addresses import network_warning
        from internvl_gguf.utils.sizes import rounded_size

        reports, missing = asked_servers(self.rpc)
        servers = " and ".join(
            f"{rounded_size(sum(map(room_at, report.devices)))} at {report.address}" for report in reports
        )
        told = tuple(line for line in (network_warning(self.rpc), missing) if line)
        return with_servers(budget, reports), f"{words}, with {servers}", (*notices, *told)

    def _local_budget(self) -> tuple[MemoryBudget, str, tuple[str, ...]]:
        from internvl_gguf.planning import MemoryBudget
        from internvl_gguf.planning.machine_memory import host_budget, mac_budget, total_host_memory
        from internvl_gguf.utils.sizes import plain_size, rounded_size

        if self._mac is not None:
            budget = mac_budget(self._mac)
            return budget, f"a Mac of {plain_size(self._mac)}, {rounded_size(budget.gpus[0])} of it for the GPU", ()
        if self._vram is None:
            return self._budget_here()
        ram = total_host_memory() if self._ram is None else self._ram
        size = f"this machine's {rounded_size(ram)}" if self._ram is None else plain_size(ram)
        gpus = [plain_size(gpu) for gpu in self._vram]
        room = host_budget(ram)
        return MemoryBudget(room, self._vram), _in_words(gpus, _of_ram(size, ram - room)), ()

    def roofline(self) -> Roofline | None:
        """Return how fast the devices are: as measured here, or of a typical Mac."""
        from internvl_gguf.hardware.roofline import recorded_roofline
        from internvl_gguf.hardware.typical_devices import assumed_device, completed

        if self._mac is None:
            return recorded_roofline()
        return replace(completed(None, 0), gpus=(assumed_device("apple"),))

    def _budget_here(self) -> tuple[MemoryBudget, str, tuple[str, ...]]:
        from internvl_gguf.hardware.unused_gpu import find_unused_gpu
        from internvl_gguf.planning.machine_memory import host_budget, machine_budget, total_host_memory
        from internvl_gguf.utils.sizes import plain_size, rounded_size

        machine = machine_budget()
        unused = None if machine.gpus else find_unused_gpu()
        notices = (*machine.notices, *([unused.notice] if unused else ()))
        gpus = [f"{rounded_size(gpu)} free" for gpu in machine.budget.gpus]
        if self._ram is not None:
            room = host_budget(self._ram)
            words = _in_words(gpus, _of_ram(plain_size(self._ram), self._ram - room))
            return replace(machine.budget, host=room), words, notices
        free, total = rounded_size(machine.budget.host), rounded_size(total_host_memory())
        return machine.budget, _in_words(gpus, f"this machine's {total} of RAM, {free} of it free"), notices


def _of_ram(size: str, kept: int) -> str:
    """Say how much host memory there is, and what of it is left to the system."""
    from internvl_gguf.utils.sizes import rounded_size

    return f"{size} of RAM, {rounded_size(kept).replace('.0 ', ' ')} of it for the system"


def _in_words(gpus: list[str], ram: str) -> str:
    return f"{' + '.join(gpus)} of VRAM and {ram}" if gpus else f"{ram}, no GPU"


def _listings(model: str | None, mmproj: str | None, *, read_headers: bool) -> list[ModelListing]:
    from internvl_gguf.models.listing import family, list_model

    name = model or os.environ.get(options.MODEL_VARIABLE)
    if name:
        return [list_model(name, mmproj=mmproj, resolver=_resolver, read_headers=read_headers)]
    return family()


def _resolver() -> HubResolver:
    from internvl_gguf.models.hub import HubClient
    from internvl_gguf.models.hub_resolver import HubResolver

    return HubResolver(HubClient(on_wait=say))


def _with_context(workload: Workload, context: int | None, listings: list[ModelListing]) -> tuple[Workload, str]:
    """Return the workload with the context asked for, or with the context that the pictures need.

    Pictures that the models were not trained to hold are planned as a question has them: cut into fewer tiles. The text
    says so; it is empty otherwise.

    Raises:
        InvalidRequestError: more than a model was trained for, or pictures that it does not hold.
    """
    from internvl_gguf.planning import check_pictures_fit, context_for, most_tiles
    from internvl_gguf.planning.workload import TEXT_ROOM

    shapes = [listing.shape for listing in listings]
    trained = min((shape.text.n_ctx_train for shape in shapes if shape.text.n_ctx_train), default=None)
    tokens = max(shape.vision.tokens_per_tile if shape.vision else 0 for shape in shapes)
    n_ctx = context_for(workload.pictures, workload.max_tiles, tokens, trained, context)
    workload = replace(workload, n_ctx=n_ctx)
    fewer = None if context else most_tiles(workload, tokens, TEXT_ROOM)
    cut = replace(workload, max_tiles=fewer) if fewer else workload
    check_pictures_fit(cut, tokens, trained)
    if cut == workload:
        return workload, ""
    whose = "some of these models were" if len(listings) > 1 else f"{listings[0].name} was"
    return cut, (
        f"{workload.pictures} pictures of {counted(workload.tiles_per_picture, 'tile')} are more than the {n_ctx:,} "
        f"tokens that {whose} trained for: planned with {counted(cut.tiles_per_picture, 'tile')} a picture, as a "
        "question cuts them."
    )
