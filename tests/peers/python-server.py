"""A server of the Python SDK 2.x that speaks every revision on one endpoint.

It listens on a free port of 127.0.0.1 and prints its URL as its only line on stdout. It offers what
`typescript-server.mjs` offers; its tools ask in both eras.
"""

import asyncio
import socket
from typing import Annotated

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp_types import CreateMessageResult, SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("python-server")


class Who(BaseModel):
    name: str


def who() -> Elicit[Who]:
    return Elicit("Who are you?", Who)


def capital() -> Sample:
    question = TextContent(type="text", text="The capital of France?")
    return Sample([SamplingMessage(role="user", content=question)], max_tokens=100)


@server.tool()
async def add(a: int, b: int) -> str:
    return str(a + b)


@server.tool()
async def count(context: Context) -> str:
    for step in range(1, 4):
        await context.report_progress(step, 3)
    return "counted"


@server.tool()
async def ask_user(who: Annotated[Who, Resolve(who)]) -> str:
    return f"Hello, {who.name}!"


@server.tool()
async def ask_model(answer: Annotated[CreateMessageResult, Resolve(capital)]) -> str:
    return f"The model says {answer.content.text}"


@server.prompt()
def greeting() -> str:
    return "Good morning"


@server.resource("test://note", mime_type="text/plain")
def note() -> str:
    return "A note"


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning")
    await uvicorn.Server(config).serve(sockets=[listener])


asyncio.run(main())
