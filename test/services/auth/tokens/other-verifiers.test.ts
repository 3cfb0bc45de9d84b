/** Tokens of every algorithm, verified by other libraries with nothing but the key set over HTTP. */

import { execFile } from 'node:child_process';
import { createPublicKey, type JsonWebKey } from 'node:crypto';
import { promisify } from 'node:util';
import { createGuard, type Guard } from '@portcullis/guard';
import { SIGNATURE_ALGORITHMS } from '@portcullis/guard/limits';
import { expect } from 'chai';
import { createVerifier } from 'fast-jwt';
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';
import jsonwebtoken from 'jsonwebtoken';
import { Registry } from 'prom-client';
import { createRevocationSource } from '../../../../services/auth/adapters/revocation-source.js';
import { createWellKnownRoutes, JWKS_PATH } from '../../../../services/auth/adapters/well-known.js';
import type { HttpPort } from '../../../../services/common/host/http-port.js';
import { createLog } from '../../../../services/common/host/log.js';
import { startOps } from '../../../../services/common/host/ops.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { type AuthInstance, addClient, ISSUER, openFreshAuth, serviceToken } from '../instance.js';

const AUDIENCE = 'echo';

const PYTHON_TIMEOUT_MS = 30_000;

/** Fetches the key set and prints the claims of the token. */
const PYTHON_PROGRAM = `
import json, sys, jwt
url, token, algorithm, audience, issuer = sys.argv[1:]
key = jwt.PyJWKClient(url).get_signing_key_from_jwt(token).key
print(json.dumps(jwt.decode(token, key, algorithms=[algorithm], audience=audience, issuer=issuer)))
`;

/** A Python with PyJWT; a machine without one fails the test instead of skipping it. */
async function findPython(): Promise<string> {
  for (const python of ['/usr/bin/python3', 'python3']) {
    const found = await run(python, ['-c', 'import jwt, cryptography']).then(
      () => true,
      () => false,
    );
    if (found) return python;
  }
  throw new Error('PyJWT is missing; on Debian: apt-get install -y python3-jwt python3-cryptography');
}

async function run(python: string, args: readonly string[]): Promise<string> {
  // Without proxy variables: a proxy cannot reach this machine's loopback address.
  const env = { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '' };
  return (await promisify(execFile)(python, [...args], { env, timeout: PYTHON_TIMEOUT_MS })).stdout;
}

interface ServedKey extends JsonWebKey {
  readonly kid: string;
  readonly alg: string;
}

describe('other verifiers', function () {
  this.timeout(120_000);
  let python: string;

  before(async () => {
    python = await findPython();
  });

  for (const algorithm of SIGNATURE_ALGORITHMS) {
    describe(`of ${algorithm} tokens`, () => {
      let auth: AuthInstance;
      let guard: Guard;
      let ops: HttpPort;
      let url: string;
      let token: string;
      let subject: string;
      let forged: string;

      before(async () => {
        auth = await openFreshAuth({ algorithm });
        ops = await startOps({
          host: '127.0.0.1',
          port: 0,
          registry: new Registry(),
          missing: () => ({}),
          routes: createWellKnownRoutes({
            issuer: ISSUER,
            publicKeys: auth.publicKeys,
            receiptKeys: async () => [],
          }),
          log: createLog({ service: 'test', level: 'silent' }),
        });
        url = `http://127.0.0.1:${ops.port}${JWKS_PATH}`;
        const client = await addClient(auth, { scopes: ['echo.call'], audiences: [AUDIENCE] });
        subject = client.clientId;
        token = await serviceToken(auth, client);
        forged = withOtherSignature(token);
        const source = createRevocationSource(auth.revocations);
        guard = await createGuard({ log: 'silent', issuer: ISSUER, audience: AUDIENCE, auth: { source } });
        await guard.ready;
      });
      after(async () => {
        await guard.close();
        await ops.close();
        await auth.close();
      });

      const servedKey = async (): Promise<ServedKey> => {
        const { keys } = (await (await fetch(url)).json()) as { keys: ServedKey[] };
        const key = keys.find(({ kid }) => kid === decodeProtectedHeader(token).kid);
        if (key === undefined) throw new Error('the key is not published');
        return key;
      };
      const pemOf = async (): Promise<string> =>
        createPublicKey({ key: await servedKey(), format: 'jwk' })
          .export({ type: 'spki', format: 'pem' })
          .toString();

      it('the guard accepts the token and rejects a forged one', async () => {
        expect(decodeProtectedHeader(token).alg).to.equal(algorithm);
        expect((await guard.authenticateToken(token, AUDIENCE)).subject).to.equal(subject);
        expect(await rejectionOf(guard.authenticateToken(forged, AUDIENCE))).to.include({
          code: 'TOKEN_INVALID',
        });
      });

      it('jose accepts the token and rejects a forged one', async () => {
        const keys = createRemoteJWKSet(new URL(url));
        const options = { issuer: ISSUER, audience: AUDIENCE, typ: 'at+jwt', algorithms: [algorithm] };
        expect((await jwtVerify(token, keys, options)).payload.sub).to.equal(subject);
        expect(await rejectionOf(jwtVerify(forged, keys, options))).to.be.instanceOf(Error);
      });

      it('fast-jwt accepts the token and rejects a forged one', async () => {
        const verify = createVerifier({
          key: await pemOf(),
          algorithms: [algorithm],
          allowedIss: ISSUER,
          allowedAud: AUDIENCE,
        });
        expect(verify(token)).to.include({ sub: subject });
        expect(() => verify(forged)).to.throw(/signature/i);
      });

      // jsonwebtoken does not support EdDSA.
      if (algorithm !== 'EdDSA') {
        it('jsonwebtoken accepts the token and rejects a forged one', async () => {
          const key = createPublicKey({ key: await servedKey(), format: 'jwk' });
          const options = { algorithms: [algorithm], issuer: ISSUER, audience: AUDIENCE };
          expect(jsonwebtoken.verify(token, key, options)).to.include({ sub: subject });
          expect(() => jsonwebtoken.verify(forged, key, options)).to.throw(/signature/i);
        });
      }

      it('PyJWT accepts the token and rejects a forged one', async () => {
        const decode = (text: string) =>
          run(python, ['-c', PYTHON_PROGRAM, url, text, algorithm, AUDIENCE, ISSUER]);
        const claims = JSON.parse(await decode(token)) as { sub: string };
        expect(claims.sub).to.equal(subject);
        expect(String((await rejectionOf(decode(forged))).message)).to.contain('InvalidSignatureError');
      });

      it('the key has the required strength and names its only algorithm', async () => {
        const key = await servedKey();
        expect([key.alg, key['use']]).to.deep.equal([algorithm, 'sig']);
        const details = createPublicKey({ key, format: 'jwk' }).asymmetricKeyDetails;
        if (key.kty === 'RSA') expect(details?.modulusLength).to.be.at.least(2048);
        if (key.kty === 'EC') expect(details?.namedCurve).to.equal('prime256v1');
      });
    });
  }
});

/** The token with one bit flipped in the middle of its signature, where every bit is significant. */
function withOtherSignature(token: string): string {
  const [header = '', payload = '', signature = ''] = token.split('.');
  const bytes = Buffer.from(signature, 'base64url');
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  return [header, payload, bytes.toString('base64url')].join('.');
}
