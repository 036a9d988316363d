"""Ask llama.cpp itself for the memory of a configuration, given a header alone.

llama.cpp plans memory without allocating any (`no_alloc` of its model parameters, `llama_context::graph_reserve` with
`sizes`). It wants a file of the full size: the header goes to a sparse file in a temporary folder, which takes no more
disk than the header where the file system knows sparse files. It may abort on what it reads, so it runs in a process of
its own (`internvl_gguf.llama.dry_run_process`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.gguf.header import ByteSource, GGUFHeader, LocalFile, read_header
from internvl_gguf.gguf.model_weights import ModelShape
from internvl_gguf.gguf.read_shape import shape_from_headers
from internvl_gguf.memory.memory_request import MemoryRequest
from internvl_gguf.memory.plan import DeviceMemory, MemoryPlan, predict_memory, text_weights
from internvl_gguf.utils.child_process import child_process, python_module
from internvl_gguf.utils.paths import making_temporary
from internvl_gguf.utils.process_end import describe_end

Source = str | PathLike[str] | ByteSource
_COMMAND: Final = python_module("internvl_gguf.llama.dry_run_process")
TIMEOUT: Final = 120.0  # seconds for all configurations of a call; one takes about a tenth of a second, loading one


def dry_run(
    text: Source | Sequence[Source],
    requests: Sequence[MemoryRequest],
    *,
    mmproj: GGUFHeader | None = None,
    timeout: float = TIMEOUT,
) -> list[MemoryPlan]:
    """Ask llama.cpp for the memory of configurations.

    It answers for the devices of this machine: `requests` must name as many GPUs as it has. It says nothing about the
    mmproj, the process and the CPU's work buffer; these parts are those of `predict_memory`.

    Args:
        text: the text GGUF: a path or a `ByteSource`; for a split model all parts in order.
        requests: the configurations.
        mmproj: header of the vision half, to include it.
        timeout: seconds for all requests.

    Returns:
        One plan for each request, with `source` "dry run".

    Raises:
        InvalidRequestError: a configuration this model cannot be run in.
        ModelFileError: the header cannot be read.
        LibraryError: llama.cpp refused, died, or took too long.
    """
    sources = _sources(text)
    headers = [read_header(source) for source in sources]
    shape = shape_from_headers(headers, mmproj)
    predicted = [predict_memory(shape, request) for request in requests]
    with making_temporary():
        temporary = tempfile.TemporaryDirectory(prefix="internvl-dry-run-")
    with temporary as folder:
        path = _write_headers(Path(folder), sources, headers)
        answers = ask(path, requests, timeout=timeout)
    return [_plan(shape, *each) for each in zip(requests, predicted, answers, strict=True)]


def ask(
    path: Path, requests: Sequence[MemoryRequest], *, allocate: bool = False, timeout: float = TIMEOUT
) -> list[dict[str, Any]]:
    """Return the answers of `internvl_gguf.llama.dry_run_process` about a file.

    Args:
        path: the text GGUF; for a split model its first part.
        requests: the configurations.
        allocate: whether to really load the weights.
        timeout: seconds for all requests.

    Raises:
        LibraryError: llama.cpp refused, died, or took too long.
    """
    request = {"path": str(path), "allocate": allocate, "configurations": [_configuration(each) for each in requests]}
    with child_process(_COMMAND, json.dumps(request), timeout=timeout) as child:
        answers = list(child.objects())
        status, words = child.wait(), child.last_error_line()
    if child.timed_out:
        raise LibraryError(f"The dry run took more than {timeout:g} seconds.", "Ask for fewer configurations.")
    for answer in answers:
        if "error" in answer:
            raise LibraryError(f"The dry run failed: {answer['error']}", answer["hint"])
    if len(answers) < len(requests):
        raise LibraryError(
            f"The dry run of {requests[len(answers)]} {describe_end(status, words)}.",
            "Use the prediction by formula, and report this with the model's name.",
        )
    return answers


def _sources(text: Source | Sequence[Source]) -> list[ByteSource]:
    if isinstance(text, str | PathLike):
        return [LocalFile(text)]
    if isinstance(text, Sequence):
        return [LocalFile(part) if isinstance(part, str | PathLike) else part for part in text]
    return [text]


def _write_headers(folder: Path, sources: Sequence[ByteSource], headers: Sequence[GGUFHeader]) -> Path:
    """Write sparse files with each part's header and full size; return the path of the first."""
    paths = [folder / f"model-{number:05}-of-{len(sources):05}.gguf" for number in range(1, len(sources) + 1)]
    try:
        for path, source, header in zip(paths, sources, headers, strict=True):
            with path.open("wb") as stream:
                stream.write(source.read_prefix(header.data_offset))
                stream.truncate(source.size)
    except OSError as error:
        raise LibraryError(
            f"A file of the model's size cannot be made in {folder.parent}: {error.strerror or error}.",
            "Set TMPDIR to a folder on a file system with sparse files, or use the prediction by formula.",
        ) from error
    return paths[0]


def _configuration(request: MemoryRequest) -> dict[str, Any]:
    return {
        "n_ctx": request.n_ctx,
        "n_parallel": request.n_parallel,
        "n_candidates": request.n_candidates,
        "n_batch": request.n_batch,
        "n_ubatch": request.n_ubatch,
        "n_draft": request.n_draft,
        "kv_type": request.kv_type,
        "flash_attn": request.flash_attn,
        "n_gpu_layers": request.n_gpu_layers,
        "n_cpu_moe": request.n_cpu_moe,
        "gpus": request.gpus,
        "n_threads": request.n_threads,
        "extra_buffers": request.extra_buffers,
    }


def _plan(shape: ModelShape, request: MemoryRequest, predicted: MemoryPlan, answer: dict[str, Any]) -> MemoryPlan:
    """Return the prediction, with llama.cpp's numbers in place of ours where it gives any."""
    layers: list[str] = answer["layers"]
    names = {device.device for device in predicted.devices}
    found = {*layers, *answer["compute"], *answer["output"]}
    if not found <= names:
        raise LibraryError(
            f"llama.cpp used {', '.join(sorted(found - names))}, which the request does not name.",
            "Name as many GPUs as `internvl doctor` shows.",
        )
    per_layer = answer["kv_cache"] // shape.text.n_layers
    *homes, output = layers[: shape.text.n_layers + 1]
    on_host = request.host_experts(shape.text.n_layers)
    experts = ["CPU"] * on_host + homes[on_host:]
    weights = text_weights(shape.text, homes, output, experts, reorders=request.reorders)
    # llama.cpp enlarges this buffer when drafted tokens first need their rows of logits.
    guesses = 4 * shape.text.n_vocab * request.n_draft
    unlisted = answer["weights"] - sum(weight.n_bytes for weight in shape.text.weights)
    if unlisted:
        raise LibraryError(f"llama.cpp counts {unlisted:,} bytes of weights that the header does not.", "Report this.")

    def measured(device: DeviceMemory) -> DeviceMemory:
        name = device.device
        return replace(
            device,
            weights=weights.get(name, 0),
            kv_cache=per_layer * homes.count(name),
            compute_buffer=answer["compute"].get(name, 0),
            output_buffer=answer["output"][name] + guesses if name in answer["output"] else 0,
        )

    return replace(predicted, source="dry run", devices=tuple(map(measured, predicted.devices)))
