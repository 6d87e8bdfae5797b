"""The registry of policies: every version of their weights, where it lies, and which may be dropped from disk.

Versions are immutable: a version is entered once, with its folder, and its weights are never written again. Frozen ones
(pinned) stay on disk as opponents; `rollback` makes an earlier one current. What opponents won against one another is
kept by experiments.training.league.
"""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agents.probe import Probe
from envs.errors import ConfigError, clip, nearest
from experiments.folder import write_whole

FILE = "registry.json"
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Version:
    """Weights of a policy."""

    policy: str
    version: str
    updates: int
    """After how many of the run."""
    directory: str
    """Absolute, or relative to the registry's folder."""
    probe: Probe | None = None
    """How the trainer scored it: what every replica is checked against."""
    pinned: bool = False
    on_disk: bool = True
    """False once its weights have been dropped."""


@dataclass
class Registry:
    """The versions of a run's policies. Written to disk at every change."""

    root: Path
    _versions: list[Version] = field(default_factory=list)
    _current: dict[str, str] = field(default_factory=dict)
    """Policy -> the version that was rolled back to."""

    @classmethod
    def open(cls, root: Path) -> "Registry":
        """The registry of a folder, or an empty one.

        Raises:
            ConfigError: the file cannot be read.
        """
        path = root / FILE
        if not path.is_file():
            return cls(root)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(root, [_read(entry) for entry in stored["versions"]], stored["current"])
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path} is no registry of policies: {type(error).__name__}: {error}") from None

    def versions(self, policy: str) -> list[Version]:
        """The oldest first."""
        return [version for version in self._versions if version.policy == policy]

    def add(self, version: Version) -> Version:
        """Enter new weights, which become current.

        Raises:
            ConfigError: the version is there already.
        """
        if any(v.version == version.version for v in self.versions(version.policy)):
            raise ConfigError(
                f"policy {version.policy}: version {version.version} is entered already; it never changes"
            )
        self._versions.append(version)
        self._current.pop(version.policy, None)
        self._write()
        return version

    def get(self, policy: str, version: str) -> Version:
        """Raises ConfigError when there is none."""
        found = {v.version: v for v in self.versions(policy)}
        if version not in found:
            raise ConfigError(f"policy {policy} has no version {clip(version)}; {nearest(version, found)}")
        return found[version]

    def current(self, policy: str) -> Version:
        """The newest, or that which was rolled back to. Raises ConfigError when there is none."""
        if policy in self._current:
            return self.get(policy, self._current[policy])
        return self.at(policy)

    def at(self, policy: str, updates: int | None = None) -> Version:
        """The newest after so many updates of the run. Raises ConfigError when there is none."""
        found = [v for v in self.versions(policy) if updates is None or v.updates <= updates]
        if not found:
            raise ConfigError(
                f"policy {clip(policy)} has no version; {nearest(policy, {v.policy for v in self._versions})}"
            )
        return found[-1]

    def rollback(self, policy: str, version: str) -> Version:
        """Make an earlier version current, until another is added. Later ones stay what they are.

        Raises:
            ConfigError: there is no such version, or its weights were dropped.
        """
        found = self._kept(policy, version)
        self._current[policy] = version
        self._write()
        return found

    def pin(self, policy: str, version: str) -> None:
        """Freeze a version: its weights stay on disk."""
        self._change(self.get(policy, version), pinned=True)

    def opponent(self, policy: str, version: str) -> dict[str, str]:
        """A seat's settings that have a role played by this version, and pin it: as a frozen opponent it must stay.

        Raises:
            ConfigError: there is no such version, or its weights were dropped.
        """
        found = self._kept(policy, version)
        self.pin(policy, version)
        return seat_settings(self.path(found))

    def drop(self, before: int, but: Collection[Version] = ()) -> None:
        """Remove the weights of versions that are older than so many updates, but the first, pinned and named ones."""
        for version in list(self._versions):
            ours = not Path(version.directory).is_absolute()
            keeps = version.pinned or version in but or version == self.versions(version.policy)[0]
            if ours and version.on_disk and version.updates < before and not keeps:
                # First the entry: a kill between the two must not leave one without weights.
                self._change(version, on_disk=False)
                shutil.rmtree(self.path(version), ignore_errors=True)

    def forget(self, after: int) -> None:
        """Strike versions from after so many updates, and their weights: those of a run that was killed."""
        self._versions = [version for version in self._versions if version.updates <= after]
        self._write()
        for path in self.root.glob("*/*"):
            if path.is_dir() and not (path.name.isdigit() and int(path.name) <= after):
                shutil.rmtree(path)

    def remove(self, directory: Path) -> None:
        """Remove a folder of weights that was not entered."""
        shutil.rmtree(directory)

    def path(self, version: Version) -> Path:
        """The folder of its weights."""
        return self.root / version.directory

    def _kept(self, policy: str, version: str) -> Version:
        found = self.get(policy, version)
        if not found.on_disk:
            raise ConfigError(
                f"policy {policy}: the weights of {version} were dropped; set keep=all, or pin what is needed"
            )
        return found

    def _change(self, version: Version, **changes: Any) -> None:
        self._versions[self._versions.index(version)] = replace(version, **changes)
        self._write()

    def _write(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        stored = {"versions": [asdict(version) for version in self._versions], "current": self._current}
        write_whole(self.root / FILE, stored)


def seat_settings(directory: Path) -> dict[str, str]:
    """A seat's settings that have a role played by weights in a folder: an adapter on its model, or a model."""
    return {"adapter": str(directory)} if (directory / ADAPTER).is_file() else {"model": f"hf:{directory}"}


def _read(entry: Mapping[str, Any]) -> Version:
    probe = entry["probe"]
    return Version(**{**entry, "probe": probe and Probe(tuple(probe["ids"]), tuple(probe["logprobs"]))})
