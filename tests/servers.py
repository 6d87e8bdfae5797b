"""vLLM's own server of the chat-completions protocol, on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.engines import EMBEDDED


@contextmanager
def vllm_server(log: Path, directory: Path = EMBEDDED, name: str = "tiny") -> Iterator[str]:
    """The URL of vLLM's own server on the CPU, when it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(directory), "--served-model-name", name, "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "1024", "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    # On the CPU vLLM 0.32 dies of a seeded request whose prompt it splits: torch's generator there cannot be rewound.
    command += ["--no-enable-chunked-prefill"]
    # A model this small would fill a reply with the blanks that JSON allows.
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 300
        while not _is_healthy(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
