"""Engines by name: `embedded`, `hf:DIR`, `replay:FILE`.

A model's name is checked here before anything is loaded; torch and transformers are imported only where an engine is
made.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agents.types import Engine
from envs.errors import ConfigError, clip, unknown

EMBEDDED = Path(__file__).parent.parent / "embedded_model"


@dataclass(frozen=True)
class EngineSettings:
    """Settings of the transformers engine; see agents.engines.transformers for what each does."""

    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_batch: Annotated[int, Field(ge=1)] = 256
    deterministic: bool = True
    threads: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class ModelSpec:
    """A model that has been checked to be there: enough to make its engine, here or in another process."""

    kind: str
    target: str = ""
    settings: EngineSettings = field(default_factory=EngineSettings)
    source: Callable[[], Engine] | Engine | None = None
    """For engines made in Python: a function that makes one for each replica, or the engine itself."""

    @property
    def is_lent(self) -> bool:
        """Whether the engine itself was given: then closing it is for its owner to do."""
        return self.source is not None and not callable(self.source)

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


Model = str | Callable[[], Engine] | Engine


def parse_model(name: Model, settings: EngineSettings | None = None) -> ModelSpec:
    """Check a model's name: `embedded`, `hf:DIR`, `replay:FILE`; or take an engine, or a function that makes one.

    Raises:
        ConfigError: no such kind of engine, no such directory or file, no weights in it.
    """
    settings = settings or EngineSettings()
    if not isinstance(name, str):
        return ModelSpec("python", getattr(name, "__name__", type(name).__name__), settings, name)
    kind, _, target = name.partition(":")
    if kind == "embedded":
        if target:
            raise ConfigError(f"model {clip(name)}: 'embedded' takes no target; a directory is given as hf:DIR")
        _check_directory(EMBEDDED, "the embedded model")
        _warn_of_other_templates()
        return ModelSpec(kind, "", settings)
    if kind not in ("hf", "replay"):
        raise unknown("kind of model", kind, ["embedded", "hf:DIR", "replay:FILE"])
    if not target:
        raise ConfigError(f"model {clip(name)} names no {'directory' if kind == 'hf' else 'file'}: write {kind}:PATH")
    if kind == "hf":
        _check_directory(Path(target), f"model {clip(name)}")
    elif not Path(target).is_file():
        raise ConfigError(f"model {clip(name)}: there is no file {target}")
    return ModelSpec(kind, str(Path(target).absolute()), settings)


def make_engine(spec: ModelSpec) -> Engine:
    """Load the model. Slow; call it where the engine is to run."""
    if spec.source is not None:
        return spec.source() if callable(spec.source) else spec.source
    if spec.kind == "replay":
        from agents.engines.scripted import ReplayEngine

        return ReplayEngine(spec.target)
    try:
        from agents.engines.transformers import TransformersEngine
    except ModuleNotFoundError as error:
        raise ConfigError(f"model {spec.name} needs {error.name}: pip install 'palaestra[embedded]'") from None
    from dataclasses import asdict

    embedded = spec.kind == "embedded"
    directory = EMBEDDED if embedded else Path(spec.target)
    return TransformersEngine(directory, policy="embedded" if embedded else "", **asdict(spec.settings))


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
