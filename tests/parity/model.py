"""The reference itself: a random `InternVLForConditionalGeneration` in float32, run by transformers' own forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration

from training.export_gguf import TextShape, VisionShape

from .internlm import fused_shapes, load_fused
from .pictures import draw
from .pieces import PieceTokenizer
from .recipe import pixel_values, tiles_of_card
from .vocabulary import IM_END, IMG, IMG_CONTEXT, IMG_END, build_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from .cases import Case, Picture, Reference

CONTEXT_LENGTH = 8192
ROPE_THETA = 1_000_000.0
NORM_EPS = 1e-6
ROUTER_GAIN = 3.0  # the last of the chosen experts counts little, so that a near tie between two of them does, too


def text_shape(reference: Reference) -> TextShape:
    """The language model's shape, for the exporter."""
    return TextShape(
        vocab=reference.vocab,
        width=reference.width,
        layers=reference.layers,
        heads=reference.heads,
        kv_heads=reference.kv_heads,
        ffn=reference.ffn,
        context_length=CONTEXT_LENGTH,
        tied=reference.tied,
        rope_theta=ROPE_THETA,
        norm_eps=NORM_EPS,
        kind=reference.kind,
        head_dim=reference.head_dim,
        experts=reference.experts,
        experts_used=reference.experts_used,
        expert_ffn=reference.expert_ffn,
    )


def vision_shape(reference: Reference) -> VisionShape:
    """The encoder's shape, for the exporter."""
    return VisionShape(
        image_size=reference.image_size,
        patch_size=reference.patch_size,
        width=reference.vision_width,
        layers=reference.vision_layers,
        heads=reference.vision_heads,
        ffn=reference.vision_ffn,
        projection=reference.width,
        norm_eps=NORM_EPS,
    )


def _own_sizes(reference: Reference) -> dict[str, int]:
    """What the configurations of the others have beside those of Qwen2."""
    head = {"head_dim": reference.head_dim} if reference.head_dim else {}
    experts = {
        "num_experts": reference.experts,
        "num_experts_per_tok": reference.experts_used,
        "moe_intermediate_size": reference.expert_ffn,
        "norm_topk_prob": True,
    }
    return head | (experts if reference.experts else {})


def _config(reference: Reference, image_token_id: int) -> InternVLConfig:
    return InternVLConfig(
        vision_config={
            "hidden_size": reference.vision_width,
            "num_hidden_layers": reference.vision_layers,
            "num_attention_heads": reference.vision_heads,
            "intermediate_size": reference.vision_ffn,
            "attention_bias": True,
            "image_size": [reference.image_size] * 2,
            "patch_size": [reference.patch_size] * 2,
            "layer_norm_eps": NORM_EPS,
        },
        text_config={
            "model_type": {"qwen3moe": "qwen3_moe", "internlm2": "llama"}.get(reference.kind, reference.kind),
            "vocab_size": reference.vocab,
            "hidden_size": reference.width,
            "num_hidden_layers": reference.layers,
            "num_attention_heads": reference.heads,
            "num_key_value_heads": reference.kv_heads,
            "intermediate_size": reference.ffn,
            "max_position_embeddings": CONTEXT_LENGTH,
            "rms_norm_eps": NORM_EPS,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
            "tie_word_embeddings": reference.tied,
            **_own_sizes(reference),
        },
        image_token_id=image_token_id,
        image_seq_length=reference.tokens_per_tile,
        downsample_ratio=0.5,
        tie_word_embeddings=reference.tied,
    )


def random_weights(
    shapes: dict[str, tuple[int, ...]], seed: int, plain_rows: list[int]
) -> dict[str, NDArray[np.float32]]:
    """Weights drawn so that every part of the model matters to its answer.

    Position embeddings are as large as the patches they are added to, layer scales far from the usual 0.1, biases and
    norms not trivial, and attention sharp. In the vocabulary's table the rows outside `plain_rows` are small, so that a
    greedy answer consists of ordinary text.
    """
    weights = {}
    for index, name in enumerate(sorted(shapes)):
        noise = np.random.default_rng([seed, index]).standard_normal(shapes[name])
        if name.endswith(("cls_token", "position_embeddings")):
            scale, mean = 1.0, 0.0
        elif name.endswith(("lambda_1", "lambda_2")):
            scale, mean = 0.1, 0.5
        elif "norm" in name and name.endswith("weight"):
            is_of_heads = name.endswith(("self_attn.q_norm.weight", "self_attn.k_norm.weight"))
            scale, mean = 0.2, 1.3 if is_of_heads else 1.0
        elif name.endswith("bias"):
            scale, mean = 0.2, 0.0
        elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
            scale, mean = 2.0 / np.sqrt(shapes[name][1]), 0.0
            rare = np.setdiff1d(np.arange(shapes[name][0]), plain_rows)
            noise[rare] *= 0.25
        elif ".mlp.experts." in name:
            scale, mean = 1.0 / np.sqrt(shapes[name][-1]), 0.0
        elif name.endswith(".mlp.gate.weight"):
            scale, mean = ROUTER_GAIN / np.sqrt(shapes[name][-1]), 0.0
        else:
            gain = 1.3 if "q_proj" in name or "k_proj" in name or "wqkv" in name else 1.0
            scale, mean = gain / np.sqrt(np.prod(shapes[name][1:])), 0.0
        weights[name] = (mean + scale * noise).astype(np.float32)
    return weights


@dataclass(frozen=True)
class Answered:
    """One case as the reference sees it.

    Attributes:
        logprobs: float32 [vocab], natural log, of the token after the last question.
        prompt_ids: the whole prompt, image context tokens included.
        answers: ids of the greedy answers to the turns before the last.
    """

    logprobs: NDArray[np.float32]
    prompt_ids: list[int]
    answers: list[list[int]]


class ReferenceModel:
    """A random model with its tokenizer; every answer comes from `InternVLForConditionalGeneration.forward`."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        is_internlm = reference.kind in ("internlm2", "llama")
        self.tokenizer: Tokenizer | PieceTokenizer = (
            PieceTokenizer(reference.vocab, space_prefix=reference.space_prefix)
            if is_internlm
            else build_tokenizer(reference.vocab)
        )
        config = _config(reference, self.tokenizer.token_to_id(IMG_CONTEXT))
        config._attn_implementation = "sdpa"  # eager needs gigabytes for the longest prompt
        self._model = InternVLForConditionalGeneration(config).eval()
        shapes = {name: tuple(data.shape) for name, data in self._model.state_dict().items()}
        if reference.tied:
            shapes.pop("lm_head.weight")
        if reference.kind == "internlm2":
            shapes = fused_shapes(shapes, reference)
        weights = random_weights(shapes, reference.seed, self._plain_rows())
        if reference.tied:
            weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"]
        self.weights = weights
        if reference.kind == "internlm2":
            load_fused(self._model, weights, reference)
            return
        self._model.load_state_dict({name: torch.from_numpy(data) for name, data in weights.items()})

    def embed(self, picture: Picture) -> NDArray[np.float32]:
        """Embeddings of a picture's tiles: float32 [tiles, tokens, width]."""
        with torch.inference_mode():
            features = self._model.get_image_features(torch.from_numpy(self._pixels(picture)))
        return np.asarray(features.pooler_output.numpy(), dtype=np.float32)

    def answer(self, case: Case) -> Answered:
        """Run a conversation: greedy answers between the turns, then the distribution after the last question."""
        prompt = f"<|im_start|>system\n{case.system}<|im_end|>\n" if case.system else ""
        pixels: list[NDArray[np.float32]] = []
        answers: list[list[int]] = []
        for turn in case.turns:
            pictures = [self._pixels(picture) for picture in turn.pictures]
            pixels += pictures
            counts = [len(tiles) for tiles in pictures]
            message = turn.prompt
            for count in [sum(counts)] if case.layout == "combined" else counts:
                context = IMG + IMG_CONTEXT * (self.reference.tokens_per_tile * count) + IMG_END
                message = message.replace("<image>", context, 1)
            prompt += f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
            if turn.answer_tokens:
                ids = self._greedy(prompt, pixels, turn.answer_tokens)
                answers.append(ids)
                prompt += self.decode(ids) + "<|im_end|>\n"
        ids = self._encode(prompt)
        return Answered(self._logprobs(ids, pixels), ids, answers)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, control tokens by their names."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def _encode(self, prompt: str) -> list[int]:
        """The ids of a prompt. InternLM's begins with a token of its own; the tokenizers of Qwen add none."""
        has_first = isinstance(self.tokenizer, PieceTokenizer)
        return list(self.tokenizer.encode(prompt, add_special_tokens=has_first).ids)

    def _greedy(self, prompt: str, pixels: list[NDArray[np.float32]], count: int) -> list[int]:
        """The `count` likeliest tokens one after another; they must survive being written out and read again."""
        ids = self._encode(prompt)
        start = len(ids)
        for _ in range(count):
            ids.append(int(self._logprobs(ids, pixels).argmax()))
        answer = ids[start:]
        text = self.decode(answer)
        if self._encode(prompt + text + IM_END)[start:-1] != answer:
            raise ValueError(f"the answer {text!r} is tokenised otherwise when read again; ask another question")
        return answer

    def _logprobs(self, ids: list[int], pixels: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                pixel_values=torch.from_numpy(np.concatenate(pixels)) if pixels else None,
                logits_to_keep=1,
            )
        return np.asarray(torch.log_softmax(output.logits[0, -1].double(), dim=-1).numpy(), dtype=np.float32)

    def _pixels(self, picture: Picture) -> NDArray[np.float32]:
        image = draw(picture.seed, picture.width, picture.height)
        tiles = tiles_of_card(
            image, self.reference.image_size, max_tiles=picture.max_tiles, thumbnail=picture.thumbnail
        )
        return pixel_values(tiles)

    def _plain_rows(self) -> list[int]:
        """Ids of the tokens that are ASCII text by themselves."""
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=False)
        return [index for text, index in vocabulary.items() if all(" " < c <= "~" or c in "ĠĊ▁" for c in text)]
