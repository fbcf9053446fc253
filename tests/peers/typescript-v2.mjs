// A client of the TypeScript SDK 2.x: by default it speaks the revisions up to 2025-11-25, with MCP_PIN
// exactly the revision that is named there.
//
//   MCP_URL=... [MCP_KEY=...] [MCP_PIN=2026-07-28] node typescript-v2.mjs CALL [REFUSED]
//
// CALL and REFUSED are {"name": ..., "arguments": {...}}. Prints one JSON object on stdout:
// {"protocol": ..., "tools": [...], "call": {...}, "refused": {"error": {...}} | {"result": {...}} | null}
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [call, refused] = process.argv.slice(2).map((argument) => JSON.parse(argument));
const headers = process.env.MCP_KEY ? { Authorization: `Bearer ${process.env.MCP_KEY}` } : {};
const pin = process.env.MCP_PIN;
const options = pin ? { versionNegotiation: { mode: { pin } } } : {};
const transport = new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), { requestInit: { headers } });
const client = new Client({ name: 'typescript-v2', version: '1' }, options);
await client.connect(transport);
// This client follows the cursors by itself.
const { tools } = await client.listTools();
const outcome = {
  protocol: client.getNegotiatedProtocolVersion(),
  tools: tools.map((tool) => tool.name),
  call: await client.callTool(call),
  refused: refused === undefined ? null : await attempt(refused),
};
if (!pin) await transport.terminateSession();
await client.close();
console.log(JSON.stringify(outcome));

async function attempt(request) {
  try {
    return { result: await client.callTool(request) };
  } catch (error) {
    return { error: { code: error.code ?? null, message: error.message, data: error.data ?? null } };
  }
}
