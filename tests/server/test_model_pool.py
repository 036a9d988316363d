"""Several models in the memory of one machine: what fits beside others, and who gives way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from internvl_gguf.config import EngineConfig
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.planning.planner import Configuration
from internvl_gguf.planning.workload import MemoryBudget
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.model_pool import ModelPool, ModelSettings, ServedModel
from internvl_gguf.session.memory_room import fits_beside

CONFIG = EngineConfig(n_ctx=2048, n_parallel=2)


@asynccontextmanager
async def pool_of(files: ModelFiles, *names: str, config: EngineConfig = CONFIG) -> AsyncIterator[ModelPool]:
    """A pool of one model under several names; nothing is loaded yet."""
    settings = ModelSettings(config)
    pool = ModelPool([ServedModel(name, files, settings) for name in names], ["other"], settings, lambda line: None)
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: ModelPool, name: str) -> None:
    model = pool.find(name)
    await pool.lease(model)
    model.release()


def loaded(pool: ModelPool) -> list[str]:
    return [model.name for model in pool.models if model.is_loaded]


def configuration_of(files: ModelFiles) -> tuple[Configuration, MemoryBudget]:
    async def run() -> tuple[Configuration, MemoryBudget]:
        async with pool_of(files, "a") as pool:
            await ask(pool, "a")
            assert pool._whole is not None
            return pool.models[0].runtime.configuration, pool._whole

    return asyncio.run(run())


def test_a_model_fits_beside_others_if_its_plan_does(cache_folder: object, tiny: ModelFiles) -> None:
    configuration, whole = configuration_of(tiny)
    taken = configuration.plan.host.total
    assert fits_beside(tiny, CONFIG, whole, [configuration])
    assert fits_beside(tiny, CONFIG, replace(whole, host=2 * taken), [configuration])
    assert not fits_beside(tiny, CONFIG, replace(whole, host=5 * taken // 4), [configuration])
    assert not fits_beside(tiny, CONFIG, replace(whole, host=taken), [configuration])


def test_a_smaller_context_than_alone_is_no_fit(cache_folder: object, tiny: ModelFiles) -> None:
    configuration, whole = configuration_of(tiny)
    config = replace(CONFIG, n_ctx=None)
    assert not fits_beside(tiny, config, replace(whole, host=configuration.plan.host.total * 3 // 2), [configuration])


def test_a_model_that_fits_nowhere_is_left_to_say_so_itself(cache_folder: object, tiny: ModelFiles) -> None:
    configuration, whole = configuration_of(tiny)
    assert fits_beside(tiny, CONFIG, replace(whole, host=1), [configuration])


def test_the_model_not_used_for_longest_gives_way(cache_folder: object, tiny: ModelFiles) -> None:
    async def run() -> None:
        async with pool_of(tiny, "a", "b", "c") as pool:
            await ask(pool, "a")
            assert pool._whole is not None
            pool._whole = replace(pool._whole, host=5 * pool.models[0].runtime.configuration.plan.host.total // 2)
            await ask(pool, "b")
            await ask(pool, "a")
            assert loaded(pool) == ["a", "b"]
            await ask(pool, "c")
            assert loaded(pool) == ["a", "c"]

    asyncio.run(run())


def test_a_model_in_use_gives_way_when_its_requests_have_ended(cache_folder: object, tiny: ModelFiles) -> None:
    async def run() -> None:
        async with pool_of(tiny, "a", "b") as pool:
            first = pool.find("a")
            await pool.lease(first)
            assert pool._whole is not None
            pool._whole = replace(pool._whole, host=first.runtime.configuration.plan.host.total)
            second = asyncio.create_task(ask(pool, "b"))
            while first.stays.is_set():
                await asyncio.sleep(0)
            late = asyncio.create_task(
                ask(pool, "a")
            )  # comes while the model is to be unloaded: waits, and gets it back
            await asyncio.sleep(0)
            assert loaded(pool) == ["a"]
            first.release()
            await second
            await late
            assert pool.find("a").state == "ready" or pool.find("b").state == "ready"

    asyncio.run(run())


def test_requests_at_once_load_a_model_once(cache_folder: object, tiny: ModelFiles) -> None:
    async def run() -> None:
        async with pool_of(tiny, "a") as pool:
            await asyncio.gather(*(ask(pool, "a") for _ in range(10)))
            pid = pool.models[0].runtime.pid
            await ask(pool, "a")
            assert pool.models[0].runtime.pid == pid
            assert pool.models[0].users == 0

    asyncio.run(run())


def test_a_load_that_nobody_waits_for_any_more_goes_on(cache_folder: object, tiny: ModelFiles) -> None:
    async def run() -> None:
        async with pool_of(tiny, "a") as pool:
            impatient = asyncio.create_task(ask(pool, "a"))
            while pool.models[0].state != "loading":
                await asyncio.sleep(0)
            impatient.cancel()
            with pytest.raises(asyncio.CancelledError):
                await impatient
            await ask(pool, "a")
            assert pool.models[0].users == 0

    asyncio.run(run())


def test_a_model_that_does_not_fit_is_said_and_tried_again(cache_folder: object, tiny: ModelFiles) -> None:
    async def run() -> None:
        async with pool_of(tiny, "a", config=replace(CONFIG, n_batch=4)) as pool:
            pool.models[0].files = replace(tiny, mmproj=tiny.text)  # not a vision encoder
            for _ in range(2):
                with pytest.raises(RefusedRequestError) as caught:
                    await ask(pool, "a")
                assert caught.value.status == 503
            pool.models[0].files = tiny
            await ask(pool, "a")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("asked", "found"),
    [(None, "demo:Q4"), ("DEMO:q4", "demo:Q4"), ("demo", "demo:Q4"), ("other", "demo:Q4"), ("big:Q8", "big:Q8")],
)
def test_names_of_models(tiny: ModelFiles, asked: str | None, found: str) -> None:
    async def run() -> None:
        async with pool_of(tiny, "demo:Q4", "big:Q8", "big:Q4") as pool:
            assert pool.find(asked).name == found
            for name in ("big", "demo:Q", "nothing", ""):
                with pytest.raises(RefusedRequestError) as caught:
                    pool.find(name)
                assert caught.value.status == 404

    asyncio.run(run())
