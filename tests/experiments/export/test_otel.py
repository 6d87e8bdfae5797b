"""Spans reach a collector as the GenAI conventions name them: a receiver decodes what a real exporter sends."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from agents.types import Message, ToolCall
from envs.types import Env
from experiments.command import main
from experiments.export import otel
from tests.experiments.export.export_helpers import run_of, turn
from tests.experiments.test_store import simple
from tests.experiments.viewer.viewer_helpers import debate

SECRET = "Bearer a-token-of-this-test"


@dataclass
class Receiver:
    """An OTLP/HTTP collector that keeps what it is sent."""

    url: str = ""
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def spans(self) -> list[dict[str, Any]]:
        """In the order in which they began."""
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = attributes(resource.resource)
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    found.append({"span": span, "resource": about, **attributes(span)})
        return sorted(found, key=lambda found: found["span"].start_time_unix_nano)


def attributes(holder: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        return [plain(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {item.key: plain(item.value) for item in holder.attributes}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            found.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            found.headers.append(dict(self.headers))
            self.send_response(found.status)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_run_becomes_traces(tmp_path: Path, words: Env, receiver: Receiver) -> None:
    run = debate(tmp_path, words)
    assert main(["export", "talk", "--otel", receiver.url, "--runs", str(tmp_path)]) == 0
    spans = receiver.spans()
    by_id = {found["span"].span_id: found for found in spans}
    episodes = list(run.episodes())
    workflows = [found for found in spans if not found["span"].parent_span_id]
    assert [found["span"].name for found in workflows] == ["invoke_workflow society"] * 5
    assert {found["resource"]["service.name"] for found in spans} == {"palaestra"}
    chats = [found for found in spans if found["gen_ai.operation.name"] == "chat"]
    assert len(chats) == sum(episode.calls for episode in episodes)
    for chat in chats:
        agent = by_id[chat["span"].parent_span_id]
        assert agent["span"].name == f"invoke_agent {chat['gen_ai.agent.name']}"
        assert by_id[agent["span"].parent_span_id] in workflows
        assert agent["span"].trace_id == chat["span"].trace_id
        episode = episodes[int(chat["gen_ai.conversation.id"].rpartition("/")[2]) - 1]
        turn = episode.turn(chat["palaestra.turn"])
        lasted = (chat["span"].end_time_unix_nano - chat["span"].start_time_unix_nano) / 1e9
        assert lasted == pytest.approx(turn.answered_s - turn.asked_s, abs=1e-6)
        assert chat["gen_ai.usage.output_tokens"] == turn.completion_tokens
        assert chat["gen_ai.request.seed"] == turn.seed
        assert [by_id[link.span_id]["palaestra.turn"] for link in chat["span"].links] == list(turn.reads)
    verdicts = {found["palaestra.task"]: [attributes(event) for event in found["span"].events] for found in workflows}
    assert verdicts["words-1"] == [
        {
            "gen_ai.evaluation.name": "words",
            "gen_ai.evaluation.score.label": "correct",
            "gen_ai.evaluation.score.value": 1.0,
        }
    ]
    assert verdicts["words-3"] == [], "a failed episode has no verdict"
    (failed,) = [found for found in workflows if found["palaestra.task"] == "words-3"]
    assert failed["span"].status.code == 2 and failed["error.type"] == "EngineError"
    unread = [found for found in spans if found.get("error.type") == "reply_not_readable"]
    assert {found["gen_ai.operation.name"] for found in unread} == {"invoke_agent"}


def test_texts_are_sent_only_when_asked_for(tmp_path: Path, words: Env, receiver: Receiver) -> None:
    run = debate(tmp_path, words)
    command = ["export", "talk", "--episode", "2", "--otel", receiver.url, "--runs", str(tmp_path)]
    assert main(command) == 0
    sent = b"".join(receiver.bodies)
    assert b"I say" not in sent and b"Question" not in sent and b"boxed" not in sent
    plain = {found["span"].span_id for found in receiver.spans()}
    receiver.bodies.clear()
    assert main([*command, "--contents"]) == 0
    spans = receiver.spans()
    assert {found["span"].span_id for found in spans} == plain, "the same spans again, not further ones"
    last = next(run.episodes(1)).turns[-1]
    (chat,) = [s for s in spans if s.get("palaestra.turn") == last.id and s["gen_ai.operation.name"] == "chat"]
    (output,) = json.loads(chat["gen_ai.output.messages"])
    said = [{"type": "text", "content": last.reply}]
    assert output == {"role": "assistant", "parts": said, "finish_reason": "stop"}
    asked = json.loads(chat["gen_ai.input.messages"])
    assert [message["role"] for message in asked][-3:] == ["user", "assistant", "user"]
    assert "words-1" in {found.get("palaestra.task") for found in spans}


def test_tools_run_within_the_call_of_their_agent(tmp_path: Path, receiver: Receiver) -> None:
    first = turn("a/0", tool_calls=(ToolCall("call-1", "add", '{"a": 1}'),))
    output = Message("tool", "seven", tool_call_id="call-1")
    second = turn("a/1", follows="a/0", messages=(output,), asked_s=3.0, answered_s=4.0)
    run_of(tmp_path / "run", [simple("one").model_copy(update={"turns": (first, second), "seconds": 4.0})])
    assert main(["export", "run", "--otel", receiver.url, "--contents", "--runs", str(tmp_path)]) == 0
    spans = {found["span"].name.partition(" ")[0]: found for found in receiver.spans()}
    assert len(receiver.spans()) == 5, "a workflow, one agent, two calls, a tool"
    tool, agent = spans["execute_tool"], spans["invoke_agent"]
    assert tool["span"].name == "execute_tool add" and tool["span"].parent_span_id == agent["span"].span_id
    assert tool["span"].end_time_unix_nano - tool["span"].start_time_unix_nano == 2 * 10**9
    assert (tool["gen_ai.tool.call.arguments"], tool["gen_ai.tool.call.result"]) == ('{"a": 1}', "seven")


def test_requests_are_bounded(tmp_path: Path, words: Env, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    debate(tmp_path, words)
    monkeypatch.setattr(otel, "SPANS", 7)
    assert main(["export", "talk", "--otel", receiver.url, "--runs", str(tmp_path)]) == 0
    counts = [
        sum(
            len(scope.spans)
            for found in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in found.scope_spans
        )
        for body in receiver.bodies
    ]
    assert len(counts) > 5 and max(counts) <= 7


def test_a_collector_that_refuses_is_told_and_headers_are_not(
    tmp_path: Path,
    words: Env,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    debate(tmp_path, words)
    receiver.status = 401
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET.replace(' ', '%20')}")
    assert main(["export", "talk", "--otel", receiver.url, "--runs", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "took 0 spans and refused the next" in said.err and "401" in caplog.text
    assert {key.lower(): value for key, value in receiver.headers[0].items()}["authorization"] == SECRET
    assert "a-token" not in said.err + said.out + caplog.text


@pytest.mark.parametrize("endpoint", ["ftp://x", "127.0.0.1:4318", "http://user:pass-word@127.0.0.1:4318"])
def test_an_endpoint_that_is_none_is_refused_without_being_asked(
    tmp_path: Path, words: Env, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    debate(tmp_path, words)
    assert main(["export", "talk", "--otel", endpoint, "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "endpoint" in said and "pass-word" not in said
