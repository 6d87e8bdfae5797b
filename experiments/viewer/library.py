"""WIP"""

from pathlib import Path

from envs.errors import ConfigError


class NotThereError(ConfigError):
    """There is no such run, episode or turn."""


class Library:
    def __init__(self, root: Path):
        self.root = root
