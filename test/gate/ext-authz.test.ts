/** Envoy's ext_authz, asked by a client that sends what Envoy sends. */
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  AuthorizationClient,
  CheckRequest,
  type CheckResponse,
  HeaderAppendAction,
} from '../../gate/gen/envoy/service/auth/v3/external_auth.js';
import { type GateUnderTest, startGateUnderTest } from './gate-support.js';

const UNARY = '/test.v1.EchoService/Unary';

describe('ext_authz', () => {
  let under: GateUnderTest;
  let client: AuthorizationClient;

  before(async () => {
    under = await startGateUnderTest((folder) => ({
      listen: undefined,
      upstream: undefined,
      extAuthz: { address: { kind: 'unix', path: join(folder, 'authz.sock') }, tls: undefined },
    }));
    client = new AuthorizationClient(under.gate.addresses.extAuthz ?? '', credentials.createInsecure());
  });
  after(async () => {
    client.close();
    await under.stop();
  });

  it('admits, replaces identity headers, and removes the token and what the caller says about itself', async () => {
    const caller = under.kit.user({ scopes: ['echo.call'] });
    const response = await check({
      headers: {
        authorization: `Bearer ${caller.token}`,
        'x-portcullis-roles': 'admin',
        'x-portcullis-evil': '1',
        x_portcullis_subject: 'admin',
        'X-Portcullis_Id': 'admin',
      },
    });
    expect(response.status?.code).to.equal(0);
    const { headers, headersToRemove } = admitted(response);
    const subject = headers.find(({ header }) => header?.key === 'x-portcullis-subject');
    expect(subject?.header?.value).to.equal(caller.id);
    expect(subject?.appendAction).to.equal(HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD);
    expect(headersToRemove).to.include.members([
      'authorization',
      'x-portcullis-roles',
      'x-portcullis-evil',
      'x_portcullis_subject',
      'x-portcullis_id',
    ]);
    expect(headersToRemove).to.not.include('x-portcullis-subject');
  });

  it('refuses a call of gRPC with HTTP status, status, message and details', async () => {
    const { status, headers, body } = denied(await check({}));
    expect(status?.code).to.equal(401);
    expect(body).to.equal('an access token is required');
    const names = headers.map(({ header }) => header?.key);
    expect(names).to.include.members(['grpc-status', 'grpc-message', 'grpc-status-details-bin']);
  });

  it('refuses other callers in their own protocol', async () => {
    const { status, headers, body } = denied(
      await check({ headers: { 'content-type': 'application/json' } }),
    );
    expect(status?.code).to.equal(401);
    expect(JSON.parse(body).error.status).to.equal('UNAUTHENTICATED');
    expect(headers.map(({ header }) => header?.key)).to.include('www-authenticate');
  });

  it('sees a repeated credential in raw headers, and takes a joined one for none', async () => {
    const { token } = under.kit.user({ scopes: ['echo.call'] });
    const value = `Bearer ${token}`;
    const raw = (values: readonly string[]) => ({
      headers: values.map((text) => ({ key: 'authorization', value: '', rawValue: Buffer.from(text) })),
    });
    expect((await check({ headerMap: raw([value]) })).status?.code).to.equal(0);
    expect((await check({ headerMap: raw([value, value]) })).status?.code).to.equal(16);
    expect((await check({ headers: { authorization: `${value},${value}` } })).status?.code).to.equal(16);
  });

  it('compares the path exactly', async () => {
    const { token } = under.kit.user({ scopes: ['echo.call'] });
    const headers = { authorization: `Bearer ${token}` };
    for (const path of [`${UNARY}?x`, `${UNARY}/`, `/${UNARY}`, '/test.v1.EchoService/unary', '', '*']) {
      expect((await check({ path, headers })).status?.code, path).to.not.equal(0);
    }
  });

  it('refuses a token that was readable on the network', async () => {
    const { token } = under.kit.user({ scopes: ['echo.call'] });
    const headers = { authorization: `Bearer ${token}` };
    const remote = { scheme: 'http', headers, address: '192.0.2.1' };
    expect((await check(remote)).status?.message).to.include('TLS');
    expect((await check({ ...remote, scheme: 'https' })).status?.code).to.equal(0);
    expect((await check({ ...remote, address: '127.0.0.1' })).status?.code).to.equal(0);
  });

  it('takes silence about the connection, and a scheme that it does not know, for plaintext', async () => {
    const { token } = under.kit.user({ scopes: ['echo.call'] });
    const headers = { authorization: `Bearer ${token}` };
    for (const [scheme, address] of [
      ['', '192.0.2.1'],
      ['HTTPS', '192.0.2.1'],
      ['http', ''],
      ['', ''],
    ] as const) {
      const { status } = await check({ scheme, headers, address });
      expect(status?.message, `scheme '${scheme}', address '${address}'`).to.include('TLS');
    }
    expect((await check({ headers, address: '' })).status?.code).to.equal(0);
  });

  it('admits a revoked token no longer', async () => {
    const caller = under.kit.user({ scopes: ['echo.call'] });
    const headers = { authorization: `Bearer ${caller.token}` };
    expect((await check({ headers })).status?.code).to.equal(0);
    await under.kit.revoke({ token: caller });
    const { headers: sent } = denied(await check({ headers }));
    const details = sent.find(({ header }) => header?.key === 'grpc-status-details-bin')?.header?.value ?? '';
    expect(Buffer.from(details, 'base64').toString('latin1')).to.include('TOKEN_REVOKED');
  });

  it('refuses a request without attributes', async () => {
    const response = await new Promise<CheckResponse>((resolve, reject) => {
      client.check(CheckRequest.fromPartial({}), (error, answer) =>
        error === null ? resolve(answer) : reject(error),
      );
    });
    expect(response.status?.code).to.not.equal(0);
  });

  interface Asked {
    readonly path?: string;
    readonly scheme?: string;
    readonly address?: string;
    readonly headers?: Record<string, string>;
    readonly headerMap?: { headers: { key: string; value: string; rawValue: Buffer }[] };
  }

  function check({
    path = UNARY,
    scheme = 'https',
    address = '192.0.2.1',
    headers = {},
    headerMap,
  }: Asked): Promise<CheckResponse> {
    const request = CheckRequest.fromPartial({
      attributes: {
        source: { address: { address: { $case: 'socketAddress', value: { address, portValue: 4711 } } } },
        request: {
          http: {
            method: 'POST',
            path,
            scheme,
            headers: { 'content-type': 'application/grpc', ...headers },
            ...(headerMap === undefined ? {} : { headerMap }),
          },
        },
      },
    });
    return new Promise((resolve, reject) => {
      client.check(request, (error, response) => (error === null ? resolve(response) : reject(error)));
    });
  }
});

function admitted({ httpResponse }: CheckResponse) {
  if (httpResponse?.$case !== 'okResponse') throw new Error('the request was not admitted');
  return httpResponse.value;
}

function denied({ httpResponse }: CheckResponse) {
  if (httpResponse?.$case !== 'deniedResponse') throw new Error('the request was not denied');
  return httpResponse.value;
}
