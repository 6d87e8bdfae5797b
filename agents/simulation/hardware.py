"""What a step of an engine costs: as measured here, or from data sheets by a roofline.

The roofline (Williams et al., 10.1145/1498765.1498785): a step reads all weights once, computes 2 FLOPs for each
parameter and token, and reads the keys and values of every token that is attended to; spread over GPUs, it adds two
all-reduces a layer. How much of the data sheets' figures is reached, and each figure's source, is in hardware.toml.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.simulation.batch import Costs, Limits
from envs.errors import ConfigError, clip, unknown

DATA = Path(__file__).with_name("hardware.toml")
SPREADS = (1, 2, 4, 8)
"""GPUs that one replica may be spread over: those of one machine."""
BYTES = 2
"""Of a weight, and of an element of the cache: bfloat16."""
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Some = Annotated[int, Field(ge=1)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gpu(_Row):
    """A kind of GPU, by its data sheet."""

    memory_gb: Above0
    bandwidth_gb_s: Above0
    tflops: Above0
    """Of bfloat16, without sparsity."""
    link_gb_s: Above0
    """To the other GPUs of its machine, one direction."""
    bandwidth: Share | None = None
    """Share of it that is reached; None for the common one, as for the next."""
    compute: Share | None = None
    source: str


class Price(_Row):
    usd_per_hour: AtLeast0
    date: str
    source: str


class ModelSize(_Row):
    """A causal language model with dense layers."""

    parameters: Above0
    layers: Some
    hidden: Some
    kv_heads: Some
    head_size: Some
    vocabulary: Some
    source: str

    @property
    def cache_bytes(self) -> int:
        """Of a token's keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_size * BYTES


class Measured(_Row):
    """An engine whose costs were measured, see experiments.capacity.calibration; they hold for one GPU (or none)."""

    pass_s: AtLeast0
    read_s: AtLeast0 = 0.0
    admit_s: AtLeast0 = 0.0
    request_s: AtLeast0 = 0.0
    prompt_s: AtLeast0 = 0.0
    decode_s: AtLeast0 = 0.0
    context_s: AtLeast0 = 0.0
    rows: Some = 256
    tokens: Some = 8192
    cache: Some = 1 << 40
    prefix_caching: bool = False
    padded: bool = False
    source: str


class Published(_Row):
    """A throughput that somebody published."""

    model: str
    gpu: str
    tensor_parallel: Some = 1
    prompt: Some
    reply: Some
    tokens_per_s: Mapping[int, Above0]
    """Concurrency -> tokens of replies a second."""
    source: str


class Efficiency(_Row):
    """Shares of data sheets' figures that are reached, and what they leave out."""

    bandwidth: Share
    compute: Share
    step_s: AtLeast0
    """Of a step beside all that grows: scheduling, launching, sampling."""
    reduce_s: AtLeast0
    """Of an all-reduce, beside its bytes."""
    memory: Share
    mfu: Share
    """Model FLOPs utilisation of training."""
    bandwidth_source: str
    compute_source: str
    step_source: str
    reduce_source: str
    memory_source: str
    mfu_source: str


class Hardware(_Row):
    """All that is known, by name. Names of measured engines are MODEL@GPU."""

    efficiency: Efficiency
    gpus: dict[str, Gpu] = {}
    prices: dict[str, Price] = {}
    models: dict[str, ModelSize] = {}
    engines: dict[str, Measured] = {}
    published: tuple[Published, ...] = ()

    def served(self, model: str, gpu: str, tensor_parallel: int | None = None, longest: int = 1024) -> "Served":
        """How one replica of a model does on a kind of GPU.

        Args:
            model: its name here.
            gpu: the GPU's name here.
            tensor_parallel: GPUs that it is spread over; None for the fewest on which it fits.
            longest: tokens of the longest request, 16 of which have to fit beside the weights.

        Raises:
            ConfigError: unknown names, or it does not fit.
        """
        if found := self.engines.get(f"{model}@{gpu}"):
            if tensor_parallel not in (None, 1):
                raise ConfigError(
                    f"{model}@{gpu} was measured as it is: expected no tensor_parallel, found {tensor_parallel}"
                )
            costs = Costs(**found.model_dump(include=set(Costs.__slots__)))
            limits = Limits(found.rows, found.tokens, found.cache, found.prefix_caching, found.padded)
            return Served(costs, limits, 1, True)
        size, card = self._named(model, gpu)
        spreads = SPREADS if tensor_parallel is None else (tensor_parallel,)
        for spread in spreads:
            room = self.efficiency.memory * card.memory_gb * 1e9 * spread - size.parameters * BYTES
            limits = Limits(cache=max(1, int(room // size.cache_bytes)))
            if limits.cache >= 16 * longest:
                return Served(self._costs(size, card, spread), limits, spread, False)
        held_gb = self.efficiency.memory * card.memory_gb * spreads[-1]
        raise ConfigError(
            f"{model} on {gpu}: expected room for {size.parameters * BYTES / 1e9:.0f} GB of weights and 16 requests "
            f"of {longest} tokens, found {held_gb:.0f} GB on {spreads[-1]} GPUs; take a larger GPU or a smaller model"
        )

    def _named(self, model: str, gpu: str) -> tuple[ModelSize, Gpu]:
        if model not in self.models:
            raise unknown("model to be simulated:", model, {*self.models, *self.engines})
        if gpu not in self.gpus:
            raise unknown("GPU", gpu, self.gpus)
        return self.models[model], self.gpus[gpu]

    def _costs(self, size: ModelSize, card: Gpu, spread: int) -> Costs:
        reached = self.efficiency
        bytes_per_s = card.bandwidth_gb_s * 1e9 * (card.bandwidth or reached.bandwidth) * spread
        computed = 2 * size.parameters / (card.tflops * 1e12 * (card.compute or reached.compute) * spread)
        reduces = 2 * size.layers * (spread > 1)
        # A ring: each GPU sends 2 (n - 1) / n of what is reduced.
        reduced = reduces * size.hidden * BYTES * 2 * (spread - 1) / spread / (card.link_gb_s * 1e9)
        return Costs(
            pass_s=reached.step_s + reduces * reached.reduce_s,
            read_s=size.parameters * BYTES / bytes_per_s,
            prompt_s=computed + reduced,
            decode_s=computed + reduced,
            context_s=size.cache_bytes / bytes_per_s,
        )


@dataclass(frozen=True)
class Served:
    """One replica: what its steps cost, what it holds, and the GPUs that it takes."""

    costs: Costs
    limits: Limits
    gpus: int
    measured: bool
    """Whether its costs were, or are derived from data sheets."""

    def limited(self, **limits: Any) -> "Served":
        """With other limits, those that are not None."""
        given = {name: value for name, value in limits.items() if value is not None}
        return replace(self, limits=replace(self.limits, **given))


def load_hardware(path: str | Path | None = None) -> Hardware:
    """What is known, with a file of the user's above it: entries of the same name are replaced.

    Raises:
        ConfigError: a file that cannot be read, or does not have the format of hardware.toml.
    """
    data = _read(DATA)
    for section, entries in (_read(Path(path)) if path else {}).items():
        known = data.get(section)
        if section not in Hardware.model_fields:
            raise unknown(f"section in {path}:", section, Hardware.model_fields)
        data[section] = {**known, **entries} if isinstance(known, dict) and isinstance(entries, dict) else entries
    try:
        return Hardware.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ConfigError(f"{path}, {where}: found {clip(problem['input'])}: {problem['msg']}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the hardware file {path}: {error}") from None
