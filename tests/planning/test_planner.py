"""The picked configuration fits, is the largest that fits, and is the best by the documented rule."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_gguf.config import VRAM, EngineConfig, KVType
from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError, ModelFileError
from internvl_gguf.gguf.arch.base import TextShape, VisionShape
from internvl_gguf.gguf.filenames import ModelCopy, Quant, RepoFile, sort_out
from internvl_gguf.hardware.remote_device import RemoteDevice
from internvl_gguf.memory import predict_memory
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.listing import ModelListing, family, list_model
from internvl_gguf.planning import (
    MARGIN,
    Configuration,
    MemoryBudget,
    Planner,
    Workload,
    check_pictures_fit,
    context_for,
    cost_of,
    geometric_mean,
    memory_table,
    rank,
    reason,
    ways_to_fit,
)
from internvl_gguf.planning.candidates import Candidate, estimated_candidates, nominal_shape
from internvl_gguf.planning.choice import Choices, choose
from internvl_gguf.planning.expected_loss import expected_loss
from internvl_gguf.planning.loss_scale import LITTLE_LOSS, USABLE_LOSS
from internvl_gguf.planning.placement import placements
from internvl_gguf.planning.plan_text import placement_text
from internvl_gguf.utils.sizes import parse_size, parse_vram

GIB = 2**30
MODEL = "InternVL3-14B-Instruct"
REMOTE = RemoteDevice("gpu", 1e-3, 100e6)
TWO_PICTURES = Workload(n_ctx=8192, pictures=2, n_threads=2)


@pytest.fixture(scope="module")
def listing() -> ModelListing:
    return list_model(MODEL)


def quant(listing: ModelListing, name: str) -> Candidate:
    return next(candidate for candidate in listing.candidates if candidate.quant == name)


def planner(budget: MemoryBudget, workload: Workload = TWO_PICTURES) -> Planner:
    return Planner(budget, workload, None, cost_of("balanced"))


# --- What is picked fits -------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    gpus=st.lists(st.integers(1, 48), max_size=3),
    host=st.integers(1, 64),
    n_ctx=st.sampled_from([2048, 8192, 16384]),
    pictures=st.integers(0, 4),
    n_parallel=st.sampled_from([1, 1, 3]),
    kv_type=st.sampled_from([None, "f16", "q8_0", "f32"]),
)
def test_every_pick_stays_within_the_budget(
    gpus: list[int], host: int, n_ctx: int, pictures: int, n_parallel: int, kv_type: KVType | None
) -> None:
    budget = MemoryBudget(host * GIB, tuple(gpu * GIB for gpu in gpus))
    workload = Workload(n_ctx=n_ctx, pictures=pictures, n_parallel=n_parallel, kv_type=kv_type, n_threads=2)
    candidates = list_model(MODEL).candidates[::5]
    for found in rank(candidates, budget, workload, None):
        fresh = predict_memory(found.candidate.shape(found.encoder), found.request)
        assert fresh == found.plan
        used = [budget.gpus[number] for number in found.budget.gpu_numbers]
        assert tuple(used) == found.budget.gpus
        limits = (budget.host, *(gpu * (1 - MARGIN) for gpu in used))
        assert all(device.total <= limit for device, limit in zip(fresh.devices, limits, strict=True))
        assert found.request.n_ctx == n_ctx
        assert kv_type in (None, found.request.kv_type)
        assert found.request.tiles == workload.tiles


@pytest.mark.parametrize("vram", [4, 6, 8, 10])
def test_no_more_layers_would_fit(listing: ModelListing, vram: int) -> None:
    plan = planner(MemoryBudget(64 * GIB, (vram * GIB,)))
    for name in ("Q4_K_M", "Q6_K"):
        found = plan.best(quant(listing, name))
        assert found is not None
        assert 0 < found.gpu_layers < found.n_layers
        more = replace(found.request, n_gpu_layers=found.gpu_layers + 1)
        total = predict_memory(found.candidate.shape(found.encoder), more).gpus[0].total
        assert total > vram * GIB * (1 - MARGIN)


def test_more_memory_is_never_worse(listing: ModelListing) -> None:
    for name in ("UD-IQ2_M", "Q4_K_M", "Q8_0"):
        candidates = [candidate for candidate in listing.candidates if candidate.quant in (name, "Q6_K")]
        costs = []
        for vram in (2, 4, 8, 12, 16, 24, 48):
            ranked = rank(candidates, MemoryBudget(64 * GIB, (vram * GIB,)), TWO_PICTURES, None)
            costs.append(cost_of("balanced")(ranked[0])[0])
        assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("more", [(300 * 2**20,), (2 * GIB,), (12 * GIB,), (500 * 2**20, 8 * GIB)])
def test_another_gpu_is_never_worse(listing: ModelListing, more: tuple[int, ...]) -> None:
    """A display's GPU beside a large one took memory for nothing; a small first one made the answer impossible."""
    candidates = [candidate for candidate in listing.candidates if candidate.quant in ("Q4_K_M", "Q6_K", "UD-Q8_K_XL")]
    cost = cost_of("balanced")
    for gpus in ((24 * GIB, *more), (*more, 24 * GIB)):
        alone = rank(candidates, MemoryBudget(32 * GIB, (24 * GIB,)), TWO_PICTURES, None)[0]
        together = rank(candidates, MemoryBudget(32 * GIB, gpus), TWO_PICTURES, None)[0]
        assert together.gpu_layers == together.n_layers
        if gpus[0] == 24 * GIB:
            assert cost(together)[:2] <= (cost(alone)[0], cost(alone)[1] + 0.05)


def test_the_gpus_that_are_used_are_named(listing: ModelListing) -> None:
    found = planner(MemoryBudget(32 * GIB, (500 * 2**20, 24 * GIB))).best(quant(listing, "Q4_K_M"))
    assert found is not None
    assert found.budget.gpu_numbers == (1,)
    assert found.request.mmproj_gpu == 0  # of those that are used: GPU1
    assert memory_table(found).splitlines()[0].split() == ["RAM", "GPU1"]


def test_layers_go_to_each_gpu_by_its_room(listing: ModelListing) -> None:
    found = planner(MemoryBudget(64 * GIB, (12 * GIB, 4 * GIB))).best(quant(listing, "Q6_K"))
    assert found is not None
    assert found.is_full
    assert found.request.gpus[0] > 2 * found.request.gpus[1]
    assert [gpu.total for gpu in found.plan.gpus] == sorted((gpu.total for gpu in found.plan.gpus), reverse=True)
    even = replace(found.request, gpus=(1.0, 1.0))  # as llama.cpp would on two equal cards
    assert predict_memory(found.candidate.shape(found.encoder), even).gpus[1].total > 4 * GIB


def test_a_small_gpu_takes_the_encoder_or_nothing(listing: ModelListing) -> None:
    found = planner(MemoryBudget(64 * GIB, (GIB,))).best(quant(listing, "Q4_K_M"))
    assert found is not None
    assert found.gpu_layers <= 1
    assert not found.request.mmproj_on_gpu
    larger = planner(MemoryBudget(64 * GIB, (2 * GIB,))).best(quant(listing, "Q4_K_M"))
    assert larger is not None
    assert larger.request.mmproj_on_gpu


def test_a_quantised_cache_is_taken_only_where_f16_does_not_fit(listing: ModelListing) -> None:
    candidate = quant(listing, "Q5_K_M")
    roomy = planner(MemoryBudget(64 * GIB, (16 * GIB,))).best(candidate)
    tight = planner(MemoryBudget(64 * GIB, (12 * GIB,))).best(candidate)
    fixed = planner(MemoryBudget(64 * GIB, (12 * GIB,)), replace(TWO_PICTURES, kv_type="f16")).best(candidate)
    assert roomy is not None
    assert tight is not None
    assert fixed is not None
    assert (roomy.request.kv_type, tight.request.kv_type, fixed.request.kv_type) == ("f16", "q8_0", "f16")
    assert tight.is_full
    assert not fixed.is_full
    assert tight.loss > roomy.loss


def test_memory_that_is_shared_is_counted_once(listing: ModelListing) -> None:
    candidate = quant(listing, "Q4_K_M")
    apart = planner(MemoryBudget(12 * GIB, (11 * GIB,))).best(candidate)
    shared = planner(MemoryBudget(12 * GIB, (11 * GIB,), is_unified=True)).best(candidate)
    assert apart is not None
    assert apart.is_full
    assert shared is None or shared.plan.total <= 12 * GIB


def test_small_batches_where_only_they_fit(listing: ModelListing) -> None:
    candidate = quant(listing, "Q4_K_M")
    usual = planner(MemoryBudget(64 * GIB)).best(candidate)
    assert usual is not None
    less = planner(MemoryBudget(usual.plan.total - 200 * 2**20), replace(TWO_PICTURES, kv_type="f16")).best(candidate)
    assert less is not None
    assert (usual.request.n_ubatch, less.request.n_ubatch) == (512, 128)


# --- The best of them ----------------------------------------------------------------------------------------------


def test_twelve_gib_and_two_photos(listing: ModelListing) -> None:
    """The question the picker is there for."""
    ranked = rank(listing.candidates, MemoryBudget(32 * GIB, (12 * GIB,)), TWO_PICTURES, None)
    best = ranked[0]
    assert best.candidate.quant == "UD-Q4_K_XL"
    assert best.is_full
    assert best.request.kv_type == "f16"
    assert best.headroom[1] > 0
    assert "all 49 layers and the encoder on the GPU" in reason(ranked)
    assert len(ranked) == 24


def test_each_preference_has_its_way(listing: ModelListing) -> None:
    budget = MemoryBudget(64 * GIB, (12 * GIB,))
    balanced, fast, faithful = (
        rank(listing.candidates, budget, TWO_PICTURES, None, preference)
        for preference in ("balanced", "speed", "quality")
    )
    assert faithful[0].candidate.quant == "BF16", "it fits, and is the most faithful however slow"
    little = [each for each in fast if each.loss <= LITTLE_LOSS]
    fastest = min(geometric_mean(each.answer_seconds) for each in little)
    alike = [each for each in little if geometric_mean(each.answer_seconds) < 1.07 * fastest]
    assert fast[0] == min(alike, key=lambda each: each.loss), "of quants that are as fast the most exact"
    assert fast[0].loss <= LITTLE_LOSS, "Q3_K_M was picked, which loses some"
    assert balanced[0].is_full
    assert faithful[0].candidate.size > balanced[0].candidate.size


def test_whole_and_usable_comes_before_everything_else(listing: ModelListing) -> None:
    for vram in (6, 8, 12, 24):
        ranked = rank(listing.candidates, MemoryBudget(64 * GIB, (vram * GIB,)), TWO_PICTURES, None)
        good = [each.is_full and each.loss <= USABLE_LOSS for each in ranked]
        assert good == sorted(good, reverse=True)


def test_a_larger_model_in_few_bits_or_a_smaller_one_in_many() -> None:
    """8 GiB: the 8B whole, not the 14B in two bits and not the 14B by halves."""
    candidates = [candidate for each in family() for candidate in each.candidates]
    best = rank(candidates, MemoryBudget(32 * GIB, (8 * GIB,)), Workload(n_ctx=8192), None)[0]
    assert best.candidate.model == "InternVL3-8B-Instruct"
    assert best.is_full


def test_published_losses_fall_with_the_bits() -> None:
    names = ["IQ1_S", "IQ2_XXS", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"]
    bits = [2.01, 2.40, 3.17, 4.00, 4.90, 5.70, 6.57, 8.51]
    losses = [expected_loss(Quant(name), each) for name, each in zip(names, bits, strict=True)]
    assert losses == sorted(losses, reverse=True)
    assert expected_loss(Quant("BF16"), 16) == 0
    assert expected_loss(Quant("Q4_K_XL", dynamic=True), 5.0) < expected_loss(Quant("Q4_K_M"), 4.9)
    assert expected_loss(None, 4.9) == pytest.approx(0.028, rel=0.2)
    assert expected_loss(Quant("Q7_X"), 7.5) < expected_loss(None, 6.6)
    assert expected_loss(None, 1.0) >= expected_loss(None, 2.0) > 0.5


# --- What would fit ------------------------------------------------------------------------------------------------


def test_the_ways_to_fit_are_true(listing: ModelListing) -> None:
    budget = MemoryBudget(32 * GIB, (10 * GIB,))
    workload = Workload(n_ctx=16384, pictures=2, kv_type="f16", n_threads=2)
    assert not rank(listing.candidates, budget, workload, None)[0].is_full
    smaller = [each.candidates for each in family() if each.name == "InternVL3-8B-Instruct"]
    ways = list(ways_to_fit(listing.candidates, smaller, budget, workload, None, whole=True))
    assert [way.split(":")[0].split()[0] for way in ways] == ["--kv", "--context", "a"]
    words = ways[1].split(":")[0].split()
    changed = replace(workload, n_ctx=int(words[1]), max_tiles=int(words[3]) if len(words) > 3 else workload.max_tiles)
    best = rank([quant(listing, ways[1].split(": ")[1])], budget, changed, None)[0]
    assert best.is_full
    assert best.loss <= USABLE_LOSS


def test_nothing_fits(listing: ModelListing) -> None:
    budget = MemoryBudget(2 * GIB, (GIB,))
    assert rank(listing.candidates, budget, TWO_PICTURES, None) == []
    choices = Choices(MODEL, *copies(), listing.shape, {})
    with pytest.raises(InsufficientMemoryError, match="the smallest, UD-IQ1_S, misses") as caught:
        choose(choices, EngineConfig(), 2, budget, None)
    assert "weights" in caught.value.table
    assert caught.value.table in str(caught.value)
    forced = choose(choices, EngineConfig(force=True), 2, budget, None)
    assert forced.text.name == "UD-IQ1_S"
    assert "forced" in forced.reason


def copies() -> tuple[tuple[ModelCopy, ...], tuple[ModelCopy, ...]]:
    spec = load_catalog().find(MODEL)
    assert spec is not None
    contents = sort_out(RepoFile(file.name, file.size) for file in spec.files)
    return contents.texts, contents.mmprojs


def test_without_a_quant_the_best_that_fits_is_chosen(listing: ModelListing) -> None:
    texts, mmprojs = copies()
    choices = Choices(MODEL, texts, mmprojs, listing.shape, {})
    chosen = choose(choices, EngineConfig(), 2, MemoryBudget(32 * GIB, (12 * GIB,)), None)
    assert chosen.text.name == "UD-Q4_K_XL"
    assert chosen.mmproj == mmprojs[0]
    assert chosen.reason.startswith("Picked UD-Q4_K_XL, a little worse than unquantised")
    longer = choose(choices, EngineConfig(n_ctx=16384), 2, MemoryBudget(32 * GIB, (12 * GIB,)), None)
    assert (longer.text.size or 0) < (chosen.text.size or 0)


def test_files_that_are_no_such_model(listing: ModelListing) -> None:
    stray = ModelCopy(Quant("Q4_0"), (RepoFile("stray-Q4_0.gguf", 1000),))
    choices = Choices(MODEL, [stray], copies()[1], listing.shape, {})
    with pytest.raises(ModelFileError, match="not those of such a model"):
        choose(choices, EngineConfig(), 2, MemoryBudget(32 * GIB), None)


def test_the_table_of_a_plan_adds_up(listing: ModelListing) -> None:
    found = rank([quant(listing, "Q4_K_M")], MemoryBudget(32 * GIB, (8 * GIB, 4 * GIB)), TWO_PICTURES, None)[0]
    lines = memory_table(found).splitlines()
    assert lines[0].split() == ["RAM", "GPU0", "GPU1"]
    assert lines[-1].split() == ["there", "is", "32.00", "GiB", "8.00", "GiB", "4.00", "GiB"]
    together = lines[-2].removeprefix("together").split("iB")[:3]
    assert [parse_size(f"{each}iB") for each in together] == [
        pytest.approx(device.total, rel=0.002) for device in found.plan.devices
    ]


# --- Models ---------------------------------------------------------------------------------------------------------


def test_the_family_has_one_listing_a_size() -> None:
    names = [each.name for each in family()]
    assert len(names) == len(set(names)) >= 5
    assert MODEL in names
    sources = {candidate.source for each in family() for candidate in each.candidates}
    assert sources == {"listing", "estimate"}


def test_a_local_model_counts_by_its_header() -> None:
    demo = list_model("demo")
    assert [candidate.source for candidate in demo.candidates] == ["header"]
    found = rank(demo.candidates, MemoryBudget(GIB), Workload(n_ctx=2048), None)
    assert found[0].candidate.quant == "BF16"


def test_what_an_unlisted_model_is_estimated_to_take(listing: ModelListing) -> None:
    """The usual bits a weight give the sizes of the listed model to a few percent."""
    from internvl_gguf.planning.candidates import estimated_candidates

    spec = load_catalog().find(MODEL)
    assert spec is not None
    assert spec.text is not None
    assert spec.vision is not None
    for candidate in estimated_candidates(MODEL, nominal_shape(spec.text, spec.vision)):
        listed = next((each for each in listing.candidates if each.quant == candidate.quant), None)
        if listed:
            assert candidate.size == pytest.approx(listed.size, rel=0.03)


# --- Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("12GiB", (12 * GIB,)),
        ("12 GiB", (12 * GIB,)),
        ("12GB", (12 * GIB,)),
        ("24GiB,12GiB", (24 * GIB, 12 * GIB)),
        ("2x24GB", (24 * GIB, 24 * GIB)),
        ("12GiB, 2 x 8GiB", (12 * GIB, 8 * GIB, 8 * GIB)),
        (" 8g , 500MiB", (8 * GIB, 500 * 2**20)),
        ("none", ()),
        (["24GiB", 5 * GIB], (24 * GIB, 5 * GIB)),
        (5 * GIB, (5 * GIB,)),
    ],
)
def test_budgets(text: VRAM | None, expected: tuple[int, ...] | None) -> None:
    assert parse_vram(text) == expected


@pytest.mark.parametrize(
    "text", ["12", "-1", "0", "lots", "", "12GiB,", "0GiB", "12XB", "NaN", "1e9", 0, -5, True, 1.5]
)
def test_what_is_no_budget(text: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_vram(text)
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "values", [{"pictures": -1}, {"n_ctx": 0}, {"n_parallel": 0}, {"max_tiles": 0}, {"n_parallel": 1000}]
)
def test_a_workload_that_cannot_be(values: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError):
        Workload(**values)  # type: ignore[arg-type]


def test_pictures_and_their_context() -> None:
    assert context_for(1, 12, 256, None) == 8192
    assert context_for(4, 12, 256, None) == 15360
    assert context_for(40, 12, 256, 32768) == 32768
    assert context_for(1, 24, 256, 40960) == 8192  # 25 tiles and 1,024 tokens of text
    assert context_for(4, 24, 256, 40960) == 27648
    with pytest.raises(InvalidRequestError, match="take 13,320 tokens") as caught:
        check_pictures_fit(Workload(n_ctx=8192, pictures=4), 256)
    assert "--context 15360 or --max-tiles 6" in caught.value.hint
    check_pictures_fit(Workload(n_ctx=8192, pictures=4, max_tiles=6), 256)
    check_pictures_fit(Workload(n_ctx=15360, pictures=4), 256)


def test_arithmetic_is_close_to_the_plan(listing: ModelListing) -> None:
    """The search goes by arithmetic and is corrected by the plan: the two differ by a few layers at most."""
    corrections = []
    for name, vram in itertools.product(("UD-IQ2_M", "Q4_K_M", "Q6_K"), (4, 6, 8)):
        plan = planner(MemoryBudget(64 * GIB, (vram * GIB,)))
        found: Configuration | None = plan.best(quant(listing, name))
        draft = plan._draft(quant(listing, name), found.encoder, found.request.kv_type, True, 512) if found else None
        assert found is not None
        assert draft is not None
        corrections.append(draft.gpu_layers - found.gpu_layers)
    assert max(corrections) <= 2
    assert min(corrections) >= 0


# --- Several GPUs ----------------------------------------------------------------------------------------------------


def test_one_gpu_where_one_holds_the_model(listing: ModelListing) -> None:
    """All GPUs were used where all held it: each took memory of its own, and layers compute one after the other."""
    candidate = quant(listing, "Q4_K_M")
    alone = planner(MemoryBudget(64 * GIB, (24 * GIB,))).best(candidate)
    together = planner(MemoryBudget(64 * GIB, (20 * GIB, 24 * GIB, 22 * GIB))).best(candidate)
    assert alone is not None
    assert together is not None
    assert together.budget.gpu_numbers == (1,)
    assert together.plan.total == alone.plan.total
    two = planner(MemoryBudget(64 * GIB, (8 * GIB, 2 * GIB, 8 * GIB))).best(candidate)
    assert two is not None
    assert two.is_full
    assert two.budget.gpu_numbers == (0, 2)


def test_more_gpus_before_a_cache_that_loses_something(listing: ModelListing) -> None:
    """One GPU holds it with a quantised cache, two without: two."""
    workload = replace(TWO_PICTURES, n_ctx=32768)
    candidate = quant(listing, "Q4_K_M")
    sizes = [planner(MemoryBudget(64 * GIB, (vram * GIB,)), workload).best(candidate) for vram in range(10, 24)]
    vram, tight = next(
        (vram, found)
        for vram, found in enumerate(sizes, 10)
        if found and found.is_full and found.request.kv_type == "q8_0"
    )
    both = planner(MemoryBudget(64 * GIB, (vram * GIB, vram * GIB)), workload).best(candidate)
    assert both is not None
    assert both.is_full
    assert (tight.request.kv_type, both.request.kv_type) == ("q8_0", "f16")


def test_the_encoder_lies_where_the_most_room_is(listing: ModelListing) -> None:
    """It went to the CPU where the first GPU was full, for mtmd was thought to know no other."""
    candidate = quant(listing, "Q6_K")
    found = planner(MemoryBudget(64 * GIB, (4 * GIB, 12 * GIB))).best(candidate)
    assert found is not None
    assert found.request.mmproj_gpu == 1
    assert [bool(gpu.mmproj_weights) for gpu in found.plan.gpus] == [False, True]
    beside_a_full_one = planner(MemoryBudget(64 * GIB, (2**20, 24 * GIB))).best(candidate)
    assert beside_a_full_one is not None
    assert beside_a_full_one.is_full
    assert beside_a_full_one.budget.gpu_numbers == (1,)


def test_the_output_matrix_alone_on_a_gpu_leaves_attention_to_the_cpu(listing: ModelListing) -> None:
    """Flash attention was on for every layer, all of them on the CPU, where it loses precision and "auto" is off."""
    plan = planner(MemoryBudget(64 * GIB, (8 * GIB,)))
    flash = [plan.with_layers(quant(listing, "Q4_K_M"), n, mmproj_on_gpu=True).request.flash_attn for n in (0, 1, 2)]
    assert flash == [False, False, True]


def test_devices_of_other_machines_compute_with_no_weights_of_this_one(listing: ModelListing) -> None:
    """The plan took their memory for the host's layers, which the CPU computes: hundreds of MiB on the wrong side."""
    candidate = quant(listing, "Q4_K_M")
    local, remote = MemoryBudget(64 * GIB, (8 * GIB,)), MemoryBudget(64 * GIB, (8 * GIB,), remote=(REMOTE,))
    half = candidate.text.n_layers // 2
    near, far, none = (
        planner(budget).with_layers(candidate, layers, mmproj_on_gpu=False)
        for budget, layers in ((local, half), (remote, half), (MemoryBudget(64 * GIB), 0))
    )
    assert far.request.offload_gpu is None
    assert far.plan.gpus[0].compute_buffer < near.plan.gpus[0].compute_buffer
    assert far.plan.host.compute_buffer > near.plan.host.compute_buffer
    assert far.plan.host.compute_buffer <= none.plan.host.compute_buffer
    mixed = MemoryBudget(64 * GIB, (8 * GIB, 4 * GIB), remote=(REMOTE, None))
    assert planner(mixed).with_layers(candidate, half, mmproj_on_gpu=False).request.offload_gpu == 1


def test_devices_of_other_machines_are_left_alone_first(listing: ModelListing) -> None:
    """However much memory they have: every token would have to travel to them."""
    mixed = MemoryBudget(64 * GIB, (64 * GIB, 24 * GIB), remote=(REMOTE, None))
    assert [(budget.gpus, budget.remote) for budget in mixed.smaller()] == [((24 * GIB,), (None,)), ((), ())]
    found = planner(mixed).best(quant(listing, "Q4_K_M"))
    assert found is not None
    assert found.is_full
    assert found.budget.gpu_numbers == (1,)
    assert placement_text(found) == "all 49 layers and the encoder on GPU1, the other left alone"


def test_a_model_larger_than_the_gpu_lies_on_both(listing: ModelListing) -> None:
    mixed = MemoryBudget(16 * GIB, (24 * GIB, 6 * GIB), remote=(REMOTE, None))
    found = planner(mixed).best(quant(listing, "Q4_K_M"))
    assert found is not None
    assert found.is_full
    assert found.request.mmproj_gpu == 1
    assert all(device.weights for device in found.plan.gpus)
    assert placement_text(found) == "all 49 layers and the encoder on 1 of an RPC server and 1 GPU"
    table = memory_table(found).splitlines()[0].split()
    assert table == ["RAM", "RPC0", "GPU1"]


def test_pictures_are_encoded_on_this_machine(listing: ModelListing) -> None:
    """The text lies on the servers; a picture's pixels never leave."""
    remote = MemoryBudget(16 * GIB, (12 * GIB, 8 * GIB), remote=(REMOTE, REMOTE))
    found = planner(remote).best(quant(listing, "Q4_K_M"))
    assert found is not None
    assert found.is_full
    assert found.request.mmproj_gpu is None
    assert found.plan.host.mmproj_weights > 0
    assert placement_text(found) == "all 49 layers on RPC0, the other left alone, the encoder on the CPU"
    assert not planner(remote).smallest(quant(listing, "Q4_K_M")).request.mmproj_on_gpu


def test_a_unified_memory_is_not_shared_with_other_machines(listing: ModelListing) -> None:
    """A Mac with another one behind it: its own memory bounds its own part."""
    alone = MemoryBudget(14 * GIB, (10 * GIB,), is_unified=True)
    both = MemoryBudget(14 * GIB, (12 * GIB, 10 * GIB), is_unified=True, remote=(REMOTE, None))
    candidate = quant(listing, "UD-Q6_K_XL")
    assert planner(alone).best(candidate) is None
    found = planner(both).best(candidate)
    assert found is not None
    assert found.plan.total > 14 * GIB
    assert found.plan.host.total + found.plan.gpus[1].total <= 14 * GIB


# --- Experts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_experts() -> Candidate:
    """InternVL3.5-30B-A3B in Q4_K_M: 17 GiB, of which 16 are experts."""
    text = TextShape("qwen3moe", 48, 2048, 32, 4, 6144, 151_936, 40_960, 128, 128, 8, 768)
    shape = nominal_shape(text, VisionShape(24, 1024, 16, 4096, 448, 14, 256, "layernorm"))
    return next(each for each in estimated_candidates("InternVL3.5-30B-A3B", shape) if each.quant == "Q4_K_M")


@pytest.mark.parametrize("vram", [5, 8, 12])
def test_experts_stay_in_host_memory_where_only_they_do_not_fit(with_experts: Candidate, vram: int) -> None:
    """Every layer's attention on the GPU and as many experts as fit beside it: faster than whole layers on the CPU."""
    found = planner(MemoryBudget(32 * GIB, (vram * GIB,))).best(with_experts)
    assert found is not None
    assert found.fits
    assert found.gpu_layers == found.n_layers
    assert 0 < found.host_experts < 48
    assert not found.is_full
    assert f"all 49 layers and the encoder on the GPU, but the experts of {found.host_experts}" in placement_text(found)
    more = replace(found.request, n_cpu_moe=found.host_experts - 1)
    assert not replace(found, request=more).fits


def test_experts_lie_on_the_gpu_where_they_fit(with_experts: Candidate) -> None:
    found = planner(MemoryBudget(32 * GIB, (24 * GIB,))).best(with_experts)
    assert found is not None
    assert found.is_full
    assert found.host_experts == 0


def test_what_was_said_about_experts_is_kept(with_experts: Candidate) -> None:
    budget = MemoryBudget(32 * GIB, (24 * GIB,))
    shape = with_experts.shape(with_experts.encoders[0])

    def first(**settings: bool | int) -> Configuration:
        return next(placements("m", shape, EngineConfig(**settings), 8192, 2, budget))  # type: ignore[arg-type]

    every = first(cpu_moe=True)
    assert (every.gpu_layers, every.host_experts, every.request.n_cpu_moe) == (49, 48, -1)
    assert every.plan.gpus[0].weights < 2 * GIB
    some = first(n_cpu_moe=40)
    assert (some.gpu_layers, some.host_experts) == (49, 40)
    assert every.plan.gpus[0].weights < some.plan.gpus[0].weights
    assert first(n_cpu_moe=0, n_gpu_layers=10).host_experts == 0
    with pytest.raises(InvalidRequestError, match="cpu_moe keeps all experts in host memory"):
        EngineConfig(cpu_moe=True, n_cpu_moe=3)


def test_experts_of_a_model_without_any_are_an_error(listing: ModelListing) -> None:
    candidate = quant(listing, "Q4_K_M")
    with pytest.raises(InvalidRequestError, match="this model has none") as caught:
        next(
            placements(
                "m", candidate.shape(candidate.encoders[0]), EngineConfig(cpu_moe=True), 8192, 2, MemoryBudget(32 * GIB)
            )
        )
    assert caught.value.hint == "Leave n_cpu_moe and cpu_moe out."


def test_a_model_with_experts_that_does_not_fit_is_refused(with_experts: Candidate) -> None:
    """A token uses 3 billion weights of it; all 30 have to be somewhere."""
    shape = with_experts.shape(with_experts.encoders[0])
    with pytest.raises(InsufficientMemoryError) as caught:
        next(placements("30B-A3B", shape, EngineConfig(), 8192, 2, MemoryBudget(8 * GIB, (4 * GIB,))))
    assert "30B-A3B does not fit this machine" in caught.value.message
    assert "internvl pick" in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
