"""The reader undoes the exporter: what it reads of the demo model's files, written again, gives the same tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from internvl_gguf.models.resolve import resolve_model
from training.export_gguf import Metadata, export_mmproj, export_text, state_name
from training.read_gguf import TEXT_FILE, VISION_FILE, Model, read, training_tokenizer

METADATA = Metadata("Read and written", "read-and-written")


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve_model("demo").text.parent


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return read(folder)


def test_what_was_read_is_written_as_it_was(folder: Path, model: Model, tmp_path: Path) -> None:
    export_text(tmp_path / TEXT_FILE, model.tensors, model.text, model.tokenizer, METADATA, "bf16")
    export_mmproj(tmp_path / VISION_FILE, model.tensors, model.vision, METADATA, "f16")
    for name in (TEXT_FILE, VISION_FILE):
        before, after = (
            {t.name: (t.tensor_type, t.data) for t in GGUFReader(place / name).tensors} for place in (folder, tmp_path)
        )
        assert before.keys() == after.keys()
        for tensor, (kind, data) in before.items():
            assert after[tensor][0] == kind
            np.testing.assert_array_equal(after[tensor][1], data)
    again = read(tmp_path)
    assert (again.text, again.vision, again.tokenizer) == (model.text, model.vision, model.tokenizer)


def test_the_tokenizer_that_training_takes_has_the_tokens_of_the_file(model: Model) -> None:
    assert training_tokenizer(model.tokenizer).tokens == list(model.tokenizer.tokens)


def test_a_tensor_that_no_model_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no tensor of the model"):
        state_name("blk.0.attn_r.weight")
