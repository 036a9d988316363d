"""Options that several commands share. Defaults are read from the classes that own them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from internvl_gguf.cli.output import say
from internvl_gguf.config import EngineConfig, FlashAttention, GPULayers, KVType, SamplingParams
from internvl_gguf.model_names import DEMO
from internvl_gguf.tiling import MAX_TILES
from internvl_gguf.types import PictureLayout

MODEL_VARIABLE = "INTERNVL_MODEL"

FlashAttentionName = Literal["auto", "on", "off"]

_LOADING = "How the model is loaded"
_PICTURES = "Pictures"
_SAMPLING = "How the answer is chosen"
_BATCH = "Many questions"

BATCH_PARALLEL = 4
"""Questions of a batch answered at once where nothing else is said: most of what batching gains, a quarter the memory
of what would gain the rest."""


SAMPLING, ENGINE = SamplingParams(), EngineConfig()

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
    typer.Option(
        metavar="FILE|PRECISION",
        help="The vision encoder's .gguf, or a precision such as BF16; the one that suits this machine if left out.",
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
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
    typer.Option("--n-gpu-layers", "-ngl", help="Layers on the GPU: auto, all or a number.", rich_help_panel=_LOADING),
]
VRAMOption = Annotated[
    str | None,
    typer.Option(
        "--vram",
        metavar="SIZE[,SIZE]...",
        help='Memory of each GPU that may be taken, as "12GiB"; what is free if left out.',
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Load a model that by the plan has no room.", rich_help_panel=_LOADING),
]
KVTypeOption = Annotated[
    KVType, typer.Option("--kv-type", "--kv", help="Element type of the KV cache.", rich_help_panel=_LOADING)
]
FlashAttentionOption = Annotated[
    FlashAttentionName,
    typer.Option("--flash-attn", "-fa", help="Flash attention in the text model.", rich_help_panel=_LOADING),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        help="CPU threads; one for each physical core if left out.",
        show_default=False,
        rich_help_panel=_LOADING,
    ),
]
DraftOption = Annotated[
    int,
    typer.Option(
        "--draft",
        metavar="N",
        help="Guess up to N tokens from what was said before and verify them at once; 0 is off. The same answer, "
        "sooner where text repeats.",
        rich_help_panel=_LOADING,
    ),
]
MaxTilesOption = Annotated[
    int | None,
    typer.Option(
        help=f"Most tiles of a picture, the thumbnail not counted; {MAX_TILES} if left out, 1 for frames.",
        show_default=False,
        rich_help_panel=_PICTURES,
    ),
]
MinTilesOption = Annotated[int, typer.Option(help="Fewest tiles of a picture.", rich_help_panel=_PICTURES)]
ThumbnailOption = Annotated[
    bool,
    typer.Option(
        "--thumbnail/--no-thumbnail", help="Add the whole picture after its tiles.", rich_help_panel=_PICTURES
    ),
]
LayoutOption = Annotated[
    PictureLayout,
    typer.Option(help="How several pictures stand in the prompt.", rich_help_panel=_PICTURES),
]
FitPicturesOption = Annotated[
    bool,
    typer.Option(
        "--fit-pictures/--no-fit-pictures",
        help="Cut pictures into fewer tiles where they would not fit the context, and say so.",
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
    int, typer.Option("--max-tokens", "-n", help="Most tokens of the answer.", rich_help_panel=_SAMPLING)
]
TemperatureOption = Annotated[
    float, typer.Option(help="0 takes the likeliest token each time.", rich_help_panel=_SAMPLING)
]
TopKOption = Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.", rich_help_panel=_SAMPLING)]
TopPOption = Annotated[float, typer.Option(help="Keep the likeliest tokens up to this sum.", rich_help_panel=_SAMPLING)]
MinPOption = Annotated[
    float, typer.Option(help="Drop tokens below this fraction of the likeliest.", rich_help_panel=_SAMPLING)
]
RepeatPenaltyOption = Annotated[
    float, typer.Option(help="Divide the logits of recent tokens; 1 is off.", rich_help_panel=_SAMPLING)
]
PresencePenaltyOption = Annotated[
    float, typer.Option(help="Subtract from the logits of recent tokens.", rich_help_panel=_SAMPLING)
]
FrequencyPenaltyOption = Annotated[
    float, typer.Option(help="Subtract for each recent occurrence of a token.", rich_help_panel=_SAMPLING)
]
SeedOption = Annotated[
    int | None, typer.Option(help="Makes sampling repeatable.", show_default=False, rich_help_panel=_SAMPLING)
]
StopOption = Annotated[
    list[str] | None,
    typer.Option("--stop", help="End the answer at this text; may be repeated.", rich_help_panel=_SAMPLING),
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


def chosen_model(model: str | None) -> str:
    """The model asked for, else INTERNVL_MODEL, else the demo model with a line that says so."""
    if model:
        return model
    named = os.environ.get(MODEL_VARIABLE)
    if named:
        return named
    say(f"No model given: using `{DEMO}`, a toy that knows shapes, colours and printed letters. Set {MODEL_VARIABLE}.")
    return DEMO
