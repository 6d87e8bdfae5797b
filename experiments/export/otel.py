"""OpenTelemetry: a run as traces with the names of its GenAI conventions, sent to a collector over OTLP/HTTP.

An episode is a trace: `invoke_workflow` holds an `invoke_agent` for each time a role is asked, which holds its `chat`
calls and the `execute_tool` between them. A call links to those whose words its prompt shows. The verdict is an event
`gen_ai.evaluation.result`. Texts are sent only when asked for. Names: open-telemetry/semantic-conventions-genai, which
is in development; what it has no name for begins with `palaestra.`. Headers and certificates come from the variables
of the OpenTelemetry SDK (OTEL_EXPORTER_OTLP_HEADERS, …).

A run says when it began, its episodes how many seconds later within themselves something happened: every trace begins
when the run did. Ids are made from run, episode and turn, so that sending a run again makes no new spans.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from agents.types import Message, ToolCall, seed_of
from envs.errors import ConfigError, clip
from experiments.export.invocations import invocations, tool_runs
from experiments.export.selection import Selection
from experiments.plan import versions
from graphs.turns import Episode, Turn, conversation

SPANS, BYTES = 512, 4 * 2**20
"""What one request holds at most, but for a single turn that is larger."""
PATH = "/v1/traces"


def export_otel(selection: Selection, endpoint: str, contents: bool = False) -> int:
    """Send the selected episodes as spans, and return how many spans the collector has taken.

    Args:
        selection: what is sent.
        endpoint: the collector's address; without a path its `/v1/traces`.
        contents: send prompts, replies, answers and reasons, too.

    Raises:
        ConfigError: an address that cannot be used, or a disabled SDK.
        ConnectionError: the collector did not take them.
    """
    outbox = _Outbox(_address(endpoint))
    ids = _Ids()
    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME") or "palaestra",
            "service.version": versions().get("palaestra", ""),
        }
    )
    limits = SpanLimits(max_links=SpanLimits.UNSET)
    provider = TracerProvider(resource=resource, id_generator=ids, span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(outbox)
    tracer = provider.get_tracer("palaestra")
    if isinstance(tracer, trace.NoOpTracer):
        raise ConfigError("OpenTelemetry is switched off: unset OTEL_SDK_DISABLED")
    try:
        for position, episode in selection:
            _Trace(selection, position, episode, tracer, ids, contents).send(outbox)
        outbox.send()
    finally:
        provider.shutdown()
    return outbox.sent


class _Ids(IdGenerator):
    """Ids made from what the next span stands for."""

    trace: tuple[object, ...] = ()
    span: tuple[object, ...] = ()

    def generate_trace_id(self) -> int:
        return (seed_of("trace", *self.trace) << 64) | seed_of("low", *self.trace)

    def generate_span_id(self) -> int:
        return seed_of("span", *self.trace, *self.span)


class _Outbox(SpanProcessor):
    """Spans that have ended, until they are sent."""

    def __init__(self, endpoint: str):
        self.sent = 0
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint)
        self._spans: list[ReadableSpan] = []
        self._bytes = 0

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)
        self._bytes += sum(len(value) for value in (span.attributes or {}).values() if isinstance(value, str))

    def send(self, least_spans: int = 1, least_bytes: int = 1) -> None:
        if len(self._spans) < least_spans and self._bytes < least_bytes:
            return
        for start in range(0, len(self._spans), SPANS):
            batch = self._spans[start : start + SPANS]
            if self._exporter.export(batch) is not SpanExportResult.SUCCESS:
                raise ConnectionError(f"{self._endpoint} took {self.sent} spans and refused the next; see above")
            self.sent += len(batch)
        self._spans, self._bytes = [], 0

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Trace:
    """An episode's spans."""

    def __init__(
        self, selection: Selection, position: int, episode: Episode, tracer: trace.Tracer, ids: _Ids, contents: bool
    ):
        self._selection, self._episode, self._tracer, self._contents = selection, episode, tracer, contents
        run = selection.run
        self._began_ns = int(selection.began.timestamp() * 1e9)
        self._conversation = f"{run.name}/{position + 1}"
        self._ids = ids
        ids.trace = (run.name, run.config.get("created"), position)
        self._chats: dict[str, trace.SpanContext] = {}

    def send(self, outbox: _Outbox) -> None:
        episode, config = self._episode, self._selection.run.config
        name = config["topology"]["name"]
        last = max([episode.seconds, *(turn.answered_s for turn in episode.turns)])
        attributes = {
            "gen_ai.workflow.name": name,
            "palaestra.run": self._selection.run.name,
            "palaestra.env": config["env"]["name"],
            "palaestra.task": episode.task.id,
            "palaestra.sample": episode.sample,
            "palaestra.stop_reason": episode.stop_reason,
        }
        if self._contents:
            attributes["gen_ai.input.messages"] = _json([_message(Message("user", episode.task.question))])
            attributes |= {} if episode.answer is None else {"palaestra.answer": episode.answer}
        workflow = self._start(None, "invoke_workflow", name, 0.0, "episode", attributes)
        for turns in invocations(episode.turns):
            self._invoke(workflow, turns)
            outbox.send(SPANS, BYTES)
        if episode.verdict is not None:
            workflow.add_event("gen_ai.evaluation.result", self._evaluation(), self._ns(last))
        else:
            self._fail(workflow, (episode.failure or "").partition(":")[0], episode.failure or "")
        workflow.end(self._ns(last))

    def _invoke(self, workflow: Span, turns: Sequence[Turn]) -> None:
        """A role is asked; what its tools gave back brings it further calls."""
        first, last = turns[0], turns[-1]
        attributes = {
            "gen_ai.agent.name": first.role,
            "palaestra.turn": first.id,
            "palaestra.move": first.move,
            "palaestra.round": first.round,
        }
        agent = self._start(workflow, "invoke_agent", first.role, first.asked_s, f"agent {first.id}", attributes)
        for turn in turns:
            self._chat(agent, turn)
        for turn, call, output, later in tool_runs(turns):
            self._tool(agent, call, output, turn, later)
        if last.failure is not None:
            self._fail(agent, "reply_not_readable", f"expected {last.failure.expected}")
        agent.end(self._ns(last.answered_s))

    def _chat(self, agent: Span, turn: Turn) -> None:
        provider, model, address = _provider(self._selection.model(turn.role))
        attributes = {
            **address,
            "gen_ai.provider.name": provider,
            "gen_ai.agent.name": turn.role,
            "gen_ai.request.model": model or turn.policy,
            "gen_ai.request.temperature": turn.temperature,
            "gen_ai.request.top_p": turn.top_p,
            "gen_ai.request.seed": turn.seed,
            "gen_ai.response.model": turn.policy,
            "gen_ai.response.finish_reasons": (_finish(turn),),
            "gen_ai.usage.input_tokens": turn.prompt_tokens,
            "gen_ai.usage.output_tokens": turn.completion_tokens,
            "palaestra.turn": turn.id,
            "palaestra.weights.version": turn.version,
            "palaestra.queue_s": turn.queue_s,
            "palaestra.compute_s": turn.compute_s,
        }
        if self._contents:
            *asked, said = conversation(self._episode.turns, turn)
            attributes["gen_ai.input.messages"] = _json([_message(message) for message in asked])
            attributes["gen_ai.output.messages"] = _json([{**_message(said), "finish_reason": _finish(turn)}])
        read = [self._chats[id] for id in turn.reads if id in self._chats]
        links = [Link(context, {"palaestra.link": "reads"}) for context in read]
        name = attributes["gen_ai.request.model"]
        span = self._start(agent, "chat", name, turn.asked_s, f"chat {turn.id}", attributes, SpanKind.CLIENT, links)
        span.end(self._ns(turn.answered_s))
        self._chats[turn.id] = span.get_span_context()

    def _tool(self, agent: Span, call: ToolCall, output: Message, turn: Turn, later: Turn) -> None:
        attributes = {"gen_ai.tool.name": call.name, "gen_ai.tool.type": "function", "gen_ai.tool.call.id": call.id}
        if self._contents:
            attributes |= {"gen_ai.tool.call.arguments": call.arguments, "gen_ai.tool.call.result": output.content}
        what = f"tool {turn.id} {call.id}"
        span = self._start(agent, "execute_tool", call.name, turn.answered_s, what, attributes)
        span.end(self._ns(later.asked_s))

    def _start(
        self,
        parent: Span | None,
        operation: str,
        name: str,
        at_s: float,
        what: str,
        attributes: Mapping[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
    ) -> Span:
        self._ids.span = (what,)
        inside = trace.set_span_in_context(parent or trace.INVALID_SPAN)
        common = {"gen_ai.operation.name": operation, "gen_ai.conversation.id": self._conversation}
        return self._tracer.start_span(
            f"{operation} {name}", inside, kind, {**common, **attributes}, links, self._ns(at_s)
        )

    def _evaluation(self) -> dict[str, Any]:
        verdict = self._episode.verdict
        assert verdict is not None
        score = {} if verdict.score is None else {"gen_ai.evaluation.score.value": verdict.score}
        reason = {"gen_ai.evaluation.explanation": verdict.reason} if self._contents and verdict.reason else {}
        name = self._selection.run.config["env"]["name"]
        return {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.label": verdict.status, **score, **reason}

    def _fail(self, span: Span, kind: str, why: str) -> None:
        span.set_attribute("error.type", kind or "_OTHER")
        span.set_status(Status(StatusCode.ERROR, why if self._contents else None))

    def _ns(self, seconds: float) -> int:
        return self._began_ns + round(seconds * 1e9)


def _provider(model: str) -> tuple[str, str, dict[str, Any]]:
    """Provider, model and server of a model's name."""
    kind, _, target = model.partition(":")
    if kind != "openai":
        return (kind if target else "palaestra"), target or kind, {}
    name, _, url = target.partition("@")
    parts = urlsplit(url)
    port = {"server.port": parts.port} if parts.port else {}
    return "openai", name, {"server.address": parts.hostname, **port} if parts.hostname else {}


def _finish(turn: Turn) -> str:
    return "tool_call" if turn.tool_calls else turn.finish


def _message(message: Message) -> dict[str, Any]:
    """As the conventions' JSON schema of messages has it."""
    if message.role == "tool":
        said = [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}]
    else:
        said = [{"type": "text", "content": message.content}] if message.content else []
    calls = [{"type": "tool_call", "id": c.id, "name": c.name, "arguments": c.arguments} for c in message.tool_calls]
    return {"role": message.role, "parts": [*said, *calls]}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _address(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise ConfigError("the endpoint holds a user name or a password: give them in OTEL_EXPORTER_OTLP_HEADERS")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"endpoint {clip(endpoint)}: expected an address such as http://127.0.0.1:4318")
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}{PATH}"
