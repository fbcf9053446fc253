// A server of the TypeScript SDK 2.x that speaks 2026-07-28 and refuses every other revision. It listens on a free
// port of 127.0.0.1 and prints its URL as its only line. It offers what `python-server.py` offers.
import { createServer } from 'node:http';
import {
  McpServer,
  acceptedContent,
  createMcpHandler,
  fromJsonSchema,
  inputRequired,
  inputResponse,
} from '@modelcontextprotocol/server';

const text = (said) => ({ content: [{ type: 'text', text: said }] });
const schema = (properties) =>
  fromJsonSchema({ type: 'object', properties, required: Object.keys(properties) });
const empty = fromJsonSchema({ type: 'object', properties: {} });
const nameSchema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };

const handler = createMcpHandler(
  () => {
    const server = new McpServer({ name: 'typescript-server', version: '1' });
    const integers = schema({ a: { type: 'integer' }, b: { type: 'integer' } });
    server.registerTool('add', { inputSchema: integers }, async ({ a, b }) => text(String(a + b)));
    server.registerTool('count', { inputSchema: empty }, async (_, context) => {
      const progressToken = context.mcpReq._meta?.progressToken;
      for (let progress = 1; progressToken !== undefined && progress <= 3; progress += 1) {
        const params = { progressToken, progress, total: 3 };
        await context.mcpReq.notify({ method: 'notifications/progress', params });
      }
      return text('counted');
    });
    server.registerTool('ask_user', { inputSchema: empty }, async (_, context) => {
      const given = acceptedContent(context.mcpReq.inputResponses, 'who');
      if (given) return text(`Hello, ${given.name}!`);
      const who = inputRequired.elicit({ message: 'Who are you?', requestedSchema: nameSchema });
      return inputRequired({ inputRequests: { who } });
    });
    server.registerTool('ask_model', { inputSchema: empty }, async (_, context) => {
      const given = inputResponse(context.mcpReq.inputResponses, 'capital');
      if (given.kind === 'sampling') return text(`The model says ${given.result.content.text}`);
      const messages = [{ role: 'user', content: { type: 'text', text: 'The capital of France?' } }];
      const capital = inputRequired.createMessage({ messages, maxTokens: 100 });
      return inputRequired({ inputRequests: { capital } });
    });
    server.registerPrompt('greeting', { description: 'A greeting' }, async () => ({
      messages: [{ role: 'user', content: { type: 'text', text: 'Good morning' } }],
    }));
    server.registerResource('note', 'test://note', { mimeType: 'text/plain' }, async () => ({
      contents: [{ uri: 'test://note', mimeType: 'text/plain', text: 'A note' }],
    }));
    return server;
  },
  { legacy: 'reject' },
);

const listener = createServer(async (incoming, outgoing) => {
  const left = new AbortController();
  outgoing.on('close', () => left.abort());
  const chunks = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const { method, headers, url } = incoming;
  const body = method === 'POST' ? Buffer.concat(chunks) : undefined;
  const request = new Request(`http://${headers.host}${url}`, { method, headers, body, signal: left.signal });
  const response = await handler.fetch(request);
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  outgoing.flushHeaders();
  try {
    for await (const chunk of response.body ?? []) outgoing.write(chunk);
  } catch {
    // The client has left; the handler has been told by the signal.
  }
  outgoing.end();
});
listener.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${listener.address().port}/mcp`));
