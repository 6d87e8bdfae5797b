"""Ray: connecting to it, starting it, what is asked of its machines, and finding out beforehand what they lack."""

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from agents.engines import ModelSpec
from agents.serving import read_labels
from envs.errors import ConfigError

logger = logging.getLogger("palaestra.pool")
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What opens an HTTP/2 connection, which Ray speaks; a server answers with a frame of type 4."""
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in what `ray job submit` started."""
PACKAGES = ("agents", "envs", "experiments", "graphs")
STAYS = ["/runs/", ".git/", ".venv*/", "__pycache__/", "node_modules/"]
"""Of a working directory, what is not sent; beside what .gitignore and .rayignore name."""
SLACK = 1e-6
"""Sums of fractions of GPUs drift."""


@dataclass(frozen=True)
class Ask:
    """What processes ask of the machines that they are put on; each is on one machine as a whole."""

    who: str
    """For messages: who asks."""
    resources: Mapping[str, float]
    """Of each process: GPU, CPU, or a resource that nodes were started with."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """That its node must have; Ray's label selectors."""
    count: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "resources", {name: float(n) for name, n in self.resources.items() if n})

    def options(self) -> dict[str, Any]:
        """The actor's options: no CPU unless asked for, and it is not restarted by Ray."""
        own = {name: amount for name, amount in self.resources.items() if name not in ("CPU", "GPU")}
        return {
            "num_cpus": self.resources.get("CPU", 0.0),
            "num_gpus": self.resources.get("GPU", 0.0),
            "resources": own,
            "label_selector": dict(self.labels) or None,
            "max_restarts": 0,
        }

    def fits(self, node: Mapping[str, Any]) -> int:
        """How many of the processes a node that is alive (of `ray.nodes()`) takes when it is empty."""
        if not all(_selects(node["Labels"].get(key), value) for key, value in self.labels.items()):
            return 0
        room = [int(node["Resources"].get(name, 0.0) / each + SLACK) for name, each in self.resources.items()]
        return min([self.count, *room])


def replicas_ask(spec: ModelSpec) -> Ask:
    """What the replicas of a pool ask for."""
    resources = {"GPU": spec.gpus, **({spec.pool.resource: 1.0} if spec.pool.resource else {})}
    return Ask("the pools", resources, read_labels(spec.pool.labels), spec.pool.replicas)


def start_ray(address: str | None = None, ship: bool = False) -> bool:
    """Connect to Ray, or start it on this machine; usage reports stay off unless RAY_USAGE_STATS_ENABLED is set.

    Args:
        address: `local` starts one; `auto` and HOST:PORT are a cluster that runs; None takes the one that RAY_ADDRESS
            names or that runs on this machine, else starts one.
        ship: whether all processes are to run in a copy of the working directory, which is sent to every machine; one
            that `ray job submit` has sent already stays.

    Returns:
        whether it was this call that connected: then `ray.shutdown()` is the caller's to do. A process that is
        connected stays so.

    Raises:
        ConfigError: no cluster answers there, or the working directory is too large.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    _require_reachable(address or os.environ.get("RAY_ADDRESS"))
    if ray.is_initialized():
        return False
    from ray.exceptions import RuntimeEnvSetupError

    shipped = _shipped() if ship and IN_JOB not in os.environ else None
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=shipped,
        )
    except RuntimeEnvSetupError as error:
        raise ConfigError(
            f"the working directory cannot be sent to the cluster: {last_line(error)}; name what is to stay in "
            f"{Path.cwd() / '.rayignore'}, and large weights by their place on a file system that all machines share"
        ) from None
    # Ray ends the process when what answers is no head of a cluster.
    except (ConnectionError, ImportError, ValueError, SystemExit) as error:
        if address is None and not isinstance(error, SystemExit):
            raise
        raise ConfigError(f"no Ray cluster answers at {address}: {last_line(error)}") from None
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray puts in one of its own
    return True


@contextmanager
def connected(address: str | None = None, ship: bool = False) -> Iterator[None]:
    """Ray, for as long as it is needed; see start_ray."""
    started = start_ray(address, ship)
    try:
        yield
    finally:
        if started:
            import ray

            ray.shutdown()


def as_shipped(path: str) -> str:
    """A path as the cluster's processes have it: where the working directory was sent to them, relative to it.

    What is never sent stays where it is: on a file system that all machines share, or nowhere.
    """
    import ray

    here = Path.cwd()
    sent = ray.get_runtime_context().runtime_env.get("working_dir")
    if not sent or not Path(path).is_relative_to(here):
        return path
    relative = Path(path).relative_to(here)
    stays = any(fnmatch(part, pattern.strip("/")) for part in relative.parts for pattern in STAYS)
    return path if stays else str(relative)


def may_grow(address: str | None) -> bool:
    """Whether a cluster may get more machines than it has: not where it is this one."""
    return address not in (None, "local")


def require_resources(asks: Iterable[Ask], may_grow: bool) -> None:
    """Compare what will be asked for with what Ray's machines have: it would wait for it for ever, and say nothing.

    What is found is that all machines together have too little, or that too few of them can take a process whole.

    Raises:
        ConfigError: there is too little; with `may_grow`, for a cluster that adds machines by itself, only a warning.
    """
    import ray

    for name, what in lacking(list(asks), ray.nodes()):
        if not may_grow:
            raise ConfigError(f"{what}; {_mend(name)}")
        logger.warning("%s; waiting for the cluster to grow", what)
        return


def lacking(asks: Sequence[Ask], nodes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Of what there is too little, and the lack in words."""
    alive = [node for node in nodes if node["Alive"]]
    total: dict[tuple[str, str], float] = {}
    for ask in asks:
        for name, each in ask.resources.items():
            total[ask.who, name] = total.get((ask.who, name), 0.0) + each * ask.count
    for (who, name), amount in total.items():
        have = sum(node["Resources"].get(name, 0.0) for node in alive)
        if amount > have + SLACK:
            yield name, f"{who} ask for {amount:g} {_plural(name)}, Ray has {have:g}"
    for ask in asks:
        room = sum(ask.fits(node) for node in alive)
        if room < ask.count:
            each = [f"{amount:g} {_plural(name)}" for name, amount in ask.resources.items()]
            each += [f"{key}={value}" for key, value in ask.labels.items()]
            what = f"{ask.who} ask {ask.count} times for {' and '.join(each)} on one machine"
            yield next(iter(ask.labels), _scarce(ask, alive)), f"{what}, Ray has it {room} times"


def _scarce(ask: Ask, nodes: Sequence[Mapping[str, Any]]) -> str:
    """The resource that keeps a process from a machine: one that none has enough of, else the first."""
    each = ask.resources.items()
    short = (name for name, n in each if all(node["Resources"].get(name, 0.0) + SLACK < n for node in nodes))
    return next(short, next(iter(ask.resources), "GPU"))


def last_line(error: BaseException) -> str:
    """What an exception says, without the traceback that Ray puts before it."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _shipped() -> dict[str, Any]:
    """Ray's runtime environment that sends the working directory; and these packages, where they are not installed."""
    code = Path(__file__).resolve().parents[1]
    environment: dict[str, Any] = {"working_dir": str(Path.cwd()), "excludes": STAYS}
    if code != Path.cwd() and not {"site-packages", "dist-packages"} & set(code.parts):
        environment["py_modules"] = [str(code / name) for name in ("palaestra.py", *PACKAGES)]
    return environment


def _require_reachable(address: str | None) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    if address in (None, "", "local", "auto"):
        return
    if address.startswith("ray://"):
        raise ConfigError(
            f"address {address} is one of Ray's client, where every call would go through a proxy: run the command on "
            "a machine of the cluster, as `ray job submit --address http://HOST:8265 -- palaestra run …` does, or give "
            "HOST:PORT of its head there (6379)"
        )
    try:
        if (found := re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", address)) is None:
            raise OSError("expected HOST:PORT, auto or local")
        with socket.create_connection((found[1], int(found[2])), timeout=10) as connection:
            connection.sendall(_HELLO)
            if connection.recv(9)[3:4] != b"\4":
                raise OSError("something else listens there; the port of a head is 6379 unless it was set")
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}; start one or leave --address out") from None


def _selects(label: str | None, selector: str) -> bool:
    """Whether a node's label is as Ray's selector wants it."""
    negated, values = selector.startswith("!"), selector.removeprefix("!")
    wanted = values[3:-1].split(",") if values.startswith("in(") else [values]
    return (label in wanted) != negated


def _plural(name: str) -> str:
    return "GPUs" if name == "GPU" else name


def _mend(name: str) -> str:
    if name == "GPU":
        return (
            "set engine.device=cpu (vllm.device=cpu), fewer pool.replicas (placement.workers), or a fraction with "
            "pool.gpus=0.5 (placement.gpus)"
        )
    if name == "CPU":
        return "ask for fewer placement.workers or less of placement.cpus, or add machines"
    return f"start Ray's nodes with --resources='{{\"{name}\": 1}}' (--labels='{name}=…'), or ask for fewer"
