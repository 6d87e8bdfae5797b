"""The company: a cast whose pools are open. It lives as long as a run; graphs ask its roles through it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from agents.cast import Cast, Seat
from agents.cluster import connected, may_grow, replicas_ask, require_resources
from agents.engines import ModelSpec
from agents.pool import LocalPool, Pool, RayPool
from agents.serving import Serving
from agents.types import Completion, EngineError, Request, Sampling
from envs.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from agents.embed import Embedder

Backend = Literal["ray", "local"]
Kept = TypeVar("Kept")


class Lasting:
    """What is opened when it is first asked for, and closed with the pools."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._opened: dict[str, asyncio.Future[Any]] = {}

    async def get(self, name: str, opens: Callable[[], AbstractAsyncContextManager[Kept]]) -> Kept:
        """What has a name; what keeps it from opening is raised whenever it is asked for."""
        if name not in self._opened:
            self._opened[name] = asyncio.ensure_future(self._stack.enter_async_context(opens()))
        return await asyncio.shield(self._opened[name])

    async def close(self) -> None:
        await asyncio.gather(*self._opened.values(), return_exceptions=True)
        await self._stack.aclose()


class Company:
    """Roles with the pools that answer for them."""

    def __init__(self, cast: Cast, pools: Mapping[ModelSpec, Pool], serving: Serving, lasting: Lasting):
        """
        Args:
            cast: who plays which role.
            pools: of the cast's models.
            serving: settings of engines and pools.
            lasting: what companies of the same pools open beside them, such as embedders.
        """
        self.lasting = lasting
        self.cast, self._pools, self._serving = cast, pools, serving
        self._filled: dict[str, tuple[Pool, str]] = {}
        """Role -> who answers for it, and under which policy."""

    def sampling(self, role: str, wishes: Mapping[str, Any] | None = None) -> Sampling:
        """How a role's replies are drawn.

        Args:
            role: must be cast.
            wishes: what the graph itself asks for, by the names of Sampling's fields; what the user set for the role
                goes before.
        """
        seat = self.cast.seat(role)
        wanted = {k: v for k, v in (wishes or {}).items() if v is not None and k not in seat.model_fields_set}
        return replace(seat.sampling, **wanted) if wanted else seat.sampling

    def structured(self, role: str) -> bool:
        """Whether the role's replies are to be held to the schema of moves that have one."""
        return self.cast.seat(role).structured

    def instructions(self, role: str) -> str | None:
        """The user's own instructions for a role; None leaves the topology's."""
        return self.cast.seat(role).instructions

    async def embed(self, texts: Sequence[str], embedder: str = "minilm", role: str = "") -> "np.ndarray":
        """Vectors of length 1: (len(texts), dimensions) float32; equal texts have equal vectors.

        Args:
            texts: at least one.
            embedder: `pool` for the model that answers for a role, without the role's adapter; else see agents.embed,
                loaded when first asked.
            role: whose pool is asked.

        Raises:
            ConfigError: an embedder that cannot be loaded.
            EngineError: a vector that is 0 or no number, an engine that gives none.
        """
        if embedder == "pool":
            return await self._fill(role)[0].embed(texts)
        loaded = await self.lasting.get(f"embedder {embedder}", lambda: _open_embedder(embedder))
        return await loaded.embed(texts)

    async def complete(self, role: str, request: Request) -> Completion:
        """Have a role's pool answer. Raises EngineError."""
        pool, policy = self._fill(role)
        if policy and not request.policy:
            request = replace(request, policy=policy)
        return await pool.complete(request)

    @property
    def pools(self) -> Mapping[ModelSpec, Pool]:
        """The pool of each model, for whoever publishes to it or asks for its health."""
        return self._pools

    def _fill(self, role: str) -> tuple[Pool, str]:
        if role not in self._filled:
            spec = self.cast.models([role], self._serving)[role]
            if spec not in self._pools:
                raise EngineError(f"nobody was told that {role} would be asked; name it in @topology(roles=…)")
            seat = self.cast.seat(role)
            policy = seat.policy or (adapter_policy(seat.adapter) if seat.adapter else "")
            self._filled[role] = self._pools[spec], policy
        return self._filled[role]


@asynccontextmanager
async def open_company(
    cast: Cast,
    roles: Iterable[str],
    backend: Backend = "ray",
    serving: Serving | None = None,
    address: str | None = None,
    ship: bool = False,
) -> AsyncIterator[Company]:
    """The company of one cast; see `open_companies`. With no roles, those that the cast names are opened."""
    async with open_companies([(cast, roles)], backend, serving, address, ship) as (company,):
        yield company


@asynccontextmanager
async def open_companies(
    casts: Sequence[tuple[Cast, Iterable[str]]],
    backend: Backend = "ray",
    serving: Serving | None = None,
    address: str | None = None,
    ship: bool = False,
) -> AsyncIterator[list[Company]]:
    """Open one pool a model, wait until all are loaded, and close them (and a Ray that this started) at the end.

    Args:
        casts: who plays which role, and the roles to be played; a model that several casts name is loaded once.
        backend: "ray" runs replicas as Ray actors, "local" runs engines in this process. Models that run elsewhere
            (endpoints) are always asked from this process; Ray is not started for them alone.
        serving: settings of engines and pools.
        address: of a Ray cluster; see agents.cluster.start_ray, also for `ship`.
        ship: see above.

    Raises:
        ConfigError: a role that nobody plays, a model that is not there (before anything is loaded).
        EngineError: a replica could not load its model.
    """
    serving = serving or Serving()
    seated = [pair for cast, roles in casts for pair in _seated(cast, roles, serving)]
    specs = {spec for _, spec in seated}
    adapters = {(spec, _checked_adapter(seat.adapter, spec)) for seat, spec in seated if seat.adapter}
    hosted = [] if backend == "local" else [spec for spec in specs if not spec.is_remote]
    pools: dict[ModelSpec, Pool] = {}
    lasting = Lasting()
    with connected(address, ship) if hosted else nullcontext():
        try:
            if hosted:
                require_resources(map(replicas_ask, hosted), may_grow=may_grow(address))
            for spec in specs:
                pools[spec] = RayPool(spec) if spec in hosted else LocalPool(spec)
            for opened in pools.values():
                await opened.ready()
            for spec, adapter in sorted(adapters, key=lambda pair: pair[1]):
                await pools[spec].publish(adapter_policy(adapter), _version(adapter), Path(adapter))
            yield [Company(cast, pools, serving, lasting) for cast, _ in casts]
        finally:
            await lasting.close()
            for opened in pools.values():
                await opened.close()


@asynccontextmanager
async def _open_embedder(name: str) -> "AsyncIterator[Embedder]":
    from agents.embed import Embedder

    embedder = await asyncio.to_thread(Embedder, name)
    try:
        yield embedder
    finally:
        embedder.close()


def adapter_policy(directory: str) -> str:
    """The name that a seat's adapter is published under: its folder's, and what tells apart folders of one name."""
    path = Path(directory).resolve()
    return f"{path.name}-{sha256(str(path).encode()).hexdigest()[:6]}"


def _version(adapter: str) -> str:
    from agents.engines.weights import weights_version

    return weights_version(Path(adapter))


def _checked_adapter(directory: str, spec: ModelSpec) -> str:
    if spec.kind in ("openai", "replay", "simulated"):
        raise ConfigError(
            f"adapter {directory}: {spec.name} takes none; name an adapter that the server has as the model, or take "
            "embedded, hf:DIR or vllm:DIR"
        )
    if not (Path(directory) / "adapter_config.json").is_file():
        raise ConfigError(
            f"adapter {directory}: expected a folder in PEFT's format, found no adapter_config.json in it"
        )
    return str(Path(directory).resolve())


def _seated(cast: Cast, roles: Iterable[str], serving: Serving) -> list[tuple[Seat, ModelSpec]]:
    """The seats to be filled, each with its model; without roles, all of the cast."""
    known = list(roles)
    seated = [(cast.seat(role), spec) for role, spec in cast.models(known or cast.seats, serving).items()]
    if not known and cast.default is not None:
        seated.append((cast.default, Cast(cast.default).models(["*"], serving)["*"]))
    return seated
