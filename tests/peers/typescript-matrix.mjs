// Lets a client of the TypeScript SDK do everything that a plan says with every server that it names.
//
//   MCP_PLAN='{"servers": [{"name", "url", "key", "steps": {...}, "content": {...}}]}' node typescript-matrix.mjs v1|v2|v2-pinned
//
// `steps` may have `call`, `progress`, `elicit` and `sample` (a tool and its arguments), `prompt` (the same of a
// prompt) and `resource` (a uri); `content` answers every form. Prints one JSON object on stdout: for each server its
// `protocol`, its `list` of tools, and for each step {"result": ...} or {"error": ...}.
const PINNED = '2026-07-28';
const STEP_TIME_MAX_MS = 20_000;

const kind = process.argv[2];
const { servers } = JSON.parse(process.env.MCP_PLAN);
const sdk = kind === 'v1' ? await first() : await second();
const outcomes = {};
for (const server of servers) outcomes[server.name] = await visit(server);
console.log(JSON.stringify(outcomes));
// Connections that a client left open would hold the process.
process.exit(0);

async function first() {
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const types = await import('@modelcontextprotocol/sdk/types.js');
  return {
    Client,
    Transport: StreamableHTTPClientTransport,
    elicit: types.ElicitRequestSchema,
    sample: types.CreateMessageRequestSchema,
    protocol: (_, transport) => transport.protocolVersion,
    call: (client, params, options) => client.callTool(params, undefined, options),
  };
}

async function second() {
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  return {
    Client,
    Transport: StreamableHTTPClientTransport,
    elicit: 'elicitation/create',
    sample: 'sampling/createMessage',
    protocol: (client) => client.getNegotiatedProtocolVersion(),
    call: (client, params, options) => client.callTool(params, options),
  };
}

async function visit({ url, key, steps, content }) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const transport = new sdk.Transport(new URL(url), { requestInit: { headers } });
  const capabilities = { elicitation: { form: {} }, sampling: {} };
  const pin = kind === 'v2-pinned' ? { versionNegotiation: { mode: { pin: PINNED } } } : {};
  const client = new sdk.Client({ name: `typescript-${kind}`, version: '1' }, { capabilities, ...pin });
  client.setRequestHandler(sdk.elicit, async () => ({ action: 'accept', content }));
  client.setRequestHandler(sdk.sample, async () => ({
    role: 'assistant',
    model: 'none',
    content: { type: 'text', text: 'Paris' },
  }));
  const outcome = {};
  const attempt = async (name, act) => {
    try {
      outcome[name] = { result: await within(act()) };
    } catch (error) {
      outcome[name] = { error: `${error.code ?? error.name}: ${error.message}` };
    }
    return outcome[name];
  };
  const options = { timeout: STEP_TIME_MAX_MS };
  const connected = await attempt('connect', () => client.connect(transport, options));
  if ('error' in connected) return outcome;
  outcome.protocol = { result: sdk.protocol(client, transport) };
  await attempt('list', async () => (await client.listTools({}, options)).tools.map((tool) => tool.name));
  for (const [name, step] of Object.entries(steps)) {
    if (name === 'prompt') {
      await attempt(name, () => client.getPrompt(step, options));
    } else if (name === 'resource') {
      await attempt(name, () => client.readResource(step, options));
    } else {
      const seen = [];
      const onprogress = name === 'progress' ? { onprogress: (step) => seen.push(step.progress) } : {};
      await attempt(name, async () => {
        const result = await sdk.call(client, step, { ...options, ...onprogress });
        return name === 'progress' ? { ...result, seen } : result;
      });
    }
  }
  await attempt('close', () => client.close());
  return outcome;
}

function within(acting) {
  const late = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no answer within ${STEP_TIME_MAX_MS} ms`)), STEP_TIME_MAX_MS + 1_000).unref();
  });
  return Promise.race([acting, late]);
}
