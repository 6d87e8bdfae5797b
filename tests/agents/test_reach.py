"""Which Ray an address names, what is asked of its machines, and what is said when they have too little."""

import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cluster import Ask, lacking, replicas_ask, start_ray
from agents.engines import ModelSpec
from agents.learning.trainer_settings import Placement
from agents.serving import EngineSettings, PoolSettings, read_labels
from envs import ConfigError


@pytest.fixture
def web_server() -> Iterator[str]:
    """The address of something that listens and is no cluster's head: Ray's dashboard is such."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_no_head_of_a_cluster_is_refused_at_once(web_server: str) -> None:
    started = time.monotonic()
    for address, what in (
        (web_server, "something else listens there; the port of a head is 6379"),
        ("127.0.0.1:1", "refused"),
        ("cluster", "expected HOST:PORT, auto or local"),
    ):
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at {address}: .*{what}"):
            start_ray(address)
    assert time.monotonic() - started < 30


def test_ray_s_client_is_refused_with_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="ray job submit --address"):
        start_ray("ray://head:10001")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match="ray job submit --address"):
        start_ray()


def node(zone: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Labels": {"zone": zone} if zone else {}, "Resources": resources}


NAMES = st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True)
VALUES = st.one_of(NAMES, NAMES.map("!{}".format), st.lists(NAMES, min_size=1).map(lambda n: f"in({','.join(n)})"))


@given(st.dictionaries(NAMES.map("ray.io/{}".format) | NAMES, VALUES | VALUES.map(lambda v: "!" + v.lstrip("!"))))
def test_labels_are_read_as_they_are_written(labels: dict[str, str]) -> None:
    assert read_labels(", ".join(f"{key}={value}" for key, value in labels.items())) == labels


@pytest.mark.parametrize("text", ["zone", "zone=", "=a", "zone=in(a", "zone=a;b", "zone=a,", "zone=a b"])
def test_labels_of_another_form_are_refused_where_they_are_set(text: str) -> None:
    for settings in (PoolSettings, Placement):
        with pytest.raises(ConfigError, match="expected KEY=VALUE with commas between"):
            settings(labels=text)


def test_a_machine_takes_as_many_as_it_has_room_and_labels_for() -> None:
    def room(machine: dict[str, Any], labels: str = "", **each: float) -> int:
        return Ask("it", each, read_labels(labels), 9).fits(machine)

    assert room(node("a", GPU=2), GPU=0.3) == 6 and room(node("a", GPU=1), GPU=0.1) == 9
    assert room(node("a", GPU=4, fast=1), GPU=1, fast=1) == 1 and room(node("a", GPU=1), GPU=2) == 0
    assert room(node("a")) == 9 and room(node("a"), "zone=!a") == 0 and room(node(""), "zone=!a") == 9
    assert room(node("b"), "zone=in(a,b)") == 9 and room(node("c"), "zone=in(a,b)") == 0
    assert room(node("a"), "zone=!in(a,b)") == 0 and room(node("c"), "zone=!in(a,b),zone2=x") == 0


def test_what_is_lacking_is_found_in_sum_and_machine_by_machine() -> None:
    machines = [node("a", GPU=3), node("b", GPU=1), node("c", alive=False, GPU=8)]

    def found(*asks: Ask) -> list[str]:
        return [what for _, what in lacking(asks, machines)]

    assert found(Ask("they", {"GPU": 1}, count=4)) == []
    assert found(Ask("they", {"GPU": 3}, count=1), Ask("they", {"GPU": 1}, count=2))[0].endswith("5 GPUs, Ray has 4")
    assert found(Ask("they", {"GPU": 2}, count=2)) == ["they ask 2 times for 2 GPUs on one machine, Ray has it 1 times"]


def test_a_pool_asks_for_what_it_is_set_to() -> None:
    pool = PoolSettings(replicas=2, resource="worker", labels="zone=a")
    ask = replicas_ask(ModelSpec("hf", "x", EngineSettings(device="cuda"), pool))
    assert (ask.resources, ask.labels, ask.count) == ({"GPU": 1.0, "worker": 1.0}, {"zone": "a"}, 2)
    options = ask.options()
    assert options["num_cpus"] == 0 and options["num_gpus"] == 1 and options["resources"] == {"worker": 1.0}
