"""Starting vLLM: its arguments, and the environment of its processes. Used by the vLLM engine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from agents.serving import VllmSettings
from envs.errors import ConfigError

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

# vLLM reads them when it is imported.
for _name, _value in {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}.items():
    os.environ.setdefault(_name, _value)
logging.getLogger("vllm").setLevel(logging.ERROR)

_CPU_PREFILL_TOKENS = 8192


def start_vllm(target: str, config: Any, settings: VllmSettings) -> "AsyncLLM":
    """Start vLLM's process and wait until it has loaded the model.

    Args:
        target: a directory or a name on the hub.
        config: the model's, of transformers.
        settings: see VllmSettings.

    Raises:
        ConfigError: the model or a setting that vLLM cannot use.
    """
    try:
        with environment(target, settings):
            from vllm.v1.engine.async_llm import AsyncLLM

            return AsyncLLM.from_engine_args(arguments(target, config, settings), stat_loggers=[_silent_stats()])
    except (ConfigError, ModuleNotFoundError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever vLLM says of a model or a setting
        raise ConfigError(f"vLLM cannot serve {target}: {said(error)}") from None


def arguments(target: str, config: Any, settings: VllmSettings) -> "AsyncEngineArgs":
    """vLLM's own; see start_vllm."""
    from vllm import AsyncEngineArgs

    _require_build(settings)
    return AsyncEngineArgs(
        model=target,
        tensor_parallel_size=settings.tensor_parallel,
        gpu_memory_utilization=settings.gpu_memory,
        enable_prefix_caching=settings.prefix_caching,
        max_num_seqs=settings.max_batch,
        enforce_eager=settings.eager or settings.on_cpu,
        seed=0,
        logprobs_mode="processed_logprobs",
        worker_extension_cls="agents.engines.vllm_worker.WorkerExtension",
        use_tqdm_on_load=False,
        disable_log_stats=True,
        **_options(config, settings),
    )


def _options(config: Any, settings: VllmSettings) -> dict[str, Any]:
    # vLLM's own auto makes float32 a half precision.
    dtype = str(config.dtype or "auto").removeprefix("torch.") if settings.dtype == "auto" else settings.dtype
    options: dict[str, Any] = {"dtype": dtype, "structured_outputs_config": {"backend": "guidance"}}
    if settings.context:
        options["max_model_len"] = settings.context
    if settings.tensor_parallel > 1:
        options["distributed_executor_backend"] = "mp"
    if settings.max_adapters:
        # One more than are served: a new version is loaded before the old one goes. And one that stays empty: beside
        # requests with an adapter, those without get the last slot's on the CPU (vllm-project/vllm#48421).
        slots = settings.max_adapters + 2
        options |= {
            "enable_lora": True,
            "max_loras": slots,
            "max_cpu_loras": slots,
            "max_lora_rank": _rank(settings.max_rank),
        }
    if settings.on_cpu:
        longest = settings.context or config.get_text_config().max_position_embeddings
        options |= {
            "kv_cache_memory_bytes": settings.cache_gib << 30,
            # A prompt in parts rewinds its random numbers, which generators on the CPU cannot: vLLM 0.32 then dies.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(_CPU_PREFILL_TOKENS, longest),
        }
    return options


def _require_build(settings: VllmSettings) -> None:
    from vllm.platforms import current_platform

    if current_platform.is_cpu() != settings.on_cpu:
        raise ConfigError(
            f"vllm.device={settings.device} asks for {'the CPU' if settings.on_cpu else 'a GPU'}, but vLLM "
            f"finds {current_platform.device_name or 'no device that it was built for'} here; leave vllm.device on "
            "auto, or install the other build of vLLM"
        )


@contextmanager
def environment(target: str, settings: VllmSettings) -> Iterator[None]:
    """Variables for vLLM's processes. The libraries that it has them load first are for no other program to load."""
    changes = _variables(target, settings)
    before = {name: os.environ.get(name) for name in (*changes, "LD_PRELOAD")}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _variables(target: str, settings: VllmSettings) -> dict[str, str]:
    variables = {"HF_HUB_OFFLINE": "1"} if Path(target).is_dir() else {}
    if settings.on_cpu:
        variables |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the model runs in vLLM's process itself, not in yet another
            "OMP_NUM_THREADS": str(settings.threads),
            "TORCHDYNAMO_DISABLE": "1",  # compiling needs a C++ compiler, and stalls the first requests for seconds
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore::FutureWarning"])),
        }
    return variables


def _silent_stats() -> Any:
    """A logger of statistics that logs none: with one, vLLM says of each request when it was first scheduled."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Silent(StatLoggerBase):
        def __init__(self, vllm_config: Any, engine_index: int = 0):
            pass

        def record(self, *args: Any, **kwargs: Any) -> None:
            pass

        def log_engine_initialized(self) -> None:
            pass

    return Silent


def _rank(wanted: int) -> int:
    """The smallest rank that vLLM has kernels for and that is enough."""
    from vllm.config.lora import MaxLoRARanks

    ranks = get_args(MaxLoRARanks)
    if wanted > max(ranks):
        raise ConfigError(f"vllm.max_rank: vLLM serves adapters up to rank {max(ranks)}, found {wanted}")
    return min(rank for rank in ranks if rank >= wanted)


def said(error: Exception) -> str:
    """What vLLM's error says, in one line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}" if lines else type(error).__name__
