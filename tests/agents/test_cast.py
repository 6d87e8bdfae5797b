"""Casts: who plays what, checked before anything is loaded."""

from pathlib import Path

import pytest

from agents import Cast, Sampling, ScriptedEngine, Seat
from agents.engines import parse_model
from envs import ConfigError


def test_seats() -> None:
    cast = Cast(judge=Seat(model="embedded", temperature=0), debater="embedded", debater_2=Seat(max_tokens=5))
    assert cast.seat("judge").sampling.temperature == 0
    assert cast.seat("debater_1") is cast.seat("debater")
    assert cast.seat("debater_2").max_tokens == 5
    with pytest.raises(ConfigError, match="unknown role 'juge'; did you mean 'judge'"):
        cast.seat("juge")
    assert Cast.all("embedded", top_p=0.9).seat("anyone").top_p == 0.9


def test_set_changes_one_setting_and_leaves_the_cast_as_it_was() -> None:
    cast = Cast.all("embedded", temperature=0.5)
    changed = cast.set("judge", "max_tokens", "7")
    assert (changed.seat("judge").max_tokens, changed.seat("judge").temperature) == (7, 0.5)
    assert changed.seat("solver").max_tokens == cast.seat("judge").max_tokens == 512


def test_sampling() -> None:
    seat = Cast.all("embedded").set("solver", "stop", "\n\n").set("solver", "top_p", "0.5").seat("solver")
    assert seat.sampling == Sampling(temperature=1.0, top_p=0.5, max_tokens=512, stop=("\n\n",))
    assert Cast.all("embedded", stop="x").set("solver", "stop", "").seat("solver").stop == ()
    assert Seat(stop=("a", "b")).sampling.stop == ("a", "b")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("temprature", 1, "unknown setting of role judge: 'temprature'; did you mean 'temperature'"),
        ("temperature", -1, "judge: temperature cannot be -1"),
        ("temperature", "hot", "judge: temperature cannot be 'hot'"),
        ("top_p", 0, "judge: top_p cannot be 0"),
        ("max_tokens", "many", "judge: max_tokens cannot be 'many'"),
        ("stop", ["a", ""], "judge: stop cannot be ''"),
        ("instructions", "{{ x", "judge: instructions cannot be '{{ x': .*no Jinja template"),
    ],
)
def test_unusable_settings(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cast.all().set("judge", key, value)


def test_models_are_checked_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind of model 'embeded'; did you mean 'embedded'"):
        parse_model("embeded")
    with pytest.raises(ConfigError, match="names nothing"):
        parse_model("hf:")
    with pytest.raises(ConfigError, match=r"found no config\.json"):
        parse_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"found no weights \(\*\.safetensors\)"):
        parse_model(f"hf:{tmp_path}")
    with pytest.raises(ConfigError, match="there is no file"):
        parse_model(f"replay:{tmp_path}/none.jsonl")
    with pytest.raises(ConfigError, match="takes no target"):
        parse_model("embedded:tiny")


def test_describe_names_models_without_their_insides() -> None:
    engine = ScriptedEngine({})
    described = Cast(Seat(model=engine), judge="embedded").describe()
    assert described["*"]["model"] == "python:ScriptedEngine"
    assert described["judge"]["model"] == "embedded"
