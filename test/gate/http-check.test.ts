/** The HTTP check, asked as nginx, Caddy and Traefik ask. */
import { request } from 'node:http';
import { expect } from 'chai';
import { openHttpCheck } from '../../gate/src/http-check.js';
import { createIdentity } from '../../gate/src/identity.js';
import { rejectionOf } from '../support/outcomes.js';
import { type GateUnderTest, SILENT, startGateUnderTest } from './gate-support.js';

const UNARY = '/test.v1.EchoService/Unary';
const LOCAL = { 'x-forwarded-for': '127.0.0.1' };

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

describe('the HTTP check', () => {
  let under: GateUnderTest;

  before(async () => {
    under = await startGateUnderTest({
      listen: undefined,
      upstream: undefined,
      httpCheck: {
        address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
        pathHeader: 'x-original-uri',
        addressHeader: 'x-forwarded-for',
        certHeader: undefined,
      },
    });
  });
  after(() => under.stop());

  const bearer = (scopes: readonly string[] = ['echo.call']) => `Bearer ${under.kit.user({ scopes }).token}`;

  it('answers 200 with the identity', async () => {
    const caller = under.kit.user({ scopes: ['echo.call'] });
    const answer = await ask({ ...LOCAL, 'x-original-uri': UNARY, authorization: `Bearer ${caller.token}` });
    expect(answer.status).to.equal(200);
    expect(answer.headers['x-portcullis-subject']).to.equal(caller.id);
  });

  it('answers 401 and 403 with the status of gRPC in headers', async () => {
    const missing = await ask({ ...LOCAL, 'x-original-uri': UNARY });
    expect(missing.status).to.equal(401);
    expect(missing.headers).to.include({ 'grpc-status': '16', 'x-portcullis-reason': 'TOKEN_MISSING' });
    expect(missing.headers['grpc-status-details-bin']).to.match(/^[A-Za-z0-9+/]+=*$/);
    const weak = await ask({ ...LOCAL, 'x-original-uri': UNARY, authorization: bearer([]) });
    expect([weak.status, weak.headers['grpc-status']]).to.deep.equal([403, '7']);
    const unknown = await ask({ ...LOCAL, 'x-original-uri': '/a.B/C', authorization: bearer() });
    expect([unknown.status, unknown.headers['grpc-status']]).to.deep.equal([403, '12']);
  });

  it('knows no method when the header with the path is missing, or was sent twice', async () => {
    expect((await ask({ ...LOCAL, authorization: bearer() })).status).to.equal(403);
    const twice = await ask({ ...LOCAL, 'x-original-uri': [UNARY, UNARY], authorization: bearer() });
    expect(twice.status).to.equal(403);
  });

  it('refuses two credentials', async () => {
    const value = bearer();
    const answer = await ask({ ...LOCAL, 'x-original-uri': UNARY, authorization: [value, value] });
    expect(answer.headers['x-portcullis-reason']).to.equal('TOKEN_INVALID');
  });

  it('refuses a token that was readable on the network, and takes silence about the connection for that', async () => {
    const asked = { 'x-original-uri': UNARY, authorization: bearer() };
    for (const headers of [
      asked,
      { ...asked, 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'http' },
      { ...asked, 'x-forwarded-for': '127.0.0.1, 192.0.2.1' },
      { ...asked, 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'ws' },
      { ...asked, 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': ['https', 'http'] },
    ]) {
      const { headers: sent } = await ask(headers);
      expect(sent['x-portcullis-reason'], JSON.stringify(Object.keys(headers))).to.equal('TLS_REQUIRED');
    }
    expect((await ask({ ...asked, 'x-forwarded-proto': 'https' })).status).to.equal(200);
  });

  it('takes no address from headers that the proxy passes on, and none that is no address', async () => {
    const asked = { 'x-original-uri': UNARY, authorization: bearer() };
    for (const headers of [
      // Caddy passes the caller's own.
      { ...asked, 'x-real-ip': '127.0.0.1', 'x-forwarded-for': '192.0.2.1' },
      { ...asked, 'x-real-ip': '127.0.0.1' },
      { ...asked, 'x-forwarded-for': '127.0.0.1:80' },
      { ...asked, 'x-forwarded-for': '127.0.0.999' },
      { ...asked, 'x-forwarded-for': ['127.0.0.1', 'unknown'] },
    ]) {
      const { headers: sent } = await ask(headers);
      expect(sent['x-portcullis-reason'], Object.values(headers).slice(2).join('; ')).to.equal(
        'TLS_REQUIRED',
      );
    }
  });

  it('takes the address from the header that the settings name, and from no other', async () => {
    const asked = { 'x-original-uri': UNARY, authorization: bearer() };
    const named = await startGateUnderTest({
      listen: undefined,
      upstream: undefined,
      httpCheck: {
        address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
        pathHeader: 'x-original-uri',
        addressHeader: 'x-real-ip',
        certHeader: undefined,
      },
    });
    try {
      const { token } = named.kit.user({ scopes: ['echo.call'] });
      const headers = { ...asked, authorization: `Bearer ${token}` };
      expect((await ask({ ...headers, 'x-real-ip': '127.0.0.1' }, named)).status).to.equal(200);
      const other = await ask({ ...headers, 'x-forwarded-for': '127.0.0.1' }, named);
      expect(other.headers['x-portcullis-reason']).to.equal('TLS_REQUIRED');
    } finally {
      await named.stop();
    }
  });

  it('sends callers without gRPC a body in their own protocol', async () => {
    const answer = await ask({ ...LOCAL, 'x-original-uri': UNARY, 'content-type': 'application/json' });
    expect(JSON.parse(answer.body).error.code).to.equal(401);
    expect(answer.headers['www-authenticate']).to.equal('Bearer');
  });

  it('does not open where others on the network could ask about tokens', async () => {
    const error = await rejectionOf(
      openHttpCheck({
        address: { kind: 'tcp', host: '0.0.0.0', port: 0 },
        pathHeader: 'x-original-uri',
        addressHeader: 'x-forwarded-for',
        certHeader: undefined,
        asked: { decide: () => ({ isAdmitted: true, principal: undefined }) },
        identity: () => createIdentity({ mode: 'off', token: 'strip', issuer: 'x', audience: 'x' }),
        log: SILENT,
      }),
    );
    expect(error).to.be.instanceOf(TypeError);
  });

  function ask(headers: Record<string, string | string[]>, of: GateUnderTest = under): Promise<Answer> {
    const [host, port] = (of.gate.addresses.httpCheck ?? '').split(':');
    return new Promise((resolve, reject) => {
      const sent = request({ host, port, path: '/check', headers }, (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: String(Buffer.concat(parts)),
          }),
        );
      });
      sent.on('error', reject);
      sent.end();
    });
  }
});
