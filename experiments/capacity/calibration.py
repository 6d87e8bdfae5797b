"""The costs of an engine's step from a few runs whose time was taken: `[engines."MODEL@GPU"]` of a hardware file.

A simulated run says how many steps, prompts and tokens there were; what each costs is the non-negative least-squares
fit of the seconds (Lawson and Hanson 1974, scipy's nnls), relative errors alike. Which requests meet in a step depends
on the costs a little, so that it is simulated and fitted twice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from agents.simulation import Costs, Limits
from agents.simulation.hardware import Served
from envs.errors import ConfigError
from experiments.capacity.fleet import simulate
from experiments.capacity.shapes import Shape

_TERMS = {
    "steps": "pass_s",
    "admitting": "admit_s",
    "requests": "request_s",
    "prompt": "prompt_s",
    "decoded": "decode_s",
    "context": "context_s",
}
"""What a batch counts -> its cost."""
_FIRST = Costs(pass_s=1e-3, prompt_s=1e-5, decode_s=1e-5)


@dataclass(frozen=True)
class Load:
    """A run whose time was taken."""

    episodes: Sequence[tuple[int, Shape]]
    """As for `simulate`: those that were played, in order."""
    concurrency: int
    seconds: float


def fit(loads: Sequence[Load], limits: Limits) -> Costs:
    """The costs under which simulated runs take what was measured.

    What goes on in the playing process is part of them, so that they hold for runs played in the same way.

    Raises:
        ConfigError: fewer loads than costs.
    """
    import numpy as np
    from scipy.optimize import nnls

    if len(loads) < len(_TERMS):
        raise ConfigError(f"expected at least {len(_TERMS)} runs to fit as many costs, found {len(loads)}")
    costs = _FIRST
    for _ in range(2):
        served = Served(costs, limits, 1, True)
        counts = [simulate(load.episodes, served, 1, load.concurrency).counts for load in loads]
        terms = np.array([[found[term] for term in _TERMS] for found in counts], float)
        rows = terms / np.array([[load.seconds] for load in loads])
        # Columns of like size: seconds a token and seconds a step are orders of magnitude apart.
        size = np.maximum(np.abs(rows).max(axis=0), 1e-300)
        found, _ = nnls(rows / size, np.ones(len(loads)))
        costs = Costs(**dict(zip(_TERMS.values(), map(float, found / size), strict=True)))
    return costs


def predict(load: Load, costs: Costs, limits: Limits) -> float:
    """Seconds that a load takes by simulation; what was measured of it is not looked at."""
    return simulate(load.episodes, Served(costs, limits, 1, True), 1, load.concurrency).seconds


def to_toml(name: str, costs: Costs, limits: Limits, source: str) -> str:
    """The section of a hardware file."""
    lines = [f'[engines."{name}"]', *(f"{key} = {value:.6g}" for key, value in asdict(costs).items())]
    lines += [f"{key} = {str(value).lower()}" for key, value in asdict(limits).items()]
    return "\n".join([*lines, f'source = "{source}"', ""])
