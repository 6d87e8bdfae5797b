"""`palaestra serve`: tasks are handed out over HTTP, and agents in other programs play them.

Each task handed out is an episode like any other: its graph is one node that waits for the answer. So it is judged,
stored, shown and compared as those of `palaestra run` are. What is open is in memory, what has ended is on disk.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from agents.company import Company
from envs.errors import clip
from envs.types import Task
from experiments.gateway.agent import outside
from experiments.gateway.episodes import RETRY_S, Gateway, OpenEpisode, RefusedError
from experiments.gateway.replies import Json
from experiments.plan import Plan
from experiments.runner import store
from experiments.store import StoreWriter
from graphs.play import play
from graphs.record import Recorder
from graphs.table import Stage
from graphs.topology import Topology
from graphs.turns import Episode


class AbandonedError(Exception):
    """An episode that ended without an answer."""


class Start(BaseModel):
    """Which episode to open; the next one when no task is named."""

    model_config = ConfigDict(extra="forbid")

    task: str | None = None
    sample: int | None = Field(default=None, ge=0)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    answer: str | None
    """Null: the agents came to none."""


@dataclass
class _Place:
    """An episode that somebody outside plays."""

    id: str
    gateway: Gateway
    idle_s: float
    opened: "asyncio.Future[OpenEpisode]" = field(default_factory=asyncio.Future)
    answer: "asyncio.Future[str | AbandonedError | None]" = field(default_factory=asyncio.Future)
    ended: "asyncio.Future[Episode]" = field(default_factory=asyncio.Future)


_place: ContextVar[_Place] = ContextVar("palaestra_place")


def served_topology(roles: tuple[str, ...]) -> Topology:
    """One node, that waits for the answer from outside."""
    return outside("serve", roles, _answered)


async def _answered(_: Stage, recorder: Recorder) -> str | None:
    place = _place.get()
    with place.gateway.admit(recorder, place.id) as episode:
        place.opened.set_result(episode)
        while (left := place.idle_s - episode.idle_s) > 0:
            await asyncio.wait({place.answer}, timeout=left)
            if place.answer.done():
                found = place.answer.result()
                if isinstance(found, AbandonedError):
                    raise found
                return found
    raise AbandonedError(f"nothing was asked for {place.idle_s:g} s")


class Handout:
    """The episodes of a plan, each handed out once. An episode's id is its number in the run, from 1."""

    def __init__(
        self,
        plan: Plan,
        company: Company,
        writer: StoreWriter,
        gateway: Gateway,
        idle_s: float,
        group: asyncio.TaskGroup,
    ):
        """
        Args:
            plan: its tasks and samples are handed out in order; at most `concurrency` are open at once.
            company: plays the roles.
            writer: takes the episodes that have ended.
            gateway: takes the calls of those that are open.
            idle_s: after so long without a call an episode is given up.
            group: its tasks play the episodes; a store that cannot be written ends it.
        """
        self._plan, self._company, self._writer, self._gateway = plan, company, writer, gateway
        self._idle_s, self._group = idle_s, group
        self._jobs = {(task.id, sample): (position, task) for position, task, sample in plan.jobs()}
        self._next = iter(list(self._jobs))
        self._places: dict[str, _Place] = {}
        self._handed_out: set[int] = set()
        self.failed = 0
        """Episodes that failed."""

    async def open(self, start: Start) -> tuple[Task, int, OpenEpisode]:
        """Hand out an episode.

        Raises:
            RefusedError: no such task, one that was handed out before, none left, too many open.
        """
        self._gateway.check_open()
        if len(self._places) >= self._plan.concurrency:
            many = f"{len(self._places)} episodes are open; end one, wait {RETRY_S} s, or raise --concurrency"
            raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS, many, "too_many_episodes")
        position, task, sample = self._chosen(start) if start.task is not None else self._following()
        self._handed_out.add(position)
        id = str(position + 1)
        place = self._places[id] = _Place(id, self._gateway, self._idle_s)
        self._group.create_task(self._play(position, task, sample, place))
        return task, sample, await place.opened

    async def answer(self, id: str, answer: str | None) -> Episode:
        """Take the answer to an open episode, and judge it.

        Raises:
            RefusedError: it is not open.
        """
        place = self._open_place(id)
        place.answer.set_result(answer)
        return await asyncio.shield(place.ended)

    async def abandon(self, id: str, why: str) -> Episode:
        """End an open episode as failed; its turns are kept.

        Raises:
            RefusedError: it is not open.
        """
        place = self._open_place(id)
        place.answer.set_result(AbandonedError(why))
        return await asyncio.shield(place.ended)

    async def close(self) -> None:
        """End all that is open as failed; the gateway is closing."""
        places = list(self._places.values())
        for place in places:
            if not place.answer.done():
                place.answer.set_result(AbandonedError("the server was stopped"))
        await asyncio.gather(*(place.ended for place in places))

    async def _play(self, position: int, task: Task, sample: int, place: _Place) -> None:
        _place.set(place)
        plan = self._plan
        try:
            episode = await play(plan.topology, plan.env, task, self._company, plan.seed, sample)
            stored = await store(self._writer, position, episode)
            self.failed += stored.failure is not None
            place.ended.set_result(stored)
        finally:
            del self._places[place.id]
            for waiting in (place.opened, place.ended):
                waiting.cancel()

    def _open_place(self, id: str) -> _Place:
        place = self._places.get(id)
        if place is not None and not place.answer.done():
            return place
        if place is not None or (id.isdecimal() and int(id) - 1 in self._handed_out):
            raise RefusedError(HTTPStatus.CONFLICT, f"episode {id} has ended", "episode_ended")
        raise RefusedError(
            HTTPStatus.NOT_FOUND, f"no episode {clip(id)}; POST /episodes opens one", "episode_not_found"
        )

    def _following(self) -> tuple[int, Task, int]:
        for task_id, sample in self._next:
            position, task = self._jobs[task_id, sample]
            if position not in self._handed_out:
                return position, task, sample
        raise RefusedError(
            HTTPStatus.NOT_FOUND, f"all {len(self._jobs)} episodes have been handed out", "no_tasks_left"
        )

    def _chosen(self, start: Start) -> tuple[int, Task, int]:
        assert start.task is not None
        samples = range(self._plan.samples) if start.sample is None else (start.sample,)
        for sample in samples:
            found = self._jobs.get((start.task, sample))
            if found is None:
                what = f"this run has no task {clip(start.task)}, sample {sample}; name none for the next one"
                raise RefusedError(HTTPStatus.NOT_FOUND, what, "task_not_found")
            if found[0] not in self._handed_out:
                return *found, sample
        raise RefusedError(HTTPStatus.CONFLICT, f"task {clip(start.task)} has been handed out", "task_handed_out")


def alone(plan: Plan, company: Company) -> Callable[[], Recorder]:
    """Makes recorders for calls that name no episode: answered, with a seed of their own each, and not stored."""
    numbers: Iterator[int] = itertools.count()
    nothing = Task(id="", question="", answers=())
    return lambda: Recorder(Stage(company, plan.env, nothing, plan.seed, next(numbers)))


def routes(handout: Handout, gateway: Gateway) -> APIRouter:
    """`POST /episodes`, `POST /episodes/{id}/answer`, `DELETE /episodes/{id}`."""
    router = APIRouter()

    @router.post("/episodes", status_code=HTTPStatus.CREATED)
    async def open_(request: Request, start: Start | None = None) -> Json:
        task, sample, episode = await handout.open(start or Start())
        return {
            "id": episode.id,
            "task": task.id,
            "sample": sample,
            "question": task.question,
            "base_url": gateway.base_url(episode, str(request.base_url).rstrip("/")),
            "roles": list(gateway.roles),
        }

    @router.post("/episodes/{id}/answer")
    async def answer(id: str, given: Answer) -> Json:
        return _outcome(id, await handout.answer(id, given.answer))

    @router.delete("/episodes/{id}")
    async def abandon(id: str) -> Json:
        return _outcome(id, await handout.abandon(id, "given up by its client"))

    return router


def _outcome(id: str, episode: Episode) -> Json:
    verdict = episode.verdict
    return {
        "id": id,
        "task": episode.task.id,
        "answer": episode.answer,
        "status": verdict.status if verdict else "failed",
        "score": verdict.score if verdict else None,
        "reason": verdict.reason if verdict else episode.failure,
        "calls": episode.calls,
    }
