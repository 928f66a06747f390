"""The gateway's numbers for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from babylon_assets.serving.answers import Source
from babylon_assets.serving.http.connections import Connections
from babylon_assets.serving.policy_registry import Directory
from babylon_assets.serving.recorder import Recorder

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIELDS = {
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "top_k",
    "min_p",
    "service_tier",
    "store",
    "reasoning_effort",
    "parallel_tool_calls",
    "verbosity",
}
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """What is counted while requests are answered; gauges are read when they are asked for."""

    def __init__(
        self, source: Source, directory: Directory, recorder: Recorder | None, connections: Connections
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # open files among others
        self.requests = Counter(
            "babylon_gateway_requests", "Requests, by HTTP status.", ["status"], registry=self.registry
        )
        self.answers = Counter("babylon_gateway_answers", "Answers, by policy.", ["policy"], registry=self.registry)
        self.tokens = Counter(
            "babylon_gateway_tokens", "Tokens, of prompts and answers.", ["kind"], registry=self.registry
        )
        self.cancelled = Counter(
            "babylon_gateway_cancelled", "Requests whose client went away.", registry=self.registry
        )
        self.ignored = Counter(
            "babylon_gateway_ignored", "Requests with a field that was ignored.", ["field"], registry=self.registry
        )
        self.seconds = Histogram(
            "babylon_gateway_seconds", "From a request to its whole answer.", buckets=_SECONDS, registry=self.registry
        )
        self.registry.register(_Gauges(source, directory, recorder, connections))

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)

    def count_ignored(self, fields: Iterable[str]) -> None:
        """Count fields by their names, as far as these are OpenAI's or vLLM's: anybody can make up others."""
        for field in {field if field in _FIELDS else "unknown" for field in fields}:
            self.ignored.labels(field).inc()


class _Gauges(Collector):
    def __init__(
        self, source: Source, directory: Directory, recorder: Recorder | None, connections: Connections
    ) -> None:
        self._source, self._directory, self._recorder = source, directory, recorder
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        active, waiting = self._source.load()
        yield GaugeMetricFamily("babylon_gateway_active", "Answers under way.", active)
        yield GaugeMetricFamily("babylon_gateway_waiting", "Answers that wait for a place.", waiting)
        yield GaugeMetricFamily("babylon_gateway_connections", "Connections that are open.", len(self._connections))
        refused = CounterMetricFamily(
            "babylon_gateway_connections_refused", "Connections that were ended, by HTTP status.", labels=["status"]
        )
        for status, count in self._connections.refused.items():
            refused.add_metric([str(int(status))], count)
        yield refused
        yield GaugeMetricFamily(
            "babylon_gateway_ledger_up", "Whether the pointer can be read.", self._directory.database_up
        )
        served = self._directory.served
        if served is not None:
            yield GaugeMetricFamily("babylon_gateway_step", "Step of the policy that is served.", served.stable.step)
        if self._recorder is not None:
            for name, what, value in (
                ("written", "Calls written to the database.", self._recorder.written),
                ("lost", "Calls that could be kept nowhere.", self._recorder.lost),
                ("refused", "Calls that the database does not take.", self._recorder.refused),
                ("spool_bytes", "Bytes of calls that wait on disk.", self._recorder.waiting()),
            ):
                yield GaugeMetricFamily(f"babylon_gateway_records_{name}", what, value)
