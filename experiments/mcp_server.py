"""The tool `python` over the Model Context Protocol, for agents that know nothing of Palaestra: `palaestra mcp`.

On the protocol's own SDK. A program that fails, and arguments that are no program, are results with `isError`, as the
protocol has it, so that the model reads them; what came of a program is in `structuredContent` too.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import mcp_types as protocol
from mcp import MCPError
from mcp.server import Server
from mcp.server.stdio import stdio_server
from pydantic import ValidationError

from envs.errors import bind_settings, clip
from envs.sandbox import Backend, Limits, Sandbox, open_sandbox
from envs.sandbox.tool import DESCRIPTION, LIMITS, TOOL, Outcome, Program, complaint


def serve_tool(settings: Mapping[str, Any], port: int | None, announce: Callable[[str], None]) -> bool:
    """Serve until the client is gone or a signal ends it. Returns whether that was SIGINT.

    Args:
        settings: of the sandbox; see `_opened`.
        port: on loopback, for streamable HTTP; 0 takes a free one. None serves stdin and stdout.
        announce: gets, once the server is up, the address to connect to; not called for stdin and stdout.

    Raises:
        ConfigError: a setting that cannot be used, a sandbox that cannot run here, a port that cannot be had.
    """
    sandbox = _opened(**bind_settings(_opened, settings, f"the tool {TOOL}"))
    if port is None:
        # The thread that reads stdin cannot be interrupted. What a program leaves then is the sandbox's affair.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        asyncio.run(_serve_stdio(sandbox))
        return False
    return asyncio.run(_serve_http(sandbox, port, announce)) is signal.SIGINT


def make_server(sandbox: Sandbox) -> Server[Any]:
    """An MCP server whose one tool runs programs in the sandbox."""
    tool = protocol.Tool(
        name=TOOL,
        description=DESCRIPTION,
        input_schema=Program.model_json_schema(),
        output_schema=Outcome.model_json_schema(),
        annotations=protocol.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )

    async def list_tools(_: Any, __: Any) -> protocol.ListToolsResult:
        return protocol.ListToolsResult(tools=[tool])

    async def call_tool(_: Any, asked: protocol.CallToolRequestParams) -> protocol.CallToolResult:
        if asked.name != TOOL:
            raise MCPError(protocol.INVALID_PARAMS, f"there is no tool {clip(asked.name)}; call {TOOL}")
        try:
            program = Program.model_validate(asked.arguments or {})
        except ValidationError as error:
            return protocol.CallToolResult(content=[protocol.TextContent(text=complaint(error))], is_error=True)
        outcome = Outcome.of(await sandbox.run(program.code))
        return protocol.CallToolResult(
            content=[protocol.TextContent(text=outcome.text)],
            structured_content=outcome.model_dump(),
            is_error=outcome.ended != "ran",
        )

    return Server("palaestra", version=version("palaestra"), on_list_tools=list_tools, on_call_tool=call_tool)


def _opened(
    sandbox: Backend = "monty",
    seconds: float = LIMITS.seconds,
    memory_mb: int = LIMITS.memory_mb,
    output_chars: int = LIMITS.output_chars,
    workers: int = 2,
) -> Sandbox:
    return open_sandbox(sandbox, Limits(seconds, memory_mb, output_chars), workers)


async def _serve_stdio(sandbox: Sandbox) -> None:
    server = make_server(sandbox)
    try:
        async with stdio_server() as (reads, writes):
            await server.run(reads, writes, server.create_initialization_options())
    finally:
        await sandbox.close()


async def _serve_http(sandbox: Sandbox, port: int, announce: Callable[[str], None]) -> signal.Signals:
    # Here alone: a host that starts the command waits for what it imports.
    from experiments.gateway.serve import on_signals
    from experiments.gateway.server import bind, listening, url_of

    app = make_server(sandbox).streamable_http_app(json_response=True, stateless_http=True)
    at = bind("127.0.0.1", port)
    stopped: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    try:
        async with app.router.lifespan_context(app), listening(app, at, None):
            on_signals(stopped)
            announce(f"{url_of(at)}/mcp")
            return await stopped
    finally:
        await sandbox.close()
