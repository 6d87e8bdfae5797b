"""Ray: connecting to it, starting it, and finding out beforehand what it lacks."""

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterable

from agents.engines import ModelSpec
from envs.errors import ConfigError

logger = logging.getLogger("palaestra.pool")


def start_ray(address: str | None = None) -> bool:
    """Connect to Ray, or start it on this machine; usage reports stay off unless RAY_USAGE_STATS_ENABLED is set.

    Args:
        address: of a cluster; None takes the one that RAY_ADDRESS names or that runs on this machine, else starts one.

    Returns:
        whether it was this call that started it: then `ray.shutdown()` is the caller's to do.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    _require_reachable(address)
    if ray.is_initialized():
        return False
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ImportError, ValueError) as error:
        if address is None:
            raise
        raise ConfigError(f"no Ray cluster answers at {address}: {last_line(error)}") from None
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray puts in one of its own
    return True


def require_resources(specs: Iterable[ModelSpec], may_grow: bool) -> None:
    """Compare what pools will ask for with what Ray has: it would wait for it for ever, and say nothing.

    Raises:
        ConfigError: there is too little; with `may_grow`, for a cluster that adds machines by itself, only a warning.
    """
    import ray

    asked: dict[str, float] = {}
    for spec in specs:
        wanted = {"GPU": spec.gpus, **({spec.pool.resource: 1.0} if spec.pool.resource else {})}
        for name, each in wanted.items():
            asked[name] = asked.get(name, 0.0) + each * spec.pool.replicas
    have = ray.cluster_resources()
    for name, amount in asked.items():
        if amount <= have.get(name, 0.0):
            continue
        few = f"the pools ask for {amount:g} {'GPUs' if name == 'GPU' else name}, Ray has {have.get(name, 0.0):g}"
        if may_grow:
            logger.warning("%s; waiting for the cluster to grow", few)
            continue
        mend = "set engine.device=cpu (vllm.device=cpu), fewer pool.replicas, or a fraction with pool.gpus=0.5"
        if name != "GPU":
            mend = f"start Ray's nodes with --resources='{{\"{name}\": 1}}', or set fewer pool.replicas"
        raise ConfigError(f"{few}; {mend}")


def last_line(error: Exception) -> str:
    """What an exception says, without the traceback that Ray puts before it."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _require_reachable(address: str | None) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    found = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or "")
    if address is None or address in ("local", "auto"):
        return
    try:
        if found is None:
            raise OSError("expected HOST:PORT, ray://HOST:PORT, auto or local")
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}; start one or leave --address out") from None
