"""The league: games between versions of policies, whom to play next, and ratings.

Equal opponents teach most: a game that is always won or lost has no advantage to learn from (SPC pairs its critic with
a weaker generator for that). Ratings are of openskill's Plackett-Luce model, over all games in the order of playing.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from envs.errors import ConfigError
from experiments.folder import write_whole

FILE = "league.json"


@dataclass(frozen=True)
class Game:
    """One game of two players."""

    one: str
    """As `league` names it: `policy@version`."""
    other: str
    score: float
    """Of `one`: 1 for a win, 0 for a loss, between them for a draw or a mean of several."""


@dataclass(frozen=True)
class Rating:
    """How strong a player is believed to be, and how sure that is."""

    mu: float
    sigma: float

    @property
    def at_least(self) -> float:
        """What it surpasses in all likelihood: mu less three sigma."""
        return self.mu - 3 * self.sigma


@dataclass
class League:
    """Games, kept on disk."""

    root: Path
    games: list[Game] = field(default_factory=list)

    @classmethod
    def open(cls, root: Path) -> "League":
        """The league of a folder, or an empty one.

        Raises:
            ConfigError: the file cannot be read.
        """
        path = root / FILE
        if not path.is_file():
            return cls(root)
        try:
            return cls(root, [Game(**game) for game in json.loads(path.read_text(encoding="utf-8"))])
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is no league: {type(error).__name__}: {error}") from None

    def record(self, games: Sequence[Game]) -> None:
        """Add games, in the order in which they were played.

        Raises:
            ConfigError: a score outside of 0 to 1, or a game against oneself.
        """
        for game in games:
            if not 0 <= game.score <= 1 or game.one == game.other:
                raise ConfigError(f"expected a score from 0 to 1 of a game between two players, found {game}")
        self.games += games
        self.root.mkdir(parents=True, exist_ok=True)
        write_whole(self.root / FILE, [asdict(game) for game in self.games])

    def win_rate(self, one: str, other: str) -> float:
        """How often `one` wins against `other`: one win and one loss are added, so that the unknown is even."""
        won = [game.score for game in self.games if (game.one, game.other) == (one, other)]
        won += [1 - game.score for game in self.games if (game.one, game.other) == (other, one)]
        return (sum(won) + 1) / (len(won) + 2)

    def fairest(self, one: str, others: Sequence[str]) -> str:
        """The opponent whose win rate is nearest to a half; the first among equals."""
        return min(others, key=lambda other: abs(self.win_rate(one, other) - 0.5))

    def draw(self, one: str, others: Sequence[str], seed: int) -> str:
        """An opponent, the likelier the nearer its win rate is to a half: in proportion to p (1 - p)."""
        rates = [self.win_rate(one, other) for other in others]
        return random.Random(seed).choices(list(others), [rate * (1 - rate) for rate in rates])[0]

    def ratings(self) -> Mapping[str, Rating]:
        """Player -> rating, the strongest first."""
        from openskill.models import PlackettLuce

        model = PlackettLuce()
        found = {}
        for game in self.games:
            sides = [[found.get(name) or model.rating()] for name in (game.one, game.other)]
            (one,), (other,) = model.rate(sides, scores=[game.score, 1 - game.score])
            found |= {game.one: one, game.other: other}
        ranked = sorted(found.items(), key=lambda pair: -pair[1].mu)
        return {name: Rating(rating.mu, rating.sigma) for name, rating in ranked}
