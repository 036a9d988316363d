"""Options that several commands share. Defaults are read from the classes that own them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from internvl_gguf.cli.output import say
from internvl_gguf.cli.settings_file import wanted_model
from internvl_gguf.config import EngineConfig, FlashAttention, GPULayers, KVType, SamplingParams
from internvl_gguf.models.names import DEMO
from internvl_gguf.tiling import MAX_TILES
from internvl_gguf.types import PictureLayout

VARIABLES: Final = "INTERNVL"
"""What the names of all variables begin with."""
MODEL_VARIABLE = f"{VARIABLES}_MODEL"

FlashAttentionName = Literal["auto", "on", "off"]

_LOADING = "How the model is loaded"
_PICTURES = "Pictures"
_SAMPLING = "How the answer is chosen"
_BATCH = "Many questions"

BATCH_PARALLEL = 4
"""Questions of a batch answered at once where nothing else is said: most of what batching gains, a quarter the memory
of what would gain the rest."""


SAMPLING, ENGINE = SamplingParams(), EngineConfig()


def _shared(variable: str, *names: str, **more: Any) -> Any:
    """An option that a variable sets for every command that has it: INTERNVL_ and its name."""
    return typer.Option(*names, envvar=f"{VARIABLES}_{variable}", show_envvar=False, **more)


def given(metavar: str | None, help_text: str, panel: str | None, *names: str, **more: Any) -> Any:
    """An option that is left out unless somebody gives it, and so has no default to show."""
    return typer.Option(*names, metavar=metavar, help=help_text, show_default=False, rich_help_panel=panel, **more)


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A model's name, owner/repo:QUANT, a .gguf path or `demo`.",
        envvar=MODEL_VARIABLE,
        show_envvar=True,
    ),
]
MmprojOption = Annotated[
    str | None,
    _shared(
        "MMPROJ",
        metavar="FILE|PRECISION",
        help="The vision encoder's .gguf, or a precision such as BF16; the one that suits this machine if left out.",
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
ContextOption = Annotated[
    int | None,
    _shared(
        "N_CTX",
        "--n-ctx",
        "--context",
        "-c",
        help="Positions of the context; as much as the model was trained for, up to 8192, if left out.",
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
GPULayersOption = Annotated[
    str,
    _shared(
        "N_GPU_LAYERS",
        "--n-gpu-layers",
        "-ngl",
        help="Layers on the GPU: auto, all or a number.",
        rich_help_panel=_LOADING,
    ),
]
VRAMOption = Annotated[
    str | None,
    _shared(
        "VRAM",
        "--vram",
        metavar="SIZE[,SIZE]...",
        help='Memory of each GPU that may be taken, as "12GiB"; what is free if left out.',
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
ForceOption = Annotated[
    bool,
    _shared("FORCE", "--force", help="Load a model that by the plan has no room.", rich_help_panel=_LOADING),
]
KVTypeOption = Annotated[
    KVType, _shared("KV_TYPE", "--kv-type", "--kv", help="Element type of the KV cache.", rich_help_panel=_LOADING)
]
FlashAttentionOption = Annotated[
    FlashAttentionName,
    _shared("FLASH_ATTN", "--flash-attn", "-fa", help="Flash attention in the text model.", rich_help_panel=_LOADING),
]
ThreadsOption = Annotated[
    int | None,
    _shared(
        "THREADS",
        "--threads",
        "-t",
        help="CPU threads; as `internvl doctor --measure` found best, or one for each physical core, if left out.",
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
BatchSizeOption = Annotated[
    int,
    _shared(
        "N_BATCH",
        "--batch-size",
        "-b",
        help="Most positions decoded in one call.",
        rich_help_panel=_LOADING,
    ),
]
UbatchSizeOption = Annotated[
    int | None,
    _shared(
        "N_UBATCH",
        "--ubatch-size",
        "-ub",
        help="Most positions computed at once; as `internvl doctor --measure` found best, or 512, if left out.",
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
DraftOption = Annotated[
    int,
    _shared(
        "DRAFT",
        "--draft",
        metavar="N",
        help="Guess up to N tokens from what was said before and verify them at once; 0 is off. The same answer "
        "but for rounding (docs/performance.md), sooner where text repeats.",
        rich_help_panel=_LOADING,
    ),
]
WorkerTimeoutOption = Annotated[
    float,
    _shared(
        "WORKER_TIMEOUT",
        "--worker-timeout",
        metavar="SECONDS",
        help="Chat and --batch run the model in a process of its own; one that gives no sign of life for so long is "
        "ended and started again. 0 waits for ever.",
        rich_help_panel=_LOADING,
    ),
]
SystemOption = Annotated[
    str | None, _shared("SYSTEM", help="System message instead of the official one.", show_default=False)
]
MaxTilesOption = Annotated[
    int | None,
    _shared(
        "MAX_TILES",
        help=f"Most tiles of a picture, the thumbnail not counted; {MAX_TILES} if left out, 1 for frames.",
        show_default=False,
        rich_help_panel=_PICTURES,
    ),
]
MinTilesOption = Annotated[int, _shared("MIN_TILES", help="Fewest tiles of a picture.", rich_help_panel=_PICTURES)]
ThumbnailOption = Annotated[
    bool,
    _shared(
        "THUMBNAIL",
        "--thumbnail/--no-thumbnail",
        help="Add the whole picture after its tiles.",
        rich_help_panel=_PICTURES,
    ),
]
LayoutOption = Annotated[
    PictureLayout,
    _shared("LAYOUT", help="How several pictures stand in the prompt.", rich_help_panel=_PICTURES),
]
FitPicturesOption = Annotated[
    bool,
    _shared(
        "FIT_PICTURES",
        "--fit-pictures/--no-fit-pictures",
        help="Cut pictures into fewer tiles where they would not fit the context, and say so.",
        rich_help_panel=_PICTURES,
    ),
]
PromptPicturesOption = Annotated[
    bool,
    typer.Option(
        "--prompt-pictures/--no-prompt-pictures",
        help="Attach the pictures whose paths stand in the question.",
        rich_help_panel=_PICTURES,
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Neither read nor keep encoded pictures on disk.",
        envvar="INTERNVL_NO_CACHE",
        show_envvar=True,
        rich_help_panel=_PICTURES,
    ),
]
BatchOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl",
        help="Answer the questions of a file (- for stdin), one JSON object a line: prompt, images, id, system, and "
        "options by their names, as max_tokens. The answers are JSON lines, in the same order.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.jsonl",
        help="Write the answers of --batch here instead; run again, it goes on with what is not answered yet.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
ParallelOption = Annotated[
    int | None,
    typer.Option(
        help=f"Questions of --batch answered at once; {BATCH_PARALLEL} if left out. Each takes a KV cache.",
        show_default=False,
        rich_help_panel=_BATCH,
    ),
]
MaxTokensOption = Annotated[
    int, _shared("MAX_TOKENS", "--max-tokens", "-n", help="Most tokens of the answer.", rich_help_panel=_SAMPLING)
]
TemperatureOption = Annotated[
    float, _shared("TEMPERATURE", help="0 takes the likeliest token each time.", rich_help_panel=_SAMPLING)
]
TopKOption = Annotated[
    int, _shared("TOP_K", help="Keep the k likeliest tokens; 0 keeps all.", rich_help_panel=_SAMPLING)
]
TopPOption = Annotated[
    float, _shared("TOP_P", help="Keep the likeliest tokens up to this sum.", rich_help_panel=_SAMPLING)
]
MinPOption = Annotated[
    float, _shared("MIN_P", help="Drop tokens below this fraction of the likeliest.", rich_help_panel=_SAMPLING)
]
RepeatPenaltyOption = Annotated[
    float, _shared("REPEAT_PENALTY", help="Divide the logits of recent tokens; 1 is off.", rich_help_panel=_SAMPLING)
]
PresencePenaltyOption = Annotated[
    float, _shared("PRESENCE_PENALTY", help="Subtract from the logits of recent tokens.", rich_help_panel=_SAMPLING)
]
FrequencyPenaltyOption = Annotated[
    float,
    _shared("FREQUENCY_PENALTY", help="Subtract for each recent occurrence of a token.", rich_help_panel=_SAMPLING),
]
PenaltyLastOption = Annotated[
    int,
    _shared(
        "PENALTY_LAST_N",
        "--penalty-last-n",
        "--repeat-last-n",
        help="How many tokens back the penalties look; 0 is off.",
        rich_help_panel=_SAMPLING,
    ),
]
SeedOption = Annotated[
    int | None, _shared("SEED", help="Makes sampling repeatable.", show_default=False, rich_help_panel=_SAMPLING)
]
StopOption = Annotated[
    list[str] | None,
    _shared("STOP", "--stop", help="End the answer at this text; may be repeated.", rich_help_panel=_SAMPLING),
]
JSONOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show llama.cpp's log and the timings on stderr.")]


def flash_attention(name: FlashAttentionName) -> FlashAttention:
    """The value of `EngineConfig.flash_attn` for a command-line name."""
    return "auto" if name == "auto" else name == "on"


def gpu_layers(text: str) -> GPULayers:
    """The value of `EngineConfig.n_gpu_layers` for a command-line text.

    Raises:
        typer.BadParameter: neither auto, all nor a number.
    """
    if text == "auto":
        return "auto"
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter("use auto, all or a number of layers", param_hint="--n-gpu-layers") from None


def chosen_model(model: str | None, tell: Callable[[str], None] = say) -> str:
    """The model asked for, else INTERNVL_MODEL, else that of config.toml, else the demo model and a line that says so.

    Args:
        model: the one asked for.
        tell: called with that line.

    Raises:
        InvalidRequestError: config.toml cannot be used.
    """
    if model:
        return model
    named = os.environ.get(MODEL_VARIABLE) or wanted_model()
    if named:
        return named
    tell(f"No model given: using `{DEMO}`, a toy that knows shapes, colours and printed letters. Set {MODEL_VARIABLE}.")
    return DEMO


def names_model(text: str) -> bool:
    """Whether a lone argument is a model rather than a question of one word or a picture."""
    from internvl_gguf.chat.typed_line import has_picture_name
    from internvl_gguf.models.catalog import load_catalog

    if has_picture_name(text):
        return False
    if text == DEMO or text.lower().endswith(".gguf"):
        return True
    head = text.partition(":")[0]
    return head.count("/") == 1 or load_catalog().find(head) is not None
