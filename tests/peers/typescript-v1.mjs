// A client of the TypeScript SDK 1.x: it speaks the revisions up to 2025-11-25.
//
//   MCP_URL=... [MCP_KEY=...] [MCP_TRANSPORT=sse] node typescript-v1.mjs CALL [REFUSED]
//   MCP_COMMAND='["program", "argument"]' node typescript-v1.mjs CALL [REFUSED]
//
// CALL and REFUSED are {"name": ..., "arguments": {...}}. Prints one JSON object on stdout:
// {"protocol": ..., "tools": [...], "call": {...}, "refused": {"error": {...}} | {"result": {...}} | null}
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [call, refused] = process.argv.slice(2).map((argument) => JSON.parse(argument));
const headers = process.env.MCP_KEY ? { Authorization: `Bearer ${process.env.MCP_KEY}` } : {};
const transport = open();
let protocol;
const settled = transport.setProtocolVersion?.bind(transport);
transport.setProtocolVersion = (version) => {
  protocol = version;
  settled?.(version);
};
const client = new Client({ name: 'typescript-v1', version: '1' });
await client.connect(transport);
const tools = [];
let cursor;
do {
  const page = await client.listTools(cursor === undefined ? {} : { cursor });
  tools.push(...page.tools.map((tool) => tool.name));
  cursor = page.nextCursor;
} while (cursor !== undefined);
const outcome = {
  protocol,
  tools,
  call: await client.callTool(call),
  refused: refused === undefined ? null : await attempt(refused),
};
await transport.terminateSession?.();
await client.close();
console.log(JSON.stringify(outcome));

function open() {
  if (process.env.MCP_COMMAND) {
    const [command, ...args] = JSON.parse(process.env.MCP_COMMAND);
    return new StdioClientTransport({ command, args });
  }
  const url = new URL(process.env.MCP_URL);
  const Transport = process.env.MCP_TRANSPORT === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
  return new Transport(url, { requestInit: { headers } });
}

async function attempt(request) {
  try {
    return { result: await client.callTool(request) };
  } catch (error) {
    return { error: { code: error.code ?? null, message: error.message, data: error.data ?? null } };
  }
}
