"""`palaestra doctor --model`: what a model can do here, and what is wrong with it, as findings."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from envs import ConfigError
from experiments.checkup import examine_model
from experiments.command import main
from experiments.doctor import Finding


def found(model: str, **settings: object) -> dict[str, Finding]:
    findings = asyncio.run(examine_model(model, {key.replace("__", "."): value for key, value in settings.items()}))
    assert len({finding.what for finding in findings}) == len(findings)
    return {finding.what: finding for finding in findings}


class Plain(BaseHTTPRequestHandler):
    """Chat completions with text alone."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "six"}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Plain) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()
        thread.join()


@pytest.mark.ray
@pytest.mark.model
@pytest.mark.usefixtures("ray_started")
def test_a_model_that_can_do_everything() -> None:
    findings = found("embedded", pool__replicas=2)
    assert all(finding.state == "ok" for finding in findings.values()), findings
    assert {"model", "reply", "training", "speed", "scores", "replica 0", "replica 1"} == findings.keys()
    assert "2 ready in Ray actors" in findings["model"].detail and "tokens/s" in findings["speed"].detail


def test_an_endpoint_without_token_ids(server: str) -> None:
    findings = found(f"openai:tiny@{server}")
    assert findings["reply"].detail.startswith("'six'") and findings["model"].detail.count("in this process")
    assert findings["training"] == Finding("training", "note", "not trainable: this endpoint returns no token ids")
    assert findings["scores"].state == "note" and findings["replica 0"].state == "ok"


def test_what_is_wrong_is_a_finding_with_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    no_weights = found(f"hf:{tmp_path}")["model"]
    assert no_weights.state == "broken" and no_weights.mend.startswith("save or copy them there")
    no_server = found("openai:tiny@http://127.0.0.1:9/v1")["reply"]
    assert no_server.state == "broken" and "127.0.0.1:9" in no_server.detail and no_server.mend


def test_settings_that_there_are_not_are_unusable_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="unknown setting of the pool: 'replica'"):
        found("embedded", pool__replica=2)
    assert main(["doctor", "--set", "pool.replicas=2"]) == 2
    assert "--set goes with --model" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.usefixtures("ray_started")
def test_recorded_replies_are_not_asked(tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text('{"task": "a", "role": "solver", "replies": ["x"]}\n')
    findings = found(f"replay:{tmp_path / 'replies.jsonl'}")
    assert findings["reply"].state == "note" and findings["replica 0"].state == "ok"
