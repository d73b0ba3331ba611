"""What Prometheus reads from ``/metrics``. One registry per server, so that two in one process stay apart."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server. ``prometheus_client`` makes them safe to use from threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        r = self.registry
        self.requests = Counter("dermseg_requests", "Answers", ["route", "method", "status"], registry=r)
        self.request_seconds = Histogram(
            "dermseg_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=r
        )
        self.stage_seconds = Histogram(
            "dermseg_stage_seconds", "Time of one image in a stage", ["stage"], buckets=_SECONDS, registry=r
        )
        self.images = Counter("dermseg_images", "Images by how they ended", ["status"], registry=r)
        self.batch_size = Histogram(
            "dermseg_batch_images", "Images in one network call", buckets=(1, 2, 4, 8, 16, 32, 64), registry=r
        )
        self.shed = Counter("dermseg_shed", "Requests turned away", ["reason"], registry=r)
        for reason in ("rate", "queue", "memory", "jobs", "disk"):
            self.shed.labels(reason)  # 0 from the start: Prometheus sees no increase in what appears as 1
        self.waiting = Gauge("dermseg_waiting_images", "Images that wait for a worker", registry=r)
        self.inflight = Gauge("dermseg_inflight_bytes", "Bytes of bodies in memory", registry=r)
        self.jobs = Gauge("dermseg_jobs", "Batch jobs by state", ["state"], registry=r)
        self.job_images = Counter(
            "dermseg_job_images", "Images of jobs by how they ended", ["status"], registry=r
        )
        self.audit_records = Gauge("dermseg_audit_records", "Number of the last audit record", registry=r)
        self.build = Info("dermseg_build", "Version and models", registry=r)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
