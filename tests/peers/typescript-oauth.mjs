// A client of the TypeScript SDK 1.x that is given the URL of an endpoint, and nothing else: it finds out where to get a
// token, registers, has a person consent (authorization code, PKCE), and calls.
//
//   MCP_URL=... MCP_PERSON=... node typescript-oauth.mjs CALL...
//
// MCP_PERSON is asked in place of a browser: it takes the URL of the authorization at its end, and answers with where that
// ends. Each CALL is {"name": ..., "arguments": {...}}. Prints one JSON object on stdout:
// {"resource": ..., "tools": [...], "consents": [SCOPE...], "calls": [{...}]}
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const CALLBACK = 'http://127.0.0.1:1/callback';
const url = new URL(process.env.MCP_URL);
const calls = process.argv.slice(2).map((argument) => JSON.parse(argument));
const kept = {};
const consents = [];
let resource;
let code;

const authProvider = {
  redirectUrl: CALLBACK,
  clientMetadata: {
    client_name: 'typescript-oauth',
    redirect_uris: [CALLBACK],
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code'],
    response_types: ['code'],
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  redirectToAuthorization: async (authorization) => {
    resource = authorization.searchParams.get('resource');
    consents.push(authorization.searchParams.get('scope'));
    const answer = await fetch(`${process.env.MCP_PERSON}${encodeURIComponent(authorization)}`);
    if (!answer.ok) throw new Error(await answer.text());
    code = new URL(await answer.text()).searchParams.get('code');
  },
};

const transport = () => new StreamableHTTPClientTransport(url, { authProvider });
const client = () => new Client({ name: 'typescript-oauth', version: '1' });

// What needs a consent first is done again after it.
async function consenting(act) {
  for (let round = 0; round < 3; round++) {
    const connection = transport();
    const session = client();
    try {
      await session.connect(connection);
      return await act(session);
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error;
      await connection.finishAuth(code);
    } finally {
      await session.close();
    }
  }
  throw new Error('consented three times, and not let in');
}

const listed = await consenting((session) => session.listTools());
const results = [];
for (const call of calls) results.push(await consenting((session) => session.callTool(call)));
const tools = listed.tools.map((tool) => tool.name);
console.log(JSON.stringify({ resource, tools, consents, calls: results }));
