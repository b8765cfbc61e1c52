"""What a run of the benchmark found, ready for JSON."""

from pydantic import BaseModel, ConfigDict

from mstkd_serve.bench.load import LoadPoint
from mstkd_serve.bench.machine import Machine


class EngineSpeed(BaseModel):
    """One in-process engine.

    Attributes:
        name: The engine, such as `OpenVINO bf16`.
        milliseconds: Median time of one call by batch size.
        ratio: Speed against the peer by batch size, the median over rounds; None without a peer.
        mean_cosine: Mean cosine of its embeddings to ONNX Runtime's in fp32.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    milliseconds: dict[int, float]
    ratio: dict[int, float] | None
    mean_cosine: float


class Target(BaseModel):
    """A claim that the run examined.

    Attributes:
        claim: What is claimed, in words.
        value: What was measured, the median over rounds.
        bound: The bound.
        at_least: Whether the bound is a lower one.
    """

    model_config = ConfigDict(frozen=True)

    claim: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def held(self) -> bool:
        """Whether the claim held."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


class BenchReport(BaseModel):
    """A whole run.

    Attributes:
        machine: Where it ran.
        subject: What was measured.
        rounds: Rounds that the medians are over.
        peer: The engine that ratios are against, or empty.
        engines: In-process engines.
        served: What the server's models say of their runtime, precision and threads.
        loads: Served loads.
        targets: The claims examined.
        ready_seconds: From `mstkd-serve up` to readiness, each start.
        server_mib: Memory of the server and its models, PSS, after the loads.
        client_cpu_ratio: CPU time of mstkd_client against bare tritonclient, by batch size.
        notes: What was left out, and why.
    """

    machine: Machine
    subject: str
    rounds: int
    peer: str = ""
    engines: list[EngineSpeed] = []
    served: list[str] = []
    loads: list[LoadPoint] = []
    targets: list[Target] = []
    ready_seconds: list[float] = []
    server_mib: float | None = None
    client_cpu_ratio: dict[int, float] = {}
    notes: list[str] = []
