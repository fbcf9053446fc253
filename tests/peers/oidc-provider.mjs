// An issuer of OpenID Connect (npm oidc-provider) on a free port of loopback, with a person who confirms codes in place of
// a browser, and tokens that an issuer would never sign.
//
//   GET /test/confirm?code=CODE&login=NAME   walks the pages that a person would, as NAME
//   GET /test/groups?login=NAME&groups=A,B   what groups NAME has from now on
//   GET /test/forged?kind=KIND&login=NAME    a token that has to be refused, or for `good`, one that has not
//   GET /test/authorize?login=NAME&url=URL   walks the pages of an authorization as NAME; answers with where that ends
//   GET /test/signed?by=KEY&header=JSON&claims=JSON   a token of anybody (own, stranger, secret, nobody) that says anything;
//                                            `exp`, `nbf` and `iat` are seconds from now
//   GET /test/asked                          how often the keys were asked for

import { createHmac, createSign, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';
const groups = new Map();
const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const jwk = { ...privateKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' };

const client = (id) => ({
  client_id: id,
  token_endpoint_auth_method: 'none',
  application_type: 'native',
  grant_types: [DEVICE],
  response_types: [],
  redirect_uris: [],
});
// What tokens for resources may be for, where a client names one (RFC 8707).
const SCOPES = 'mcp admin';

const server = createServer();
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [client('gantry-cli'), client('another-client')],
  jwks: { keys: [jwk] },
  cookies: { keys: ['of a test'] },
  scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
  features: {
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: SCOPES,
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  extraTokenClaims: (_, token) => ({ groups: groups.get(token.accountId) ?? [] }),
  claims: { openid: ['sub'], groups: ['groups'] },
  // The scope's claims stand in the id token, as they do with the issuers that organisations have.
  conformIdTokenClaims: false,
  ttl: { IdToken: 300, DeviceCode: 300, Grant: 600, Session: 600, Interaction: 300, AccessToken: 300 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: groups.get(id) ?? [] }) }),
});

/// A browser of one person: cookies, forms, redirects. It leaves the issuer for nobody.
function browser() {
  const cookies = new Map();
  const ask = async (url, form) => {
    const response = await fetch(url, {
      method: form ? 'POST' : 'GET',
      body: form && new URLSearchParams(form),
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [name, ...value] = cookie.split(';')[0].split('=');
      cookies.set(name, value.join('='));
    }
    const location = response.headers.get('location');
    const next = location && new URL(location, url);
    if (next && next.origin !== issuer) return { url: next.href, page: '', status: 0 };
    if (next) return ask(next.href);
    return { url, page: await response.text(), status: response.status };
  };
  return ask;
}

const action = ({ url, page }) => new URL(/action="([^"]+)"/.exec(page)?.[1] ?? url, url).href;

async function confirm(code, login) {
  const ask = browser();
  const xsrf = (page) => /name="xsrf" value="([^"]+)"/.exec(page)[1];
  let at = await ask(`${issuer}/device`);
  at = await ask(action(at), { xsrf: xsrf(at.page), user_code: code });
  at = await ask(action(at), { xsrf: xsrf(at.page), user_code: code, confirm: 'yes' });
  at = await ask(action(at), { prompt: 'login', login, password: 'any' });
  at = await ask(action(at), { prompt: 'consent' });
  if (at.status !== 200 || /name="(xsrf|prompt)"/.test(at.page)) throw new Error(`not confirmed: ${at.page}`);
}

async function authorize(url, login) {
  const ask = browser();
  let at = await ask(url);
  for (let page = 0; page < 4 && at.status === 200; page++) {
    const prompt = /name="prompt" value="([^"]+)"/.exec(at.page)?.[1];
    at = await ask(action(at), prompt === 'login' ? { prompt, login, password: 'any' } : { prompt });
  }
  if (at.status !== 0) throw new Error(`not authorized: ${at.page}`);
  return at.url;
}

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

function forged(kind, login) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: issuer, aud: 'gantry-cli', sub: login, groups: groups.get(login) ?? [], iat: now, exp: now + 300 };
  const changes = {
    good: {},
    audience: { aud: 'another-client' },
    expired: { iat: now - 600, exp: now - 120 },
    old: { iat: now - 90_000 },
    issuer: { iss: 'https://id.example.com' },
  };
  const signed = (header) => `${encode(header)}.${encode({ ...claims, ...changes[kind] })}`;
  if (kind === 'unsigned') return `${signed({ alg: 'none' })}.`;
  if (kind === 'confused') {
    const input = signed({ alg: 'HS256', kid: 'one' });
    const secret = publicKey.export({ format: 'pem', type: 'spki' });
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
  }
  const input = signed({ alg: 'RS256', kid: kind === 'unknown-key' ? 'two' : 'one' });
  const key = kind === 'stranger' || kind === 'unknown-key' ? stranger : privateKey;
  return `${input}.${createSign('sha256').update(input).sign(key, 'base64url')}`;
}

function signed(by, header, claims) {
  const now = Math.floor(Date.now() / 1000);
  for (const time of ['exp', 'nbf', 'iat']) if (claims[time] !== undefined) claims[time] += now;
  const input = `${encode(header)}.${encode({ iss: issuer, ...claims })}`;
  if (by === 'nobody') return `${input}.`;
  if (by === 'secret') {
    const secret = publicKey.export({ format: 'pem', type: 'spki' });
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
  }
  return `${input}.${createSign('sha256').update(input).sign(by === 'own' ? privateKey : stranger, 'base64url')}`;
}

let asked = 0;
const callback = provider.callback();
server.on('request', async (request, response) => {
  const url = new URL(request.url, issuer);
  const [login, list] = [url.searchParams.get('login'), url.searchParams.get('groups')];
  try {
    switch (url.pathname) {
      case '/test/confirm':
        await confirm(url.searchParams.get('code'), login);
        return response.end();
      case '/test/groups':
        groups.set(login, list ? list.split(',') : []);
        return response.end();
      case '/test/forged':
        return response.end(forged(url.searchParams.get('kind'), login));
      case '/test/authorize':
        return response.end(await authorize(url.searchParams.get('url'), login));
      case '/test/signed': {
        const [header, claims] = ['header', 'claims'].map((name) => JSON.parse(url.searchParams.get(name)));
        return response.end(signed(url.searchParams.get('by'), header, claims));
      }
      case '/test/asked':
        return response.end(`${asked}`);
      case '/reg': {
        // A person consents to scopes, and not the registration.
        const parts = [];
        for await (const part of request) parts.push(part);
        request.body = JSON.parse(Buffer.concat(parts));
        delete request.body.scope;
        return callback(request, response);
      }
      case '/jwks':
        asked += 1;
        return callback(request, response);
      default:
        return callback(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    return response.end(`${error.stack}`);
  }
});
console.log(JSON.stringify({ issuer }));
