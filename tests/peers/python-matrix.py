"""Lets a client of the Python SDK 2.x, in its default mode, do what a plan says with every server that it names.

Plan and output are those of `typescript-matrix.mjs`.
"""

import asyncio
import json
import os

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import CreateMessageResult, ElicitResult, TextContent

STEP_TIME_MAX_S = 20


async def main() -> None:
    outcomes = {}
    for server in json.loads(os.environ["MCP_PLAN"])["servers"]:
        outcomes[server["name"]] = await visit(server)
    print(json.dumps(outcomes))


async def visit(server: dict) -> dict:
    outcome: dict = {}
    try:
        async with asyncio.timeout(STEP_TIME_MAX_S * 4):
            await visit_connected(server, outcome)
    except BaseException as error:
        outcome.setdefault("connect", {"error": told(error)})
        outcome.setdefault("close", {"error": told(error)})
    return outcome


async def visit_connected(server: dict, outcome: dict) -> None:
    async def elicit(context, params):
        return ElicitResult(action="accept", content=server["content"])

    async def sample(context, params):
        text = TextContent(type="text", text="Paris")
        return CreateMessageResult(role="assistant", model="none", content=text)

    headers = {"Authorization": f"Bearer {server['key']}"} if server.get("key") else {}
    async with create_mcp_http_client(headers=headers) as http:
        transport = streamable_http_client(server["url"], http_client=http)
        callbacks = {"elicitation_callback": elicit, "sampling_callback": sample}
        async with Client(transport, mode="auto", **callbacks) as client:
            outcome["connect"] = {"result": None}
            outcome["protocol"] = {"result": client.protocol_version}
            await attempt(outcome, "list", list_tools(client))
            for name, step in server["steps"].items():
                await attempt(outcome, name, act(client, name, step))
    outcome["close"] = {"result": None}


async def attempt(outcome: dict, name: str, acting) -> None:
    try:
        async with asyncio.timeout(STEP_TIME_MAX_S):
            outcome[name] = {"result": await acting}
    except Exception as error:
        outcome[name] = {"error": told(error)}


async def list_tools(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


async def act(client: Client, name: str, step: dict):
    if name == "prompt":
        return dumped(await client.get_prompt(step["name"], step.get("arguments")))
    if name == "resource":
        return dumped(await client.read_resource(step["uri"]))
    if name != "progress":
        return dumped(await client.call_tool(step["name"], step["arguments"]))
    seen: list[float] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    result = await client.call_tool(step["name"], step["arguments"], progress_callback=progressed)
    return {**dumped(result), "seen": seen}


def dumped(result) -> dict:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


def told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{getattr(error, 'code', type(error).__name__)}: {error}"


asyncio.run(main())
