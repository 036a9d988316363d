"""Build the graphs that llama.cpp reserves memory for, one for each text architecture.

They follow `llama_model_qwen2::graph` in `src/models/qwen2.cpp`, those of the others beside it, and the
builders that these call in `src/llama-graph.cpp` (`build_inp_embd`, `build_qkv`, `build_attn`, `build_attn_mha`,
`build_ffn`, `build_moe_ffn`) with the cache of `src/llama-kv-cache.cpp`, for one unified stream.
`llama_context::sched_reserve` builds them for the largest batch and a full cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from internvl_gguf.config import is_quantised
from internvl_gguf.gguf.arch.internlm2 import INTERNLM2
from internvl_gguf.gguf.arch.internlm3 import INTERNLM3
from internvl_gguf.gguf.arch.qwen2 import QWEN2
from internvl_gguf.gguf.arch.qwen3 import QWEN3
from internvl_gguf.gguf.arch.qwen3moe import QWEN3MOE
from internvl_gguf.gguf.model_weights import TextWeights
from internvl_gguf.memory.ggml_graph import (
    Graph,
    Tensor,
    argsort,
    cast,
    cont,
    elementwise,
    external,
    flash_attention,
    get_rows,
    mul_mat,
    mul_mat_id,
    new_input,
    permute,
    reshape,
    row_bytes,
    set_rows,
    sum_rows,
    view,
)

_ROTATION = 64  # the smallest Hadamard matrix `build_input_k_rot` uses; heads of another multiple are not rotated


@dataclass(frozen=True)
class TextBatch:
    """The batch that a graph is built for.

    Attributes:
        tokens: positions computed at once, n_ubatch.
        outputs: rows of logits.
        cells: positions of the cache.
        kv_type: element type of keys and values.
        flash_attn: whether attention is one operation.
    """

    tokens: int
    outputs: int
    cells: int
    kv_type: str
    flash_attn: bool


@dataclass(frozen=True)
class Placement:
    """The backends of the layers, by index; the CPU is the last.

    Attributes:
        layers: backend of each layer in the graph.
        experts: backend of the experts of each layer, if it has any.
        numbers: the layers' numbers in the model: a graph may leave out layers that repeat others.
        output: backend of the output matrix.
        cpu: index of the CPU.
        pins_norms: whether norms are tied to their layer's device (`llama_context::graph_get_cb`).
    """

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    numbers: tuple[int, ...]
    output: int
    cpu: int
    pins_norms: bool


def text_graph(shape: TextWeights, batch: TextBatch, placement: Placement) -> Graph:
    """Build the graph of one batch."""
    return _GRAPHS[shape.architecture](shape, batch, placement).build()


class _Qwen2Graph:
    has_biases = True

    def __init__(self, shape: TextWeights, batch: TextBatch, placement: Placement) -> None:
        self._shape = shape
        self._batch = batch
        self._place = placement
        self._graph = Graph()
        self._head = shape.head_dim
        self._kv_width = shape.kv_width

    def build(self) -> Graph:
        shape, batch, graph = self._shape, self._batch, self._graph
        tokens = new_input("i32", batch.tokens)
        table = self._weight(shape.embedding.name, self._place.cpu)
        hidden = get_rows(table, tokens)
        graph.expand(hidden)
        graph.expand(new_input("f32", shape.n_embd, batch.tokens))  # the branch for embeddings, computed or not
        self._positions = new_input("i32", batch.tokens)
        self._key_places = new_input("i64", batch.tokens)
        transposed = 1 if batch.flash_attn else self._kv_width
        self._value_places = new_input("i64", batch.tokens * transposed)
        self._mask = new_input("f16" if batch.flash_attn else "f32", batch.cells, batch.tokens)
        self._key_rotation, self._value_rotation = self._rotations()
        rows = new_input("i32", batch.outputs)
        for index, (layer, home) in enumerate(zip(self._place.numbers, self._place.layers, strict=True)):
            residual = hidden
            attended = self._attention(self._norm(hidden, f"blk.{layer}.attn_norm.weight", home), layer, home)
            if index == len(self._place.layers) - 1:
                attended, residual = get_rows(attended, rows), get_rows(residual, rows)
            joined = elementwise("add", attended, residual)
            hidden = elementwise("add", self._feed_forward(joined, layer, home), joined)
        output = self._place.output
        normed = elementwise("rms_norm", hidden)
        normed = elementwise("mul", normed, self._weight(shape.output_norm.name, output))
        normed.is_output = True
        matrix = shape.output or shape.embedding
        logits = mul_mat(self._weight(matrix.name, output), normed)
        if shape.output_bias is not None:
            logits = elementwise("add", logits, self._weight(shape.output_bias.name, output))
        logits.is_output = True
        graph.expand(logits)
        return graph

    def _weight(self, name: str, home: int) -> Tensor:
        weight = self._shape.weight(name)
        return external(weight.kind, home, weight.n_bytes, *weight.shape)

    def _norm(self, hidden: Tensor, name: str, home: int) -> Tensor:
        normed = elementwise("rms_norm", hidden)
        if self._place.pins_norms:
            normed.pinned = home
        return elementwise("mul", normed, self._weight(name, home))

    def _rotations(self) -> tuple[Tensor | None, Tensor | None]:
        """Make the inputs of the Hadamard rotation of a quantised cache (`build_input_k_rot`, `build_input_v_rot`)."""
        if not is_quantised(self._batch.kv_type) or self._head % _ROTATION:
            return None, None
        side = _ROTATION
        while self._head % (2 * side) == 0:
            side *= 2
        return new_input("f32", side, side), new_input("f32", _ROTATION, _ROTATION)

    def _projected(self, hidden: Tensor, part: str, heads: int, layer: int, home: int) -> Tensor:
        return reshape(self._biased(hidden, f"blk.{layer}.attn_{part}", home), self._head, heads, self._batch.tokens)

    def _biased(self, hidden: Tensor, name: str, home: int) -> Tensor:
        result = mul_mat(self._weight(f"{name}.weight", home), hidden)
        return elementwise("add", result, self._weight(f"{name}.bias", home)) if self.has_biases else result

    def _query_key_value(self, hidden: Tensor, layer: int, home: int) -> tuple[Tensor, Tensor, Tensor]:
        shape, tokens = self._shape, self._batch.tokens
        heads = {"q": shape.n_head, "k": shape.n_head_kv, "v": shape.n_head_kv}
        if not shape.fused_qkv:
            query, key, value = (self._projected(hidden, part, heads[part], layer, home) for part in "qkv")
            return query, key, value
        joined = self._biased(hidden, f"blk.{layer}.attn_qkv", home)
        row = joined.strides[1]
        strides = (4, 4 * self._head, row, row * tokens)
        query, key, value = (view(joined, (self._head, heads[part], tokens), strides) for part in "qkv")
        return query, key, value

    def _rotated(self, tensor: Tensor, rotation: Tensor | None) -> Tensor:
        """Apply a Hadamard rotation (`llama_mul_mat_hadamard`)."""
        if rotation is None:
            return tensor
        side = rotation.shape[0]
        rows = tensor.elements // side
        is_flat = tensor.strides[1] == row_bytes("f32", tensor.shape[0]) and tensor.strides[2] == (
            tensor.strides[1] * tensor.shape[1]
        )
        flat = reshape(tensor, side, rows) if is_flat else cont(tensor, side, rows)
        return reshape(mul_mat(rotation, flat), *tensor.shape)

    def _attention(self, hidden: Tensor, layer: int, home: int) -> Tensor:
        batch, graph = self._batch, self._graph
        query, key, value = self._query_key_value(hidden, layer, home)
        query, key = (elementwise("rope", each, self._positions) for each in (query, key))
        query, key = (self._rotated(each, self._key_rotation) for each in (query, key))
        value = self._rotated(value, self._value_rotation)
        for each in (query, value, key):
            graph.expand(each)
        keys, values = self._cache(home), self._cache(home)
        graph.expand(set_rows(keys, self._flat(key), self._key_places))
        graph.expand(self._stored_values(values, value))
        shown = (self._head, self._shape.n_head_kv, batch.cells)
        head_row = row_bytes(batch.kv_type, self._head)
        rows = row_bytes(batch.kv_type, self._kv_width)
        strides = (keys.strides[0], head_row, rows, rows * batch.cells)
        query = permute(view(query, (*query.shape[:3],), query.strides), 0, 2, 1, 3)
        key = permute(view(keys, shown, strides), 0, 2, 1, 3)
        if batch.flash_attn:
            value = permute(view(values, shown, strides), 0, 2, 1, 3)
            attended = self._flash_attention(query, key, value)
        else:
            attended = self._plain_attention(query, key, values)
        graph.expand(attended)
        attended = self._rotated(attended, self._value_rotation)
        return mul_mat(self._weight(f"blk.{layer}.attn_output.weight", home), attended)

    def _cache(self, home: int) -> Tensor:
        cells, kind = self._batch.cells, self._batch.kv_type
        return external(kind, home, row_bytes(kind, self._kv_width) * cells, self._kv_width, cells, weight=False)

    def _flat(self, tensor: Tensor) -> Tensor:
        return view(tensor, (self._kv_width, self._batch.tokens), (4, tensor.strides[2], tensor.strides[3], 0))

    def _stored_values(self, cache: Tensor, value: Tensor) -> Tensor:
        """Store values (`cpy_v`): as rows with flash attention, else one element a row into a transposed cache."""
        if self._batch.flash_attn:
            return set_rows(cache, self._flat(value), self._value_places)
        if value.strides[2] == 4 * self._kv_width:
            flat = reshape(value, self._kv_width, self._batch.tokens)
        else:
            flat = cont(value, self._kv_width, self._batch.tokens)
        column = reshape(cache, 1, self._kv_width * self._batch.cells)
        return set_rows(column, reshape(flat, 1, self._kv_width * self._batch.tokens), self._value_places)

    def _flash_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self._batch.kv_type == "f32":
            key, value = cast(key, "f16"), cast(value, "f16")
        attended = flash_attention(query, key, value, self._mask)
        return reshape(attended, self._shape.q_width, self._batch.tokens)

    def _plain_attention(self, query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        cells, kind = self._batch.cells, self._batch.kv_type
        weights = mul_mat(key, query)
        weights = elementwise("soft_max", weights, self._mask)
        row = row_bytes(kind, cells)
        shown = view(
            values,
            (cells, self._shape.n_head_kv, self._head),
            (values.strides[0], row * self._head, row, row * self._kv_width),
        )
        attended = mul_mat(permute(shown, 0, 2, 1, 3), weights)
        return cont(permute(attended, 0, 2, 1, 3), self._shape.q_width, self._batch.tokens)

    def _feed_forward(self, hidden: Tensor, layer: int, home: int) -> Tensor:
        hidden = self._norm(hidden, f"blk.{layer}.ffn_norm.weight", home)
        up = mul_mat(self._weight(f"blk.{layer}.ffn_up.weight", home), hidden)
        gate = mul_mat(self._weight(f"blk.{layer}.ffn_gate.weight", home), hidden)
        return mul_mat(self._weight(f"blk.{layer}.ffn_down.weight", home), elementwise("glu", gate, up))


class _LlamaGraph(_Qwen2Graph):
    has_biases = False


class _Qwen3Graph(_LlamaGraph):
    def _query_key_value(self, hidden: Tensor, layer: int, home: int) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = super()._query_key_value(hidden, layer, home)
        query = self._norm(query, f"blk.{layer}.attn_q_norm.weight", home)
        return query, self._norm(key, f"blk.{layer}.attn_k_norm.weight", home), value


class _Qwen3MoeGraph(_Qwen3Graph):
    def _feed_forward(self, hidden: Tensor, layer: int, home: int) -> Tensor:
        shape, graph = self._shape, self._graph
        hidden = self._norm(hidden, f"blk.{layer}.ffn_norm.weight", home)
        tokens, used = hidden.shape[1], shape.n_expert_used
        place = self._place.experts[self._place.numbers.index(layer)]
        chosen, shares = self._routing(hidden, layer, home)
        graph.expand(shares)
        hidden = reshape(hidden, shape.n_embd, 1, tokens)
        up, gate = (
            mul_mat_id(self._weight(f"blk.{layer}.ffn_{part}_exps.weight", place), hidden, chosen)
            for part in ("up", "gate")
        )
        down = self._weight(f"blk.{layer}.ffn_down_exps.weight", place)
        weighted = elementwise("mul", mul_mat_id(down, elementwise("glu", gate, up), chosen), shares)
        graph.expand(weighted)
        row = weighted.strides[2]
        parts = [view(weighted, (shape.n_embd, tokens), (4, row, row * tokens, row * tokens)) for _ in range(used)]
        for part in parts:
            graph.expand(part)
        total = parts[0]
        for part in parts[1:]:
            total = elementwise("add", total, part)
            graph.expand(total)
        return total if used > 1 else cont(total)

    def _routing(self, hidden: Tensor, layer: int, home: int) -> tuple[Tensor, Tensor]:
        """Choose the experts of each token: their numbers, and the shares of the result that they give."""
        tokens, used = hidden.shape[1], self._shape.n_expert_used
        chances = elementwise("soft_max", mul_mat(self._weight(f"blk.{layer}.ffn_gate_inp.weight", home), hidden))
        order = argsort(chances)
        chosen = view(order, (used, tokens), order.strides)
        shares = get_rows(reshape(chances, 1, self._shape.n_expert, tokens), chosen)
        shares = reshape(shares, used, tokens)
        shares = elementwise("div", shares, elementwise("clamp", sum_rows(shares)))
        return chosen, reshape(shares, 1, used, tokens)


_GRAPHS: Final = {
    QWEN2.name: _Qwen2Graph,
    QWEN3.name: _Qwen3Graph,
    QWEN3MOE.name: _Qwen3MoeGraph,
    INTERNLM2.name: _LlamaGraph,
    INTERNLM3.name: _LlamaGraph,
}
