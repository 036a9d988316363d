"""A model loaded in this process: files are validated, corrected if the library needs it, loaded, closed in order."""

from __future__ import annotations

import atexit
import hashlib
import math
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from internvl_gguf.config import USUAL_PICTURES, EngineConfig, PictureOptions, check_kv_heads
from internvl_gguf.engine import Engine
from internvl_gguf.engine.embedding_cache import EmbeddingCache
from internvl_gguf.engine.embedding_store import EmbeddingStore
from internvl_gguf.engine.free_cores import CoreWatch
from internvl_gguf.errors import InvalidRequestError, LibraryError, ModelFileError
from internvl_gguf.gguf.arch.internvit import tile_operations
from internvl_gguf.gguf.fingerprint import file_fingerprint, remembered_fingerprint
from internvl_gguf.gguf.header import GGUFHeader, TensorInfo
from internvl_gguf.gguf.validation import ModelPair, validate_files
from internvl_gguf.hardware.cores import seconds_used_by_others, usable_cores
from internvl_gguf.hardware.cpu_tuning import host_settings
from internvl_gguf.hardware.trial import Needs, find_usable_settings
from internvl_gguf.hardware.unused_gpu import notice_once
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import Device, build, initialise
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.native import closed
from internvl_gguf.llama.rpc import connect_servers
from internvl_gguf.llama.vision import EncoderMemory
from internvl_gguf.memory import shape_from_headers
from internvl_gguf.memory.memory_request import context_length
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.planning.machine_memory import MachineBudget, machine_budget
from internvl_gguf.planning.placement import describe, placements, with_memory_hint
from internvl_gguf.planning.planner import Configuration
from internvl_gguf.planning.workload import MemoryBudget
from internvl_gguf.session.model_runtime import LoadProgress
from internvl_gguf.session.open_encoder import EncoderFile, EncoderPlace
from internvl_gguf.session.prompt_template import END, IMAGE_END, IMAGE_START, START
from internvl_gguf.session.saved_file import ModelIdentity
from internvl_gguf.tiling import TileRange
from internvl_gguf.utils.notices import Notice, log_notice
from internvl_gguf.utils.owned import Owned, disown_after_fork
from internvl_gguf.utils.records import EMBEDDINGS
from internvl_gguf.utils.rpc_addresses import network_warning
from internvl_gguf.utils.sizes import parse_vram
from internvl_gguf.vision.choice import choose_encoder

_NO_GPU: Final = "No GPU that the installed llama.cpp can use: all layers stay on the CPU."


class InProcessRuntime(Owned):
    """A loaded model with its engine, shared by a session and its forks.

    Owns every native object; the last `release` frees them: context, vision encoder, text model. So do dropping it and
    the end of the interpreter, if no thread computes any more.

    Args:
        files: the two files of the model.
        config: how to run it.
        on_load: called with the fraction of the text model that is loaded.
        on_notice: called with one line if it is loaded in another way than asked for.
        pictures: how pictures will be cut, for which memory is planned.

    Attributes:
        files, text, vision: the files and the facts from their headers.
        settled: which of llama.cpp's kernels are not used on this machine.
        configuration: how it is loaded, with the memory that takes and the speed expected.
        host: the threads and batch sizes it uses on the CPU.
        engine: decodes and encodes.

    Raises:
        InsufficientMemoryError: by the plan, no way to load it fits the memory.
        ModelFileError, ModelPairError: files that are damaged, of another kind, or not of one model.
        InvalidRequestError: a context longer than the model was trained for, or a batch smaller than a tile.
        LibraryError: llama.cpp does not match this package, or refused.
    """

    def __init__(
        self,
        files: ModelFiles,
        config: EngineConfig,
        on_load: LoadProgress | None = None,
        on_notice: Notice = log_notice,
        pictures: PictureOptions = USUAL_PICTURES,
    ) -> None:
        # Started here, so that the first question already knows how many cores others use.
        self._cores = None if config.n_threads else core_watch()
        # All weights of a file whose fingerprint is remembered were checked before.
        fingerprint = remembered_fingerprint(files.mmproj)
        pair = validate_files(files.text, files.mmproj, check_weights=fingerprint is None)
        fingerprint = fingerprint or file_fingerprint(files.mmproj)
        self.text, self.vision = pair.text, pair.mmproj
        n_ctx = context_length(config.n_ctx, self.text.n_ctx_train)
        _check_config(config, pair)
        initialise()
        self._on_cache_notice = on_notice
        self._encoder_device = config.encoder_device
        self.files = files
        self._text_parts = [Path(header.label) for header in pair.text_headers]
        self.control_tokens: Mapping[str, int] = {
            START: self.text.im_start,
            END: self.text.im_end,
            IMAGE_START: self.text.img,
            IMAGE_END: self.text.img_end,
            **dict(self.text.thinking),
        }
        self._users = 1
        self._lock = threading.Lock()
        self.host = host_settings(config.n_threads)
        self._servers = connect_servers(config.servers)
        machine = self._machine(config)
        self.settled = find_usable_settings(needs_of(pair, config), machine.usable)
        no_gpu = config.n_gpu_layers not in ("auto", 0) and not machine.gpus
        is_wanted = config.n_gpu_layers != 0 and config.vram != "none"
        unused = notice_once() if not machine.budget.has_local_gpus and is_wanted else ""
        notices = (network_warning(config.servers), *machine.notices, *([_NO_GPU] if no_gpu else ()), unused)
        for notice in (*notices, *self.settled.notices):
            if notice:
                on_notice(notice)
        config = config if self.settled.flash_attn else replace(config, flash_attn=False)
        self._encoder_file = EncoderFile(
            files.mmproj,
            pair.mmproj_header,
            pair.mmproj,
            fingerprint,
            is_shifted=self.settled.positions_are_shifted,
            on_notice=on_notice,
        )
        self._gpus = machine.gpus
        shape = shape_from_headers(pair.text_headers, pair.mmproj_header)
        usable = self._usable(machine)
        ways = placements(
            files.text.stem,
            shape,
            config,
            n_ctx,
            self.host.most_threads,
            usable,
            self.host.n_ubatch,
            lambda: self._usable(self._machine(config)),
            choose_encoder(
                config,
                most_common_kind(pair.mmproj_header),
                tile_operations(pair.mmproj),
                is_cpu_alone=usable.encoder_gpu is None or config.n_gpu_layers == 0,
                on_notice=on_notice,
            ),
            pictures.most_tiles(TileRange.of(pair.mmproj)),
        )
        self.configuration = next(ways)
        if self.configuration.request.n_ctx < n_ctx:
            on_notice(f"There is no memory for a context of {n_ctx:,}: loading it with {describe(self.configuration)}.")
        self.engine, self._owned = self._open_smaller(ways, config, on_load, on_notice)
        self.encoder_identity = self._encoder_file.identity_in(self._encoder_place)
        _loaded.add(self)
        disown_after_fork(self)

    def _machine(self, config: EngineConfig) -> MachineBudget:
        """The memory that there is now, on this machine and at the servers."""
        return machine_budget(parse_vram(config.vram), servers=self._servers)

    def _usable(self, machine: MachineBudget) -> MemoryBudget:
        """What may be taken of a machine, by what the trial of the library found."""
        return replace(machine.without(self.settled.unusable), extra_buffers=self.settled.extra_buffers)

    @property
    def is_alive(self) -> bool:
        """Always True: a crash of the model ends this process, too."""
        return True

    def revive(self) -> None:
        """Do nothing: the model lives as long as this process."""

    @cached_property
    def identity(self) -> ModelIdentity:
        """See `ModelRuntime.identity`. Reads the text model's files, unless their fingerprints are remembered."""
        request = self.configuration.request
        parts = "|".join(file_fingerprint(part) for part in self._text_parts)
        return ModelIdentity(
            text=hashlib.blake2b(parts.encode(), digest_size=16).hexdigest(),
            encoder=self._encoder_file.identity.hex(),
            build=build(),
            kv_type=request.kv_type,
            flash_attn=request.flash_attn,
        )

    def _open_smaller(
        self,
        ways: Iterator[Configuration],
        config: EngineConfig,
        on_load: LoadProgress | None,
        on_notice: Notice,
    ) -> tuple[Engine, ExitStack]:
        """Load everything in the current configuration, or while that fails, in the next smaller one of `ways`."""
        while True:
            try:
                return self._open(config, on_load)
            except (LibraryError, ModelFileError) as error:
                smaller = next(ways, None)
                if smaller is None:
                    raise with_memory_hint(error, self.configuration) from error
                on_notice(f"{error.message} Trying it with {describe(smaller)}.")
                self.configuration = smaller

    def _open(self, config: EngineConfig, on_load: LoadProgress | None) -> tuple[Engine, ExitStack]:
        """Load everything in the current configuration; the stack frees it."""
        request = self.configuration.request
        is_split = len(request.gpus) > 1 and request.n_gpu_layers != 0
        flash_attn = config.flash_attn
        if flash_attn == "auto" and not request.flash_attn:
            flash_attn = False
        config = replace(config, n_ubatch=request.n_ubatch, flash_attn=flash_attn)
        disk_bytes = config.embedding_disk_bytes
        store = EmbeddingStore(EMBEDDINGS.path, disk_bytes) if disk_bytes else None
        with ExitStack() as opening:
            cache = EmbeddingCache(
                config.embedding_cache_bytes, store, partial(_tell_of_cache, self._encoder_file, self._on_cache_notice)
            )
            opening.callback(cache.close)
            model = TextModel(
                self.files.text,
                n_gpu_layers=request.n_gpu_layers,
                n_cpu_moe=request.n_cpu_moe,
                devices=[gpu.handle for gpu in self._used_gpus],
                tensor_split=request.gpus if is_split else (),
                use_extra_bufts=request.extra_buffers,
                on_progress=on_load,
            )
            opening.callback(model.close)
            encoder = self._encoder_file.open(model, self._encoder_place)
            opening.callback(encoder.close)
            context = Context(
                model,
                config,
                n_ctx=request.n_ctx,
                n_threads=self.host.n_threads,
                n_threads_batch=self.host.n_threads_batch,
            )
            opening.callback(context.close)
            engine = Engine(model, encoder, context, cache, self._cores)
            opening.callback(engine.close)
            return engine, opening.pop_all()

    @property
    def _used_gpus(self) -> list[Device]:
        """The GPUs of the current configuration, passed to llama.cpp explicitly: its own order may differ."""
        return [self._gpus[number] for number in self.configuration.budget.gpu_numbers]

    @property
    def _encoder_gpu(self) -> Device | None:
        """The GPU that runs the vision encoder; None for the CPU."""
        number = self.configuration.request.mmproj_gpu
        return None if number is None else self._used_gpus[number]

    @property
    def _encoder_place(self) -> EncoderPlace:
        """Where and how the vision encoder runs in the current configuration."""
        plan, request = self.configuration.plan, self.configuration.request
        device = plan.host if request.mmproj_gpu is None else plan.gpus[request.mmproj_gpu]
        return EncoderPlace(
            kind=request.encoder,
            gpu=self._encoder_gpu,
            memory=EncoderMemory(device.mmproj_weights, device.mmproj_compute_buffer),
            n_threads=self.host.n_threads_batch,
            flash_attn=self.settled.flash_attn,
            device=self._encoder_device,
        )

    def share(self) -> InProcessRuntime:
        """Count one more user and return this runtime.

        Raises:
            SessionStateError: its last user has released it.
        """
        with self._lock:
            if not self._users:
                raise closed()
            self._users += 1
        return self

    def release(self) -> None:
        """Count one user less; the last one frees the native objects."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._close()

    def close_if_idle(self) -> None:
        """Free the native objects, even if the runtime has users, unless a thread computes at this moment."""
        if self.engine.close_if_idle():
            self._close()

    def disown(self) -> None:
        """See `Owned.disown`."""
        self._owned = ExitStack()
        self._lock = threading.Lock()
        self._encoder_file.disown_temporary()

    def _close(self) -> None:
        self._owned.close()
        self._encoder_file.discard_temporary()


_loaded: Final[weakref.WeakSet[InProcessRuntime]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close all idle runtimes in order; one that a daemon thread computes with is left to the system."""
    for runtime in list(_loaded):
        runtime.close_if_idle()


def _tell_of_cache(encoder: EncoderFile, on_notice: Notice, line: str) -> None:
    """Tell that embeddings cannot be kept, unless it was told that nothing can be.

    A method of the runtime would keep it alive: the engine that it owns holds this.
    """
    if not encoder.is_cache_unwritable:
        on_notice(line)


def core_watch() -> CoreWatch | None:
    """Return a count of the cores that others leave free; None on a system that does not report their CPU time."""
    try:
        return CoreWatch(len(usable_cores()), seconds_used_by_others)
    except (OSError, NotImplementedError, RuntimeError):
        return None


def needs_of(pair: ModelPair, config: EngineConfig) -> Needs:
    """Return the parts of the library's trial that a model with this configuration depends on."""
    encoder = _kinds(_matrices(pair.mmproj_header))
    return replace(
        text_needs(*pair.text_headers), encoder_kinds=encoder, kv_type=config.kv_type, flash_attn=config.flash_attn
    )


def text_needs(*headers: GGUFHeader) -> Needs:
    """Return the parts of the library's trial that the files of a text model depend on."""
    matrices = _matrices(*headers)
    return Needs(
        _kinds(tensor for tensor in matrices if "_exps." not in tensor.name),
        expert_kinds=_kinds(tensor for tensor in matrices if "_exps." in tensor.name),
        head_norms=any(name.endswith("attn_q_norm.weight") for header in headers for name in header.tensors),
    )


def most_common_kind(header: GGUFHeader) -> str:
    """Return the element type that most weights of a file have, such as "F16"."""
    elements: Counter[str] = Counter()
    for tensor in header.tensors.values():
        elements[tensor.type.name] += math.prod(tensor.shape)
    return elements.most_common(1)[0][0]


def _matrices(*headers: GGUFHeader) -> list[TensorInfo]:
    tensors = (tensor for header in headers for tensor in header.tensors.values())
    return [tensor for tensor in tensors if len(tensor.trimmed_shape) > 1]


def _kinds(tensors: Iterable[TensorInfo]) -> frozenset[str]:
    """Return the element types of tensors, such as "Q4_K"."""
    return frozenset(tensor.type.name for tensor in tensors)


def _check_config(config: EngineConfig, pair: ModelPair) -> None:
    """Refuse a configuration that this model cannot be run with.

    Raises:
        InvalidRequestError: a quantised cache for heads that do not divide into blocks, or batches smaller than a tile.
    """
    head_dim, tokens_per_tile = pair.text.head_dim, pair.mmproj.tokens_per_tile
    check_kv_heads(config.kv_type, head_dim)
    if config.n_batch < tokens_per_tile:
        raise InvalidRequestError(
            f"n_batch is {config.n_batch}, less than the {tokens_per_tile} visual tokens of a tile.",
            f"Use n_batch={tokens_per_tile} or more.",
        )
