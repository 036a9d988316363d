"""Counters for Prometheus. No prompt, picture or key is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from internvl_gguf.server.selection_field import written_tokens

if TYPE_CHECKING:
    from internvl_gguf.server.model_pool import ServedModel
    from internvl_gguf.types import Reply

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What a server has done since its start.

    Args:
        models: its models.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second row for each counter, with the time of its making
        self._registry = registry = CollectorRegistry()
        registry.register(_ModelGauges(models))

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"internvl_{name}", about, labels, registry=registry)

        self._requests = counter("requests", "Requests by endpoint and HTTP status.", "endpoint", "status")
        self._cancelled = counter("requests_cancelled", "Requests whose client left before the end.")
        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._cached = counter("cached_tokens", "Tokens of prompts that were known already.")
        self._completion = counter("completion_tokens", "Tokens of answers.")
        self._calls = counter("tool_calls", "Calls of tools in answers.")
        self._tiles = counter("tiles", "Tiles in prompts.")
        self._encoded = counter("tiles_encoded", "Tiles that had to be encoded.")
        self._first = Histogram(
            "internvl_time_to_first_token_seconds",
            "Seconds from a request to the first token of its answer.",
            buckets=_SECONDS,
            registry=registry,
        )

    def responded(self, endpoint: str, status: int) -> None:
        """Count a request that was answered, with an error or not."""
        self._requests.labels(endpoint, str(status)).inc()

    def cancelled(self) -> None:
        """Count a request whose client left."""
        self._cancelled.inc()

    def answered(self, reply: Reply, *, is_first: bool) -> None:
        """Count an answer.

        Args:
            is_first: whether it is the first answer of its request; the prompt counts once.
        """
        usage = reply.usage
        if is_first or not reply.selection:  # else the first counted all that were written
            self._completion.inc(written_tokens([reply]))
        self._calls.inc(len(reply.tool_calls))
        self._encoded.inc(usage.tiles_encoded)
        if is_first:
            self._prompt.inc(usage.prompt_tokens)
            self._cached.inc(usage.cached_tokens)
            self._tiles.inc(usage.tiles)
            self._first.observe(reply.timings.time_to_first_token)

    def text(self) -> bytes:
        """Return all in the text format of Prometheus."""
        return generate_latest(self._registry)


class _ModelGauges:
    """The state of the models at the moment it is asked for."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("internvl_requests_running", "Requests being answered.", labels=["model"])
        waiting = GaugeMetricFamily("internvl_requests_waiting", "Requests that wait for a place.", labels=["model"])
        loaded = GaugeMetricFamily("internvl_model_loaded", "Whether the model is loaded.", labels=["model"])
        restarts = GaugeMetricFamily(
            "internvl_model_restarts", "Processes started in place of dead ones.", labels=["model"]
        )
        for model in self._models:
            running.add_metric([model.name], model.admission.running)
            waiting.add_metric([model.name], model.admission.waiting)
            loaded.add_metric([model.name], model.state == "ready")
            restarts.add_metric([model.name], model.restarts)
        yield from (running, waiting, loaded, restarts)
