"""Figures of a running server, for Prometheus.

Knows: prometheus_client. Each server has a registry of its own, so that several run in one process.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Count requests, tokens and failures, and time what they wait for."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("moai_requests", "Requests by their HTTP status", ["status"], registry=own)
        self.refusals = Counter("moai_refusals", "Requests that were refused, by code", ["code"], registry=own)
        self.tokens = Counter("moai_tokens", "Tokens of prompts and answers", ["kind"], registry=own)
        self.images = Counter("moai_images", "Pictures that were perceived", registry=own)
        self.failures = Counter("moai_expert_failures", "Pictures that an expert failed on", ["expert"], registry=own)
        self.left = Counter("moai_clients_left", "Requests whose client left before the end", registry=own)
        self.errors = Counter("moai_errors", "Batches that failed, by the error's class", ["error"], registry=own)
        self.seconds = Histogram("moai_request_seconds", "Seconds per answered request", registry=own, buckets=SECONDS)
        self.first = Histogram("moai_first_token_seconds", "Seconds to the first token", registry=own, buckets=SECONDS)
        self.perceiving = Histogram("moai_perceive_seconds", "Seconds per perceived batch", registry=own,
                                    buckets=SECONDS)  # fmt: skip
        self.batches = Histogram("moai_batch_size", "Answers per batch", registry=own, buckets=SIZES)
        self._waiting = Gauge("moai_waiting", "Answers that wait", registry=own)
        self._running = Gauge("moai_running", "Answers that are generated", registry=own)

    def watch(self, waiting: Callable[[], float], running: Callable[[], float]) -> None:
        """Say where the numbers of waiting and running answers are."""
        self._waiting.set_function(waiting)
        self._running.set_function(running)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)
