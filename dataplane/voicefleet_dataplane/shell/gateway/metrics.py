"""What a gateway counts. Served on the inner port only."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voicefleet_dataplane.shell.process.health import tell_release

_ANSWER_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class GatewayMetrics:
    """One registry per process; tests make their own."""

    def __init__(self) -> None:
        self.registry = tell_release(CollectorRegistry())
        prefix = "voicefleet_gateway_"
        self.calls = Counter(
            f"{prefix}calls_total",
            "Offers by outcome: created, or the error's code.",
            ["outcome"],
            registry=self.registry,
        )
        self.hang_ups = Counter(f"{prefix}hang_ups_total", "Hang-ups by outcome.", ["outcome"], registry=self.registry)
        self.ephemeral_keys = Counter(f"{prefix}ephemeral_keys_total", "Ephemeral keys made.", registry=self.registry)
        self.sidebands = Gauge(f"{prefix}sidebands", "Sideband WebSockets that are open.", registry=self.registry)
        self.sidebands_ended = Counter(
            f"{prefix}sidebands_ended_total",
            "Sidebands by how they ended: call_ended, leaving, not_text, not_read, owner_lost; or the code of the refusal.",
            ["how"],
            registry=self.registry,
        )
        self._owner_asked = Counter(
            f"{prefix}owner_requests_total", "Questions to members by outcome.", ["outcome"], registry=self.registry
        )
        self.answer_seconds = Histogram(
            f"{prefix}answer_seconds",
            "From the offer to its answer.",
            buckets=_ANSWER_BUCKETS_S,
            registry=self.registry,
        )
        self.in_progress = Gauge(f"{prefix}requests_in_progress", "Requests being served.", registry=self.registry)
        self.imbalance = Gauge(
            f"{prefix}pool_imbalance",
            "Highest load over the mean, by weight, of the members that answered lately; 1 is even.",
            ["pool"],
            registry=self.registry,
        )
        self.ready = Gauge(f"{prefix}ready", "1 when new calls can be placed.", registry=self.registry)

    def owner_asked(self, outcome: str) -> None:
        """Count the outcome of one question to a member."""
        self._owner_asked.labels(outcome).inc()
