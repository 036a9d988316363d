"""Parts that the files of several decoders have in common: embeddings, attention, feed-forward layers, output."""

from __future__ import annotations

from internvl_gguf.gguf.arch.base import Part, TensorSpec, TextShape, always, experts, matrix, unusual, usual, vector


def embedding_rows(shape: TextShape, usual_vocab: int) -> Part:
    """Return the token embedding, for `usual_vocab` tokens if the catalogue does not say how many."""
    return always(matrix("token_embd.weight", shape.n_embd, shape.n_vocab or usual_vocab))


def queries_keys_values(shape: TextShape, *, biased: bool) -> Part:
    """Return the matrices of queries, keys and values: three or, in some files, one (`create_tensor_qkv`)."""
    width, rows = shape.n_embd, {"q": shape.q_width, "k": shape.kv_width, "v": shape.kv_width}
    split = tuple(tensor for name, length in rows.items() for tensor in _projection(name, width, length, biased))
    return split, tuple(_projection("qkv", width, sum(rows.values()), biased))


def _projection(name: str, width: int, rows: int, biased: bool) -> list[TensorSpec]:
    bias = [vector(f"attn_{name}.bias", rows)] if biased else []
    return [matrix(f"attn_{name}.weight", width, rows), *bias]


def query_key_norms(shape: TextShape) -> Part:
    """Return the norms of each head's queries and keys."""
    return always(vector("attn_q_norm.weight", shape.head_dim), vector("attn_k_norm.weight", shape.head_dim))


def attention_output(shape: TextShape) -> Part:
    """Return what follows attention: its output matrix, and the norm before the feed-forward layer."""
    return always(matrix("attn_output.weight", shape.q_width, shape.n_embd), vector("ffn_norm.weight", shape.n_embd))


def gated_feed_forward(shape: TextShape) -> Part:
    """Return a feed-forward layer that every token goes through."""
    return always(
        matrix("ffn_gate.weight", shape.n_embd, shape.n_ff),
        matrix("ffn_up.weight", shape.n_embd, shape.n_ff),
        matrix("ffn_down.weight", shape.n_ff, shape.n_embd),
    )


def chosen_experts(shape: TextShape) -> Part:
    """Return a feed-forward layer of experts, with the rows that choose among them; quantisers leave these in F32."""
    width, inner, count = shape.n_embd, shape.n_ff_exp, shape.n_expert
    return always(
        TensorSpec("ffn_gate_inp.weight", (width, count), "f32"),
        experts("ffn_gate_exps.weight", width, inner, count),
        experts("ffn_up_exps.weight", width, inner, count),
        experts("ffn_down_exps.weight", inner, width, count),
    )


def output_norm(shape: TextShape) -> Part:
    """Return the norm after the layers."""
    return always(vector("output_norm.weight", shape.n_embd))


def output_rows(shape: TextShape, usual_vocab: int) -> Part:
    """Return the output matrix. The token embedding may serve as such; no known InternVL does so."""
    return usual(matrix("output.weight", shape.n_embd, shape.n_vocab or usual_vocab))


def output_bias(shape: TextShape, usual_vocab: int) -> Part:
    """Return the bias of the output matrix, which no known InternVL has."""
    return unusual(vector("output.bias", shape.n_vocab or usual_vocab))
