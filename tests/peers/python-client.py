"""A client of the Python SDK 2.x in its default mode: it asks what the server speaks, then speaks that.

    MCP_URL=... [MCP_KEY=...] python python-client.py CALL [REFUSED]
    MCP_COMMAND='["program", "argument"]' python python-client.py CALL [REFUSED]

CALL and REFUSED are {"name": ..., "arguments": {...}}. Prints one JSON object on stdout:
{"protocol": ..., "tools": [...], "call": {...}, "refused": {"error": {...}} | {"result": {...}} | null}
"""

import asyncio
import json
import os
import sys

from contextlib import asynccontextmanager

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def main() -> None:
    requests = [json.loads(argument) for argument in sys.argv[1:]]
    async with open_transport() as transport:
        async with Client(transport, mode="auto") as client:
            outcome = {
                "protocol": client.protocol_version,
                "tools": await list_tools(client),
                "call": await call(client, requests[0]),
                "refused": await attempt(client, requests[1]) if len(requests) > 1 else None,
            }
    print(json.dumps(outcome))


@asynccontextmanager
async def open_transport():
    if command := os.environ.get("MCP_COMMAND"):
        program, *arguments = json.loads(command)
        yield stdio_client(StdioServerParameters(command=program, args=arguments))
        return
    key = os.environ.get("MCP_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with create_mcp_http_client(headers=headers) as http:
        yield streamable_http_client(os.environ["MCP_URL"], http_client=http)


async def list_tools(client: Client) -> list[str]:
    names: list[str] = []
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        names.extend(tool.name for tool in page.tools)
        cursor = page.next_cursor
        if cursor is None:
            return names


async def call(client: Client, request: dict) -> dict:
    result = await client.call_tool(request["name"], request["arguments"])
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


async def attempt(client: Client, request: dict) -> dict:
    try:
        return {"result": await call(client, request)}
    except MCPError as error:
        return {"error": {"code": error.code, "message": error.message, "data": error.data}}


asyncio.run(main())
