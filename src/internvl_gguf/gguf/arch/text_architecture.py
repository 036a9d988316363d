"""The description of an architecture of text models: its keys, and how sizes are read from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from internvl_gguf.gguf.arch.base import MAX_WIDTH, Architecture, EncoderRelease, Key, TextShape, fixed

if TYPE_CHECKING:
    from internvl_gguf.gguf.values import GGUFHeader

_MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
_MAX_EXPERTS: Final = 1024  # LLAMA_MAX_EXPERTS
_MAX_CONTEXT: Final = 2**27

_SIZE_KEYS: Final = (
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
)
_EXPERT_KEYS: Final = ("expert_count", "expert_used_count", "expert_feed_forward_length")


BYTE_PAIRS: Final = "gpt2"
"""`tokenizer.ggml.model` of a byte-level BPE vocabulary, as Qwen has."""

SENTENCEPIECE: Final = "llama"
"""`tokenizer.ggml.model` of a SentencePiece vocabulary with scores, as InternLM has."""


def decoder_keys(shape: TextShape, title: str) -> dict[str, Key]:
    """Return the keys that llama.cpp reads for every text model, with the values that these sizes allow.

    Args:
        shape: sizes of the model.
        title: name of its architecture in error messages.

    Returns:
        Keys by name, without the architecture's prefix; from `llama_model_base::load_hparams` and the graphs' asserts.
    """
    scale = Key("FLOAT32", between=(0.0, 1e4), default=1.0)
    return {
        "vocab_size": Key("UINT32"),
        "embedding_length_out": Key(
            "UINT32",
            only=(0, shape.n_embd),
            refusal=f"{shape.architecture}.embedding_length_out differs from its width of {shape.n_embd}",
        ),
        "attention.layer_norm_rms_epsilon": Key("FLOAT32", between=(1e-9, 1e-2)),
        "attention.value_length": fixed(shape.head_dim),
        "attention.key_length_swa": Key("UINT32"),
        "attention.value_length_swa": Key("UINT32"),
        "attention.causal": Key("BOOL", only=(True,), refusal="its attention is not causal"),
        "pooling_type": fixed(0),
        "classifier.pooling_type": Key("UINT32"),
        "classifier.output_labels": Key("[STRING]"),
        "nextn_predict_layers": fixed(0),
        "expert_count": fixed(shape.n_expert),
        "expert_used_count": fixed(shape.n_expert_used),
        "expert_group_count": fixed(0),
        "expert_group_used_count": fixed(0),
        "rope.dimension_count": fixed(shape.head_dim),
        "rope.dimension_count_swa": Key("UINT32"),
        "rope.freq_base": Key("FLOAT32", between=(1.0, 1e12)),
        "rope.scale_linear": scale,
        "rope.scaling.type": Key(
            "STRING",
            only=("none", "linear", "yarn"),
            refusal=f'its RoPE scaling "{{value}}" is none that {title} has',
        ),
        "rope.scaling.factor": scale,
        "rope.scaling.attn_factor": scale,
        "rope.scaling.alpha": scale,
        "rope.scaling.original_context_length": Key("UINT32", between=(1, _MAX_CONTEXT), default=1),
        "rope.scaling.finetuned": Key("BOOL"),
    }


@dataclass(frozen=True, kw_only=True)
class TextArchitecture(Architecture[TextShape]):
    """An architecture of text models.

    Attributes:
        settings: the keys that give no sizes, by name without the architecture's prefix.
        heads_span_width: whether llama.cpp assumes that all query heads together are as wide as the hidden state.
        has_experts: whether each token goes through some of many feed-forward parts.
        series: the releases of InternVL that have such text models, as their names give them: "3" and so on.
        tokenizer: `tokenizer.ggml.model`, `BYTE_PAIRS` or `SENTENCEPIECE`.
        pre_tokenizers: every `tokenizer.ggml.pre` that splits text as this architecture's models were trained with;
            none where llama.cpp does not read the key.
        encoders: the vision encoder of each known InternVL model, by (n_layers, n_embd) of the text model.
    """

    settings: Callable[[TextShape], Mapping[str, Key]]
    heads_span_width: bool
    series: frozenset[str]
    has_experts: bool = False
    tokenizer: str
    pre_tokenizers: frozenset[str] = frozenset()
    encoders: Mapping[tuple[int, int], EncoderRelease] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """Return the full name of one of the architecture's keys."""
        return f"{self.name}.{name}"

    @property
    def size_keys(self) -> dict[str, Key]:
        """Return the keys that a `TextShape` is read from."""
        names = (*_SIZE_KEYS, *(_EXPERT_KEYS if self.has_experts else ()))
        return {self.key(name): Key("UINT32") for name in names}

    def setting_keys(self, shape: TextShape) -> dict[str, Key]:
        """Return the other keys that llama.cpp reads for a model of these sizes."""
        return {self.key(name): key for name, key in self.settings(shape).items()}

    def read_shape(self, header: GGUFHeader, n_vocab: int) -> TextShape:
        """Read the sizes from a header of this architecture.

        Args:
            header: header of the file, or of the first part of a split model.
            n_vocab: tokens; no key gives them reliably.

        Raises:
            ModelFileError: a key is missing or outside llama.cpp's limits, or the head counts do not divide.
        """
        n_embd = header.bounded_integer(self.key("embedding_length"), 1, MAX_WIDTH)
        n_head = header.bounded_integer(self.key("attention.head_count"), 1, n_embd)
        n_head_kv = header.bounded_integer(self.key("attention.head_count_kv"), 1, n_head, default=n_head)
        divided = n_embd // n_head
        lowest, highest = (divided, divided) if self.heads_span_width else (1, MAX_WIDTH)
        head_dim = header.bounded_integer(self.key("attention.key_length"), lowest, highest, default=divided)
        spans = not self.heads_span_width or n_head * head_dim == n_embd
        if not spans or n_head % n_head_kv or head_dim % 2:
            raise header.error(f"{n_head} heads with {n_head_kv} for keys and values do not divide a width of {n_embd}")
        n_ff = header.bounded_integer(self.key("feed_forward_length"), 1, MAX_WIDTH)
        return TextShape(
            architecture=self.name,
            n_layers=header.bounded_integer(self.key("block_count"), 1, _MAX_LAYERS),
            n_embd=n_embd,
            n_head=n_head,
            n_head_kv=n_head_kv,
            n_ff=n_ff,
            n_vocab=n_vocab,
            n_ctx_train=header.bounded_integer(self.key("context_length"), 1, _MAX_CONTEXT),
            head_dim=head_dim,
            **(self._expert_sizes(header, n_ff) if self.has_experts else {}),
        )

    def _expert_sizes(self, header: GGUFHeader, n_ff: int) -> dict[str, int]:
        """Read the sizes of experts; without a key of theirs, they share the width of the feed-forward layers."""
        n_expert = header.bounded_integer(self.key("expert_count"), 1, _MAX_EXPERTS)
        used = header.bounded_integer(self.key("expert_used_count"), 1, n_expert)
        key = self.key("expert_feed_forward_length")
        n_ff_exp = header.bounded_integer(key, 1, MAX_WIDTH, default=max(n_ff // used, 1))
        return {"n_expert": n_expert, "n_expert_used": used, "n_ff_exp": n_ff_exp}
