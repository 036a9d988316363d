"""Every option of a session, of a question and of an answer, declared once.

A field made by `option` carries its default, its check, its help and its names. The command line, variables,
config.toml, `/set`, `--batch`, completion, the sweeps of `internvl bench` and the tables in docs/ are derived from it
(`utils.options`): a new sampling option is one field here and its use in `llama/sampler.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypedDict, TypeVar, cast, get_args

from internvl_gguf.errors import EqualAnswersError, InvalidRequestError
from internvl_gguf.tiling import CARD_RANGE, MAX_TILES, MAX_TILES_LIMIT, TileRange, validate_tile_limits
from internvl_gguf.types import PictureLayout
from internvl_gguf.utils.foreign_names import ENGINE, SAMPLING, refuses_foreign_names
from internvl_gguf.utils.kinds import JudgeName, LayersOrAuto, MemorySizes, RPCServers, SwitchOrAuto
from internvl_gguf.utils.options import at_least, between, check_options, option
from internvl_gguf.utils.rpc_addresses import check_reach

if TYPE_CHECKING:
    from internvl_gguf.structured import AnswerFormat

Number = TypeVar("Number", int, float)

KVType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
FlashAttention = Annotated[bool | Literal["auto"], SwitchOrAuto()]
GPULayers = Annotated[int | Literal["auto"], LayersOrAuto()]
VRAM = Annotated[str | int | Sequence[str | int], MemorySizes()]
Servers = Annotated[str | Sequence[str], RPCServers()]

EncoderLibrary = Literal["auto", "llama.cpp", "openvino"]
EncoderPrecision = Literal["auto", "f32", "bf16"]
EncoderKind = Literal["llama.cpp", "openvino f32", "openvino bf16"]
"""What encodes pictures: llama.cpp in the mmproj's own types, or OpenVINO in a precision."""

KV_TYPES: Final[tuple[KVType, ...]] = get_args(KVType)
QUANTISED_KV_TYPES: Final[tuple[KVType, ...]] = ("q8_0", "q4_0")
"""Those stored in blocks of `KV_BLOCK` values, which only flash attention can read."""
KV_BLOCK: Final = 32

DEFAULT_N_CTX = 8192
DEFAULT_N_UBATCH = 512
DEFAULT_CANDIDATES: Final = 8  # the published best-of-8
DEFAULT_THRESHOLD: Final = 0.8
"""How sure an answer of a cascade has to be: a start value, which `internvl bench --cascade` fits to questions."""
DEFAULT_WORKER_TIMEOUT = 600.0  # seconds: one tile of the 6B vision encoder takes minutes on a slow CPU
MAX_SEQUENCES = 255  # llama.cpp aborts from sequence 256 on
MAX_CANDIDATES = 64
MAX_BEST_OF = 128  # as many as VisualPRM's curves have
MAX_DRAFT = 64
MAX_BATCH = 65536
MAX_THREADS = 512
MAX_SEED = 2**32 - 2  # llama.cpp reads 2**32 - 1 as "draw a seed"
MAX_TOP_K = 2**31 - 1
MAX_LAST_N = 2**20  # llama.cpp takes memory for as many

DEFAULT_MAX_TOKENS: Final = 1024  # the model card's number
DEFAULT_TEMPERATURE: Final = 0.0
DEFAULT_TOP_P: Final = 0.8
THINKING_MAX_TOKENS: Final = 4096
"""Thoughts of 1,126 to 1,463 tokens were seen of InternVL3.5-30B-A3B about easy pictures."""
THINKING_TEMPERATURE: Final = 0.6  # the model card's for thinking, as the next one is vLLM's
THINKING_TOP_P: Final = 0.95


def is_quantised(kv_type: str) -> bool:
    """Whether a KV cache of this element type is stored in blocks, which only flash attention can read."""
    return kv_type in QUANTISED_KV_TYPES


def check_kv_heads(kv_type: str, head_dim: int) -> None:
    """Refuse a quantised KV cache for heads that do not divide into its blocks.

    Raises:
        InvalidRequestError: they do not.
    """
    if is_quantised(kv_type) and head_dim % KV_BLOCK:
        raise InvalidRequestError(
            f"A {kv_type} KV cache needs heads of a multiple of {KV_BLOCK}; this model's have {head_dim}.",
            "Use kv_type f16.",
        )


def sequence_count(n_parallel: int, n_candidates: int, n_draft: int, n_batch: int) -> int:
    """Return how many sequences the KV cache has.

    One for each question answered at once, and one for each candidate beside the first of a question, which all
    questions share; fewer where a batch or llama.cpp has no place for so many.
    """
    most = max(n_parallel, min(MAX_SEQUENCES, n_batch - n_draft))
    return min(n_parallel + n_candidates - 1, most)


def _require(condition: bool, message: str, hint: str) -> None:
    if not condition:
        raise InvalidRequestError(message, hint)


@refuses_foreign_names(SAMPLING)
@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, in llama.cpp's own sampler chain. Each field says what it does.

    Raises:
        InvalidRequestError: a value of another kind, or outside its range.
    """

    PANEL: ClassVar = "How the answer is chosen"

    max_tokens: int | None = option(
        None,
        "Most tokens of the answer, thoughts included.",
        "--max-tokens",
        "--n-predict",
        "-n",
        otherwise=f"{DEFAULT_MAX_TOKENS}, or {THINKING_MAX_TOKENS} with thinking",
        details="The first is the model card's number.",
        allows=at_least(1),
        hint="Ask for at least one token.",
    )
    temperature: float | None = option(
        None,
        "0 takes the likeliest token each time.",
        "--temperature",
        "--temp",
        otherwise=f"{DEFAULT_TEMPERATURE:g}, or {THINKING_TEMPERATURE} with thinking",
        details="The model card's sampled examples use 0.8, and 0.6 with thinking.",
        allows=at_least(0),
        hint="Use 0 (greedy) or more.",
    )
    top_k: int = option(
        40,
        "Keep the k likeliest tokens; 0 keeps all.",
        allows=between(0, MAX_TOP_K),
        hint="Use 0 (keep all) or more.",
    )
    top_p: float | None = option(
        None,
        "Keep the likeliest tokens up to this sum.",
        otherwise=f"{DEFAULT_TOP_P}, or {THINKING_TOP_P} with thinking",
        details="The smallest set of tokens whose probabilities sum to at least this; 1 keeps all.",
        allows=lambda value: 0 < value <= 1,
        hint="Use a value above 0 and up to 1.",
    )
    min_p: float = option(
        0.0,
        "Drop tokens below this fraction of the likeliest.",
        allows=lambda value: 0 <= value < 1,
        hint="Use 0 (off) or more, below 1.",
    )
    repeat_penalty: float = option(
        1.0,
        "Divide the logits of recent tokens; 1 is off.",
        allows=lambda value: value > 0,
        hint="Use a value above 0; 1 is off.",
    )
    presence_penalty: float = option(0.0, "Subtract from the logits of recent tokens.")
    frequency_penalty: float = option(0.0, "Subtract for each recent occurrence of a token.")
    penalty_last_n: int = option(
        64,
        "How many tokens back the penalties look; 0 is off.",
        "--penalty-last-n",
        "--repeat-last-n",
        allows=between(0, MAX_LAST_N),
        hint=f"Use 0 (off) to {MAX_LAST_N:,} tokens.",
    )
    seed: int | None = option(
        None,
        "Makes sampling repeatable.",
        otherwise="drawn anew for each answer",
        allows=between(0, MAX_SEED),
        hint=f"Use a whole number from 0 to {MAX_SEED}.",
    )
    stop: tuple[str, ...] = option(
        (),
        "End the answer at this text; may be repeated.",
        details="From Python a text or a list of texts; they are not part of the answer.",
        allows=all,
        hint="Leave the empty text out: every answer contains it.",
    )
    thinking: bool | None = option(
        None,
        "Let the model think before it answers, or keep it from that.",
        "--think/--no-think",
        otherwise="as the model does by itself, which is mostly not to think",
        details="Of models that can, InternVL3.5 ([thinking.md](thinking.md)).",
    )
    thinking_budget: int | None = option(
        None,
        "Tokens after which a thought is ended.",
        otherwise="no limit but that of the answer",
        details="A budget alone asks for thinking, too.",
        allows=at_least(1),
        hint="Use 1 or more tokens; thinking=False is for none.",
        metavar="N",
    )
    keep_thinking: bool = option(
        True,
        "Keep the thoughts of earlier answers in the prompt.",
        "--keep-thinking/--drop-thinking",
        details="As the published chat does. Without them the context lasts longer, and each earlier answer is read "
        "once more.",
    )

    best_of: int = option(
        1,
        "Write N answers and take the best, as the judge finds.",
        "--best-of",
        details="The pictures and the question are read once for all of them ([best-of.md](best-of.md)).",
        allows=between(1, MAX_BEST_OF),
        hint=f"Use 1 to {MAX_BEST_OF} answers.",
        metavar="N",
    )
    judge: Annotated[str, JudgeName()] = option(
        "vote",
        "What chooses the best of several answers: vote, certainty, or the model of a critic.",
        "--judge",
        details="A critic by its name is opened by `ask`, `--batch` and the chat; from Python give a `Critic` or a "
        "function as `judge` of a question ([best-of.md](best-of.md#judges)).",
        allows=bool,
        hint="Give vote, certainty or the model of a critic.",
        metavar="JUDGE",
    )

    def __post_init__(self) -> None:
        check_options(self)
        _require(
            self.thinking is not False or self.thinking_budget is None,
            f"With thinking=False there is no thought that thinking_budget={self.thinking_budget} could end.",
            "Leave one of them out.",
        )
        greedy = "temperature=0" if self.temperature == 0 else "top_k=1" if self.top_k == 1 else ""
        if self.best_of > 1 and greedy:
            raise EqualAnswersError(
                f"With {greedy} all {self.best_of} answers would be equal.",
                "Leave it out: the first answer is greedy then, and the others are sampled. Or ask for best_of=1.",
                option=greedy.partition("=")[0],
            )

    def changed(self, changes: Mapping[str, Any]) -> SamplingParams:
        """Return these parameters with some of them given anew.

        What is said anew about thinking takes the place of what contradicts it: `thinking=False` of a budget, and a
        budget of `thinking=False`.

        Raises:
            InvalidRequestError: a value that cannot be used, or changes that contradict each other.
        """
        found = dict(changes)
        if found.get("thinking") is False:
            found.setdefault("thinking_budget", None)
        if found.get("thinking_budget") is not None and self.thinking is False:
            found.setdefault("thinking", None)
        return replace(self, **found)

    @property
    def thinks(self) -> bool:
        """Whether the model is asked to think before it answers; a budget for that asks for it, too."""
        return self.thinking is True or (self.thinking is None and self.thinking_budget is not None)

    @property
    def effective_max_tokens(self) -> int:
        """Most tokens of the answer."""
        return self._unless_given(self.max_tokens, THINKING_MAX_TOKENS, DEFAULT_MAX_TOKENS)

    @property
    def effective_temperature(self) -> float:
        """The temperature, 0 for the likeliest token each time."""
        return self._unless_given(self.temperature, THINKING_TEMPERATURE, DEFAULT_TEMPERATURE)

    @property
    def effective_top_p(self) -> float:
        """The sum of probabilities up to which tokens are kept."""
        return self._unless_given(self.top_p, THINKING_TOP_P, DEFAULT_TOP_P)

    def _unless_given(self, given: Number | None, thinking: Number, default: Number) -> Number:
        if given is not None:
            return given
        return thinking if self.thinks else default

    @property
    def penalises(self) -> bool:
        """Whether recent tokens change the logits."""
        penalty = self.repeat_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0
        return penalty and self.penalty_last_n > 0


@dataclass(frozen=True)
class PictureOptions:
    """How the pictures of a question are cut and laid out. Each field says what it does.

    Raises:
        InvalidRequestError: a value of another kind, or limits that no grid satisfies.
    """

    PANEL: ClassVar = "Pictures"

    max_tiles: int | None = option(
        None,
        "Most tiles of a picture, the thumbnail not counted.",
        otherwise=f"as the mmproj says, else {MAX_TILES}; 1 for frames",
        details=f"At most {MAX_TILES_LIMIT}. The time for a picture grows with its tiles.",
    )
    min_tiles: int | None = option(None, "Fewest tiles of a picture.", otherwise="as the mmproj says, else 1")
    thumbnail: bool = option(
        True, "Add the whole picture after its tiles.", details="A picture of one tile has no thumbnail."
    )
    layout: PictureLayout = option(
        "separate",
        "How several pictures stand in the prompt.",
        details="`separate` (`Image-1: <image>`), `combined` (all tiles under one `<image>`), or `frames` "
        "(`Frame1: <image>`, one tile each unless `max_tiles` says otherwise).",
    )
    fit_pictures: bool = option(
        True,
        "Cut pictures into fewer tiles where they would not fit the context, and say so.",
        details="False makes that an error.",
    )
    frame_times: bool = option(
        False,
        "Write the time of each frame of a clip into the prompt.",
        "--frame-times/--no-frame-times",
        details="`Frame1 (0.5 s): <image>`. The model was not trained with times.",
    )

    def __post_init__(self) -> None:
        check_options(self)
        asked = self.tiles()
        validate_tile_limits(asked.least, asked.most)

    def tiles(self, own: TileRange = CARD_RANGE) -> TileRange:
        """Return how many tiles a picture is cut into: what is given here, else a model's own range.

        A video frame is one tile, unless `max_tiles` says otherwise; `min_tiles` gives way to that.
        """
        if self.max_tiles is not None:
            least = min(own.least, self.max_tiles) if self.min_tiles is None else self.min_tiles
            return TileRange(least, self.max_tiles)
        least = own.least if self.min_tiles is None else self.min_tiles
        most = 1 if self.layout == "frames" else max(own.most, least)
        return TileRange(min(least, most), most)

    def most_tiles(self, own: TileRange = CARD_RANGE) -> int:
        """Return the most tiles of a picture that is no frame, for which memory is planned."""
        return replace(self, layout="separate").tiles(own).most


USUAL_PICTURES: Final = PictureOptions()
"""How pictures are cut where nobody says otherwise."""


class SamplingOptions(TypedDict, total=False):
    """The fields of `SamplingParams` as keyword arguments, for callers and their editors; a test holds both equal."""

    max_tokens: int | None
    temperature: float | None
    top_k: int
    top_p: float | None
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_last_n: int
    seed: int | None
    stop: str | Sequence[str]
    thinking: bool | None
    thinking_budget: int | None
    keep_thinking: bool
    best_of: int
    judge: Any


class FormOptions(TypedDict, total=False):
    """The form of an answer, and the tools that it may call.

    One of `schema` (a JSON schema, a pydantic model, a dataclass, any type, or "name, age int"), `choices`, `grammar`
    (Lark or GBNF), `regex`, `boxes` (the answer places boxes) and `answer_format` (what `structured.format_of` made of
    one of the others). `format_in_prompt` is whether the question ends with the keys of a schema and with the choices;
    a model that does not see them answers worse. `tools` are functions, or dicts as OpenAI's interface has them;
    `tool_choice` is "auto", "none", "required" or a tool's name.
    """

    schema: Any
    choices: Any
    grammar: str
    regex: str
    boxes: bool
    answer_format: AnswerFormat
    format_in_prompt: bool
    tools: Any
    tool_choice: str
    parallel_tool_calls: bool


FORMS: Final = frozenset(("schema", "choices", "grammar", "regex", "boxes", "answer_format"))
"""The options of `FormOptions` of which a question has one."""


class AskOptions(SamplingOptions, FormOptions, total=False):
    """What `Session.ask`, `stream` and `next_token_logprobs` accept beside the prompt and its pictures.

    `sampling` says how tokens are chosen, greedily by default; each field of `SamplingParams` given by its own name
    replaces that of `sampling`. `judge` chooses among the answers of `best_of`: "vote", "certainty", a `Critic` or a
    function (`judging.Judge`). `confidence` has the reply say how sure the model is of it, also of a single answer. The
    others are those of `PictureOptions`, for this question; tile limits that are left out are the session's.
    """

    sampling: SamplingParams
    confidence: bool
    max_tiles: int
    min_tiles: int
    thumbnail: bool
    layout: PictureLayout
    fit_pictures: bool
    frame_times: bool


@refuses_foreign_names(ENGINE)
@dataclass(frozen=True)
class EngineConfig:
    """How a model is loaded and run. Each field says what it does.

    Raises:
        InvalidRequestError: a value of another kind or outside its range, or two that exclude each other.
    """

    PANEL: ClassVar = "How the model is loaded"

    n_ctx: int | None = option(
        None,
        "Tokens that the context holds.",
        "--n-ctx",
        "--context",
        "--ctx-size",
        "-c",
        otherwise=f"as much as the model was trained for, up to {DEFAULT_N_CTX}",
        details="Text tokens and visual tokens of one conversation.",
        allows=at_least(1),
        hint="Use a positive context length.",
        is_swept=True,
    )
    n_gpu_layers: GPULayers = option(
        "auto",
        "Layers on the GPU: auto, all or a number.",
        "--n-gpu-layers",
        "--gpu-layers",
        "--ngl",
        "-ngl",
        details="`auto` takes as many as fit beside everything else ([picking.md](picking.md)); from Python -1 is all.",
        allows=lambda value: value == "auto" or -1 <= value < 2**31,
        hint=LayersOrAuto.hint,
        is_swept=True,
    )
    cpu_moe: bool = option(
        False,
        "Keep all experts in host memory, and the rest of their layers on the GPU where it fits.",
        "--cpu-moe",
    )
    n_cpu_moe: int | None = option(
        None,
        "Layers, from the first on, whose experts stay in host memory.",
        "--n-cpu-moe",
        "-ncmoe",
        otherwise="as many as the GPU has no room for",
        details="Of a model with experts, such as InternVL3.5-30B-A3B ([picking.md](picking.md)).",
        allows=at_least(0),
        hint="Use 0 or more layers; cpu_moe is for all.",
        metavar="N",
    )
    vram: VRAM | None = option(
        None,
        'Memory of each GPU that may be taken, as "12GiB".',
        otherwise="what is free",
        details='"24GiB,12GiB" for several; from Python also bytes, or a list. It decides on the quant, too, where '
        "none is named.",
        metavar="SIZE[,SIZE]...",
    )
    rpc: Servers = option(
        (),
        "Lay the text model on devices of llama.cpp's RPC servers.",
        metavar="HOST:PORT[,HOST:PORT]...",
        details="From Python a text or a list of texts. Only servers of this machine, to which a tunnel leads: "
        "[rpc.md](rpc.md). The model runs in a worker process then.",
    )
    rpc_insecure_network: bool = option(
        False,
        "Let --rpc name other machines, to which everything travels in clear text.",
        "--rpc-insecure-network",
    )
    force: bool = option(False, "Load it even if the plan says it does not fit.", "--force")
    kv_type: KVType = option(
        "f16", "Element type of the KV cache.", "--kv-type", "--kv", details=f"{', '.join(KV_TYPES)}.", is_swept=True
    )
    # llama.cpp's flash attention sums F16 values in half precision on a CPU, and the error grows with the context.
    flash_attn: FlashAttention = option(
        "auto",
        "Flash attention in the text model.",
        "--flash-attn",
        "-fa",
        details="`auto` leaves it off on a CPU, where its error grows with the context ([parity.md](parity.md)), "
        "unless a quantised KV cache needs it; on a GPU llama.cpp decides. False with an f32 cache is the exact "
        "setting of the parity tests.",
        is_swept=True,
    )
    encoder: EncoderLibrary = option(
        "auto",
        "Which library encodes pictures on the CPU.",
        details="`auto` takes OpenVINO where `internvl-gguf[openvino]` is installed, nothing lies on a GPU and it was "
        "measured to be faster ([performance.md](performance.md#two-vision-encoders)).",
    )
    encoder_precision: EncoderPrecision = option(
        "auto",
        "Arithmetic of OpenVINO's encoder.",
        details="`auto` takes bf16 where the CPU computes in it by itself, else f32, which is the published model's.",
    )
    encoder_device: str = option(
        "CPU",
        "Device of OpenVINO's encoder.",
        metavar="NAME",
        details="An Intel `GPU` or `NPU`, as OpenVINO names them, works by the same interface and is untried; "
        'it takes `encoder="openvino"`.',
    )
    n_threads: int | None = option(
        None,
        "CPU threads.",
        "--threads",
        "-t",
        key="threads",
        otherwise="as `internvl doctor --measure` found best, or one for each physical core",
        details="Left out, one number is for one token and one for many "
        "([measured](speed-estimates.md#threads-and-batches)), and "
        "[fewer beside other programs](performance.md#beside-other-programs); a number given here stays.",
        allows=between(1, MAX_THREADS),
        hint=f"Use 1 to {MAX_THREADS} threads.",
        is_swept=True,
    )
    n_parallel: int = option(
        1,
        "Questions answered at once, and conversations whose KV is kept.",
        details="Each takes a KV cache of `n_ctx`. A batch with 1 that was not chosen says so.",
        allows=between(1, MAX_SEQUENCES),
        hint=f"Use 1 to {MAX_SEQUENCES} conversations.",
        on_command_line=False,
    )
    n_candidates: int = option(
        DEFAULT_CANDIDATES,
        "Answers to one question written at once (`best_of`).",
        details="They share the KV cache of `n_ctx` of their question; each but the first takes a row of logits. More "
        "candidates than that follow one another.",
        allows=between(1, MAX_CANDIDATES),
        hint=f"Use 1 to {MAX_CANDIDATES} candidates.",
        on_command_line=False,
    )
    n_batch: int = option(
        2048,
        "Most tokens decoded in one call.",
        "--batch-size",
        "-b",
        allows=between(1, MAX_BATCH),
        hint=f"Use 1 to {MAX_BATCH:,} tokens.",
        is_swept=True,
    )
    n_ubatch: int | None = option(
        None,
        "Most tokens computed at once.",
        "--ubatch-size",
        "-ub",
        otherwise=f"as `internvl doctor --measure` found best, or {DEFAULT_N_UBATCH}",
        details="More take more memory; left out, it is 128 where only that fits.",
        allows=between(1, MAX_BATCH),
        hint=f"Use 1 to {MAX_BATCH:,} tokens.",
        is_swept=True,
    )
    n_draft: int = option(
        0,
        "Guess up to N tokens from what was said before and verify them at once; 0 is off. The same answer but for "
        "rounding (docs/performance.md), sooner where text repeats.",
        key="draft",
        allows=between(0, MAX_DRAFT),
        hint=f"Use 0 (off) to {MAX_DRAFT} tokens.",
        metavar="N",
    )
    embedding_cache_bytes: int = option(
        512 * 1024**2,
        "Memory for the embeddings of pictures already encoded.",
        allows=at_least(0),
        hint="Use 0 (off) or more bytes.",
        on_command_line=False,
    )
    embedding_disk_bytes: int = option(
        4 * 1024**3,
        "Room on disk for the embeddings of pictures, which all processes and all quants of a model share.",
        details="0 neither reads nor writes any ([caches.md](caches.md)).",
        allows=at_least(0),
        hint="Use 0 (off) or more bytes.",
        on_command_line=False,
    )

    def __post_init__(self) -> None:
        check_options(self)
        _require(
            self.n_ubatch is None or self.n_ubatch <= self.n_batch,
            f"n_ubatch is {self.n_ubatch} and n_batch is {self.n_batch}.",
            "Use an n_ubatch of at most n_batch.",
        )
        _require(
            self.n_parallel <= self.n_batch,
            f"n_parallel is {self.n_parallel} and n_batch is {self.n_batch}.",
            "Use an n_batch of at least n_parallel: each answer takes a place in every batch.",
        )
        _require(
            self.n_parallel + self.n_draft <= self.n_batch,
            f"n_draft is {self.n_draft}, n_parallel {self.n_parallel} and n_batch {self.n_batch}.",
            "Use an n_batch of at least n_parallel + n_draft.",
        )
        _require(
            not (is_quantised(self.kv_type) and self.flash_attn is False),
            f"A {self.kv_type} KV cache needs flash attention, which is off.",
            'Leave flash_attn at "auto", or use kv_type f16.',
        )
        _require(
            not (self.cpu_moe and self.n_cpu_moe is not None),
            f"cpu_moe keeps all experts in host memory, n_cpu_moe those of {self.n_cpu_moe} layers.",
            "Use one of them.",
        )
        check_reach(self.servers, is_insecure_allowed=self.rpc_insecure_network)

    @property
    def servers(self) -> tuple[str, ...]:
        """Addresses of the RPC servers, each as `utils.rpc_addresses.RPCAddress` writes it."""
        return cast("tuple[str, ...]", self.rpc)

    @property
    def n_sequences(self) -> int:
        """Sequences of the KV cache: see `sequence_count`."""
        return sequence_count(self.n_parallel, self.n_candidates, self.n_draft, self.n_batch)

    @property
    def options(self) -> EngineOptions:
        """Its fields as keyword arguments, of `Session.open` for example."""
        return cast("EngineOptions", {field.name: getattr(self, field.name) for field in fields(self)})


class EngineOptions(TypedDict, total=False):
    """The fields of `EngineConfig` as keyword arguments, for callers and their editors; a test holds both equal."""

    n_ctx: int | None
    n_gpu_layers: GPULayers
    cpu_moe: bool
    n_cpu_moe: int | None
    vram: VRAM | None
    rpc: str | Sequence[str]
    rpc_insecure_network: bool
    force: bool
    kv_type: KVType
    flash_attn: FlashAttention
    encoder: EncoderLibrary
    encoder_precision: EncoderPrecision
    encoder_device: str
    n_threads: int | None
    n_parallel: int
    n_candidates: int
    n_batch: int
    n_ubatch: int | None
    n_draft: int
    embedding_cache_bytes: int
    embedding_disk_bytes: int
