"""A master's report in the form that Prometheus reads; needs prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

MISSING = "/metrics needs prometheus_client: pip install 'pccl-py[metrics]'"
Report = dict[str, Any]


def available() -> bool:
    return find_spec("prometheus_client") is not None


def content_type() -> str:
    return str(import_module("prometheus_client").CONTENT_TYPE_LATEST)


def exposition(report: Report) -> bytes:
    client = import_module("prometheus_client")
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(_Families(report))
    text: bytes = client.generate_latest(registry)
    return text


# Name, kind, help, and what it is of a run.
OF_RUNS: tuple[tuple[str, str, str, Callable[[Report], float]], ...] = (
    ("pccl_members", "gauge", "Peers in the view.", lambda run: len(run["members"])),
    ("pccl_view", "gauge", "Number of the view.", lambda run: run["view"][1]),
    ("pccl_waiting_islands", "gauge", "Islands at the door.", lambda run: run["waiting"]),
    ("pccl_operations_open", "gauge", "Operations in flight.", lambda run: run["operations_open"]),
    ("pccl_commits", "counter", "Operations committed.", lambda run: run["commits"]),
    ("pccl_failures", "counter", "Operations that failed for all.", lambda run: run["failures"]),
    ("pccl_views", "counter", "Views since this master began.", lambda run: run["views"]),
    ("pccl_removed", "counter", "Peers that left or were evicted.", lambda run: run["removed"]),
)


class _Families:
    """A collector, as prometheus_client wants it."""

    def __init__(self, report: Report) -> None:
        self._runs: dict[str, Report] = report["runs"]
        core = import_module("prometheus_client.core")
        self._kinds = {"gauge": core.GaugeMetricFamily, "counter": core.CounterMetricFamily}

    def collect(self) -> Iterator[Any]:
        for name, kind, about, value in OF_RUNS:
            family = self._kinds[kind](name, about, labels=["run"])
            for run, found in self._runs.items():
                family.add_metric([run], float(value(found)))
            yield family
        yield self._of_members()
        yield from self._of_links()

    def _of_members(self) -> Any:
        silent = self._kinds["gauge"](
            "pccl_member_silent_seconds", "Since it was last heard of.", labels=["run", "peer", "island"]
        )
        for run, found in self._runs.items():
            for member in found["members"]:
                silent.add_metric([run, str(member["peer"]), member["island"]], member["silent_s"])
        return silent

    def _of_links(self) -> Iterator[Any]:
        labels = ["run", "from", "to"]
        speed = self._kinds["gauge"](
            "pccl_link_bytes_per_second", "As measured by its sender.", labels=labels
        )
        rtt = self._kinds["gauge"]("pccl_link_rtt_seconds", "Round trip.", labels=labels)
        for run, found in self._runs.items():
            for sender, receiver, bandwidth, round_trip in found["links"]:
                if bandwidth:
                    speed.add_metric([run, str(sender), str(receiver)], float(bandwidth))
                if round_trip:
                    rtt.add_metric([run, str(sender), str(receiver)], round_trip)
        yield speed
        yield rtt
