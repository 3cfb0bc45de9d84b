/** Tests of the well-known endpoints over HTTP, as caches and proxies use them. */

import { type IncomingHttpHeaders, request } from 'node:http';
import { expect } from 'chai';
import { Registry } from 'prom-client';
import {
  createWellKnownRoutes,
  JWKS_PATH,
  KEYS_CACHE_SECONDS,
  METADATA_PATH,
} from '../../../../services/auth/adapters/well-known.js';
import { NEXT_PUBLISHED_SECONDS_MIN } from '../../../../services/auth/keys/key-life.js';
import type { PublicKeys } from '../../../../services/auth/keys/published-keys.js';
import type { PublishedKey } from '../../../../services/auth/records/keys.js';
import type { HttpPort } from '../../../../services/common/host/http-port.js';
import { createLog } from '../../../../services/common/host/log.js';
import { startOps } from '../../../../services/common/host/ops.js';

const KEY = { kid: 'one', algorithm: 'EdDSA', jwk: '{"kty":"OKP","crv":"Ed25519","x":"AAAA"}' };

describe('the well-known endpoints', () => {
  let ops: HttpPort;
  let keys: PublishedKey[];

  beforeEach(async () => {
    keys = [KEY];
    const publicKeys: PublicKeys = {
      read: async () => ({
        epoch: Buffer.alloc(16),
        keySet: { version: Buffer.alloc(32), keys },
        broadcastKeys: [{ ...KEY, kid: 'broadcast' }],
      }),
    };
    ops = await startOps({
      host: '127.0.0.1',
      port: 0,
      registry: new Registry(),
      missing: () => ({}),
      routes: createWellKnownRoutes({
        issuer: 'https://auth.test/',
        publicKeys,
        receiptKeys: async () => [],
      }),
      log: createLog({ service: 'test', level: 'silent' }),
    });
  });
  afterEach(() => ops.close());

  const get = (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> =>
    new Promise((resolve, reject) => {
      request({ port: ops.port, host: '127.0.0.1', path, headers, method }, (response) => {
        let body = '';
        response.on('data', (part: Buffer) => {
          body += part.toString();
        });
        response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
      })
        .on('error', reject)
        .end();
    });

  it('may be cached for a fraction of the time that a key is published before it signs', async () => {
    expect(KEYS_CACHE_SECONDS * 5).to.be.below(NEXT_PUBLISHED_SECONDS_MIN);
    for (const path of [JWKS_PATH, METADATA_PATH]) {
      const { headers, status } = await get(path);
      expect(status).to.equal(200);
      expect(headers['cache-control']).to.equal(`public, max-age=${KEYS_CACHE_SECONDS}`);
      expect(headers['content-type']).to.equal('application/json');
    }
  });

  it('publish exactly the public members of a key, and no broadcast key', async () => {
    const secret = {
      d: 'private',
      p: 'private',
      q: 'private',
      dp: 'private',
      dq: 'private',
      qi: 'private',
      k: 'private',
    };
    keys = [{ ...KEY, jwk: JSON.stringify({ ...(JSON.parse(KEY.jwk) as object), ...secret }) }];
    const { body } = await get(JWKS_PATH);
    expect(JSON.parse(body)).to.deep.equal({
      keys: [{ kty: 'OKP', crv: 'Ed25519', x: 'AAAA', kid: 'one', alg: 'EdDSA', use: 'sig' }],
    });
    expect(body).to.not.contain('private');
  });

  it('answer 304 for an unchanged key set, and the new set after a change', async () => {
    const whole = await get(JWKS_PATH);
    const etag = whole.headers.etag ?? '';
    expect(etag).to.match(/^"[A-Za-z0-9_-]{43}"$/);
    for (const condition of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const answer = await get(JWKS_PATH, { 'if-none-match': condition });
      expect([answer.status, answer.body, answer.headers.etag]).to.deep.equal([304, '', etag]);
      expect(answer.headers['cache-control']).to.equal(whole.headers['cache-control']);
    }
    expect((await get(JWKS_PATH, { 'if-none-match': '"other"' })).status).to.equal(200);
    keys = [KEY, { ...KEY, kid: 'two' }];
    const changed = await get(JWKS_PATH, { 'if-none-match': etag });
    expect(changed.status).to.equal(200);
    expect(changed.headers.etag).to.not.equal(etag);
  });

  it('answer HEAD like GET, without the body', async () => {
    for (const path of [JWKS_PATH, METADATA_PATH]) {
      const [whole, head] = [await get(path), await get(path, {}, 'HEAD')];
      expect([head.status, head.body]).to.deep.equal([200, '']);
      for (const name of ['etag', 'cache-control', 'content-type', 'content-length']) {
        expect(head.headers[name], name).to.equal(whole.headers[name]);
      }
    }
    expect((await get(JWKS_PATH, {}, 'POST')).status).to.equal(405);
  });

  it("name the path of this issuer's keys", async () => {
    const { body } = await get(METADATA_PATH);
    expect(JSON.parse(body)).to.deep.include({
      issuer: 'https://auth.test/',
      jwks_uri: 'https://auth.test/.well-known/jwks.json',
      response_types_supported: [],
    });
  });
});

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}
