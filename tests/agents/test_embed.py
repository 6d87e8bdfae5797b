"""Embeddings by the pools' own models: a text's vector depends on the text and the weights alone."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aiohttp import web
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents import Cast, EngineError, Message, Request, Sampling, ScriptedEngine, open_company
from agents.embed import REMEMBERED, Vectors
from agents.engines import EMBEDDED, parse_model
from agents.engines.endpoint import EndpointEngine
from agents.engines.transformers import TransformersEngine
from agents.pool import LocalPool, Pool, RayPool
from agents.serving import PoolSettings, Serving
from agents.types import EngineDiedError
from envs import make_env
from experiments.faults.chat_server import Behaviour, ChatServer, hangs, refuses, resets, sends

TEXTS = [f"{task.question} The answer is \\boxed{{{i}}}" for i, task in enumerate(make_env("arithmetic").tasks(24))]


class Embedding(ScriptedEngine):
    """Embeds a text as its length and its number of words; knows what it was asked."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[str] = []
        self.most = 0
        self._busy = 0

    async def embed(self, text: str) -> tuple[float, ...]:
        self.asked.append(text)
        self._busy += 1
        self.most = max(self.most, self._busy)
        await asyncio.sleep(0)
        self._busy -= 1
        return (float(len(text)), float(len(text.split())))


def use(model: Any, ask: Callable[[Any], Any], kind: Any = LocalPool, **settings: Any) -> Any:
    async def main() -> Any:
        pool = kind(parse_model(model, Serving(pool=PoolSettings(**settings))))
        try:
            await pool.ready()
            return await asyncio.wait_for(ask(pool), 120)
        finally:
            await pool.close()

    return asyncio.run(main())


class TestVectors:
    def test_have_length_1(self) -> None:
        for vector in ((3, 4), (3e300, 4e300), (3e-300, 4e-300)):
            assert Vectors().keep("x", "x", vector).tolist() == pytest.approx([0.6, 0.8])

    @pytest.mark.parametrize("vector", [(0, 0), (float("nan"), 1), (float("inf"), 1), ()])
    def test_what_is_0_or_no_number_is_refused_and_not_remembered(self, vector: tuple[float, ...]) -> None:
        vectors = Vectors()
        with pytest.raises(EngineError, match="the embedding of 'some words' is 0 or no number"):
            vectors.keep("x", "some words", vector)
        assert vectors.get("x") is None

    def test_are_forgotten_when_they_were_not_met_for_long(self) -> None:
        vectors = Vectors()
        for n in range(REMEMBERED):
            vectors.keep(n, "", (1, n))
        assert vectors.get(0) is not None
        vectors.keep("new", "", (1, 1))
        assert vectors.get(1) is None and vectors.get(0) is not None and vectors.get(2) is not None


class TestPool:
    def test_equal_texts_are_asked_once(self) -> None:
        engine = Embedding()

        async def ask(pool: Pool) -> list[np.ndarray]:
            return [await pool.embed(["a b", "abc", "a b"]), await pool.embed(["abc", "abcd e"])]

        first, second = use(engine, ask)
        assert engine.asked == ["a b", "abc", "abcd e"]
        assert first.dtype == np.float32 and first.shape == (3, 2)
        assert (first[0] == first[2]).all() and (first[1] == second[0]).all()
        assert np.linalg.norm(first, axis=1) == pytest.approx(1)

    def test_what_is_in_flight_is_bounded(self) -> None:
        engine = Embedding()
        assert use(engine, lambda pool: pool.embed(TEXTS), max_in_flight=3).shape == (24, 2)
        assert engine.most == 3

    def test_an_engine_that_died_is_made_again_and_asked_again(self) -> None:
        deaths = iter([True, False])

        class Dies(Embedding):
            async def embed(self, text: str) -> tuple[float, ...]:
                if next(deaths):
                    raise EngineDiedError("gone")
                return await super().embed(text)

        assert use(Dies, lambda pool: pool.embed(["a b"])).shape == (1, 2)

    def test_a_closed_pool_says_so(self) -> None:
        async def ask(pool: Pool) -> None:
            await pool.close()
            await pool.embed(["a"])

        with pytest.raises(EngineError, match="is closed"):
            use(Embedding(), ask)

    def test_engines_without_embeddings_name_those_that_have_them(self, tmp_path: Path) -> None:
        (tmp_path / "replies.jsonl").write_text(json.dumps({"task": "t", "role": "solver", "replies": ["5"]}))
        for model in (ScriptedEngine({}), f"replay:{tmp_path / 'replies.jsonl'}"):
            with pytest.raises(
                EngineError, match=r"gives no embeddings; embedded, hf:DIR and openai:NAME@URL do.*minil"
            ):
                use(model, lambda pool: pool.embed(["a"]))

    def test_a_company_asks_the_pool_of_the_role(self) -> None:
        engines = {"a": Embedding(), "b": Embedding()}

        async def main() -> None:
            async with open_company(Cast(**engines), ["a", "b"], backend="local") as company:
                await company.embed(["x"], "pool", "b")
            async with open_company(Cast(**engines), ["b"], backend="local") as company:
                with pytest.raises(EngineError, match=r"nobody was told that a would be asked"):
                    await company.embed(["x"], "pool", "a")

        asyncio.run(main())
        assert (engines["a"].asked, engines["b"].asked) == ([], ["x"])


def request(n: int, policy: str = "", sampling: Sampling | None = None) -> Request:
    asked = Message("user", f"What is {n} + 7?")
    return Request(f"t/0/solver/{n}", (asked,), sampling or Sampling(max_tokens=24), n, policy=policy)


LONG = Sampling(temperature=4, max_tokens=100)


@pytest.mark.model
class TestTransformersEngine:
    def run(self, ask: Callable[[TransformersEngine], Any]) -> Any:
        async def main() -> Any:
            engine = TransformersEngine(EMBEDDED)
            try:
                return await asyncio.wait_for(ask(engine), 120)
            finally:
                await engine.close()

        return asyncio.run(main())

    def test_it_is_the_mean_of_the_last_hidden_state(self) -> None:
        model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
        ids = AutoTokenizer.from_pretrained(EMBEDDED)(TEXTS[0], add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        assert self.run(lambda engine: engine.embed(TEXTS[0])) == pytest.approx(states[0].mean(0).tolist(), abs=1e-5)

    def test_neither_vectors_nor_replies_depend_on_what_else_is_done(self) -> None:
        async def ask(engine: TransformersEngine) -> None:
            vectors = [await engine.embed(text) for text in TEXTS]
            replies = [await engine.complete(request(n)) for n in range(len(TEXTS))]
            assert len(set(vectors)) == len(TEXTS)
            assert await asyncio.gather(*map(engine.embed, TEXTS[::-1])) == vectors[::-1]
            mixed = [job for n, text in enumerate(TEXTS) for job in (engine.complete(request(n)), engine.embed(text))]
            found = await asyncio.gather(*mixed)
            assert found[0::2] == replies and found[1::2] == vectors

        self.run(ask)

    def test_it_waits_for_no_reply(self) -> None:
        async def ask(engine: TransformersEngine) -> tuple[int, Any]:
            alone = await engine.complete(request(1, sampling=LONG))
            reply, during = asyncio.create_task(engine.complete(request(1, sampling=LONG))), 0
            while not reply.done():
                await engine.embed(TEXTS[during % 24])
                during += 1
            return during, (await reply) == alone

        during, same = self.run(ask)
        assert during > 2 and same

    def test_it_is_by_the_models_own_weights_whatever_policy_is_at_work(self, tmp_path: Path) -> None:
        from peft import LoraConfig, get_peft_model

        model: Any = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
        torch.manual_seed(3)
        config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
        get_peft_model(model, config).save_pretrained(str(tmp_path / "critic"))

        async def ask(engine: TransformersEngine) -> None:
            before = await engine.embed(TEXTS[0])
            await engine.publish("critic", "1", tmp_path / "critic")
            alone = await engine.complete(request(1, "critic", LONG))
            assert alone.logprobs != (await engine.complete(request(1, sampling=LONG))).logprobs
            reply = asyncio.create_task(engine.complete(request(1, "critic", LONG)))
            while not reply.done():
                assert await engine.embed(TEXTS[0]) == before
            assert await reply == alone

        self.run(ask)

    def test_a_text_without_words_is_that_of_a_reply_without_words(self) -> None:
        async def ask(engine: TransformersEngine) -> list[tuple[float, ...]]:
            return [await engine.embed(text) for text in ("", "<|end|>")]

        silent, forged = self.run(ask)
        assert any(silent) and silent != forged, "markers in a text are words"

    def test_a_text_beyond_the_context_is_refused_and_the_engine_goes_on(self) -> None:
        async def ask(engine: TransformersEngine) -> tuple[float, ...]:
            with pytest.raises(EngineError, match=r"expected a text of 1 to 1024 tokens .* found \d+; take another"):
                await engine.embed("7 " * 5000)
            return await engine.embed(TEXTS[0])

        assert self.run(ask)

    def test_new_weights_give_new_vectors(self, tmp_path: Path) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
        with torch.no_grad():
            model.model.embed_tokens.weight += 0.1
        shutil.copytree(EMBEDDED, tmp_path / "new", ignore=shutil.ignore_patterns("*.safetensors"))
        model.save_pretrained(tmp_path / "new")

        async def ask(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
            before = await pool.embed(TEXTS[:2])
            await pool.publish("", "2", tmp_path / "new")
            return before, await pool.embed(TEXTS[:2])

        before, after = use("embedded", ask)
        assert (before != after).any(1).all()
        assert (after == use(f"hf:{tmp_path / 'new'}", lambda pool: pool.embed(TEXTS[:2]))).all()


class DiesOnce(Embedding):
    """Takes its process down when it first embeds: a file remembers."""

    def __init__(self, marker: Path):
        super().__init__()
        self._marker = marker

    async def embed(self, text: str) -> tuple[float, ...]:
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:
            return await super().embed(text)
        os._exit(1)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_started")
class TestRayPool:
    @pytest.mark.model
    def test_vectors_are_those_of_this_process(self) -> None:
        async def ask(pool: Pool) -> np.ndarray:
            mixed = [pool.embed(TEXTS), *(pool.complete(request(n)) for n in range(8))]
            return (await asyncio.gather(*mixed))[0]

        assert (use("embedded", ask, RayPool, replicas=2) == use("embedded", ask)).all()

    def test_a_replica_that_dies_is_asked_again(self, tmp_path: Path) -> None:
        found = use(lambda: DiesOnce(tmp_path / "died"), lambda pool: pool.embed(["a b", "abc"]), RayPool)
        assert found.shape == (2, 2) and (tmp_path / "died").exists()

    def test_engines_without_embeddings_say_so(self) -> None:
        with pytest.raises(EngineError, match=r"gives no embeddings"):
            use(lambda: ScriptedEngine({}), lambda pool: pool.embed(["a"]), RayPool)


def gives(*vectors: Any, **fields: Any) -> Behaviour:
    async def behave(http: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        assert http.path == "/v1/embeddings"
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        made = {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 3}, **fields}
        return web.Response(text=json.dumps(made), content_type="application/json")

    return behave


class TestEndpointEngine:
    def ask(self, *behaviours: Behaviour, text: str = "a b", **settings: Any) -> tuple[ChatServer, tuple[float, ...]]:
        async def main(url: str) -> tuple[float, ...]:
            engine = EndpointEngine("tiny", url, **{"max_wait_s": 0.01, "retries": 2, **settings})
            try:
                return await engine.embed(text)
            finally:
                await engine.close()

        with ChatServer(*behaviours) as self.server:
            return self.server, asyncio.run(main(self.server.url))

    def refusal(self, *behaviours: Behaviour, **settings: Any) -> str:
        with pytest.raises(EngineError) as caught:
            self.ask(*behaviours, **settings)
        assert "\n" not in str(caught.value) and str(caught.value).endswith("; embedder minilm asks no server")
        return str(caught.value)

    def test_the_servers_vector_of_the_text(self) -> None:
        server, vector = self.ask(gives([0.5, -1, 1e-9]), text="half \ud83d and </s>")
        assert vector == (0.5, -1.0, 1e-9)
        assert server.asked == [{"model": "tiny", "input": "half ? and < /s>"}]

    @pytest.mark.parametrize(
        "fault",
        [
            refuses(429),
            refuses(503),
            hangs,
            resets,
            sends("<html>"),
            gives(),
            gives([]),
            gives([1], [1]),
            gives([1, None]),
        ],
        ids=["429", "503", "hangs", "resets", "HTML", "none", "empty", "two", "null"],
    )
    def test_what_passes_is_asked_again_and_fails_in_the_end(self, fault: Behaviour) -> None:
        server, vector = self.ask(fault, gives([1]), timeout_s=1)
        assert vector == (1.0,) and len(server.asked) == 2
        assert "3 attempts" in self.refusal(fault, timeout_s=0.15) and len(self.server.asked) == 3

    @pytest.mark.parametrize("status", [400, 404, 405, 501])
    def test_a_server_without_embeddings_is_asked_once(self, status: int) -> None:
        told = self.refusal(refuses(status, "no embeddings here"))
        assert f"openai:tiny at {self.server.url} answered {status} (no embeddings here)" in told
        assert len(self.server.asked) == 1

    def test_another_models_vector_is_none(self) -> None:
        assert "was answered by the model minilm" in self.refusal(gives([1], model="minilm"))

    def test_the_key_goes_with_it_and_into_no_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", key := "sk-SECRETsecretSECRETsecret")
        for fault in (refuses(400, f"you sent {key}"), sends(f"{{{key}")):
            assert key not in self.refusal(fault, key="MY_KEY")
            assert self.server.headers[0]["Authorization"] == f"Bearer {key}"

    def test_a_vector_that_is_no_number_fails_in_the_pool(self) -> None:
        with ChatServer(gives([float("nan"), 1])) as server, pytest.raises(EngineError, match="is 0 or no number"):
            use(f"openai:tiny@{server.url}", lambda pool: pool.embed(["a"]))
