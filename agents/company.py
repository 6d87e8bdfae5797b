"""The company: a cast whose pools are open. It lives as long as a run; graphs ask its roles through it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from agents.cast import Cast
from agents.engines import EngineSettings, ModelSpec
from agents.pool import LocalPool, Pool, PoolSettings, RayPool, require_gpus, start_ray
from agents.types import Completion, EngineError, Request, Sampling

Backend = Literal["ray", "local"]


class Company:
    """Roles with the pools that answer for them."""

    def __init__(self, cast: Cast, pools: Mapping[ModelSpec, Pool], engine: EngineSettings | None):
        self._cast, self._pools, self._engine = cast, pools, engine
        self._pool_of: dict[str, Pool] = {}

    def sampling(self, role: str) -> Sampling:
        return self._cast.seat(role).sampling

    def instructions(self, role: str) -> str | None:
        """The user's own instructions for a role; None leaves the topology's."""
        return self._cast.seat(role).instructions

    async def complete(self, role: str, request: Request) -> Completion:
        """Have a role's pool answer. Raises EngineError."""
        pool = self._pool_of.get(role)
        if pool is None:
            spec = self._cast.models([role], self._engine)[role]
            if spec not in self._pools:
                raise EngineError(f"nobody was told that {role} would be asked; name it in @topology(roles=…)")
            pool = self._pool_of[role] = self._pools[spec]
        return await pool.complete(request)


@asynccontextmanager
async def open_company(
    cast: Cast,
    roles: Iterable[str],
    backend: Backend = "ray",
    engine: EngineSettings | None = None,
    pool: PoolSettings | None = None,
    address: str | None = None,
) -> AsyncIterator[Company]:
    """Open one pool a model, wait until all are loaded, and close them (and a Ray that this started) at the end.

    Args:
        cast: who plays which role.
        roles: the roles to be played; with none, those that the cast names.
        backend: "ray" runs replicas as Ray actors, "local" runs engines in this process.
        engine: settings of transformers engines.
        pool: settings of each pool.
        address: of a Ray cluster; see agents.pool.start_ray.

    Raises:
        ConfigError: a role that nobody plays, a model that is not there (before anything is loaded).
        EngineError: a replica could not load its model.
    """
    specs = _distinct(cast, roles, engine)
    started_ray = start_ray(address) if backend == "ray" else False
    kind = RayPool if backend == "ray" else LocalPool
    pools: dict[ModelSpec, Pool] = {}
    try:
        if backend == "ray":
            require_gpus(specs, pool or PoolSettings(), may_grow=address is not None)
        for spec in specs:
            pools[spec] = kind(spec, pool or PoolSettings())
        for opened in pools.values():
            await opened.ready()
        yield Company(cast, pools, engine)
    finally:
        for opened in pools.values():
            await opened.close()
        if started_ray:
            import ray

            ray.shutdown()


def _distinct(cast: Cast, roles: Iterable[str], engine: EngineSettings | None) -> set[ModelSpec]:
    known = list(roles)
    if known:
        return set(cast.models(known, engine).values())
    specs = set(cast.models(cast.seats, engine).values())
    if cast.default is not None:
        specs |= set(Cast(cast.default).models(["*"], engine).values())
    return specs
