/** The arms of the comparison: no guard, our guard, and common alternatives. */

import { createPublicKey, createSecretKey, verify as verifySignature } from 'node:crypto';
import {
  type Client,
  type Metadata,
  type Server,
  ServerInterceptingCall,
  type ServerInterceptor,
  status,
} from '@grpc/grpc-js';
import { createGuard, type Guard, native } from '@portcullis/guard';
import { createVerifier } from 'fast-jwt';
import { type CryptoKey, importJWK, type JWK, jwtVerify } from 'jose';
import jsonwebtoken from 'jsonwebtoken';
import { ECHO, ECHO_AUDIENCE, ECHO_HANDLERS, ECHO_SCHEMA, UNARY_PATH } from './echo.js';
import { BENCH_ISSUER, type BenchIssuer } from './issuer.js';

const ARMS = [
  'bare',
  'bare-again',
  'guard',
  'naive-cache',
  'jose',
  'jose-redis',
  'introspection',
  'jsonwebtoken',
  'jsonwebtoken-keyobject',
  'fast-jwt',
  'fast-jwt-cache',
  'node-crypto',
] as const;

export type ArmName = (typeof ARMS)[number];

interface ArmMaterial {
  readonly issuer: BenchIssuer;
  /** The HMAC secret; text, as in most configurations. */
  readonly secret: string;
  /** Redis with the revoked tokens. */
  readonly redis?: { get(key: string): Promise<string | null> };
  /** The server that introspects every token. */
  readonly introspector?: Client;
}

export interface Arm {
  readonly interceptors: readonly ServerInterceptor[];
  addTo(server: Server): void;
  readonly guard?: Guard;
}

export async function createArm(name: ArmName, material: ArmMaterial): Promise<Arm> {
  if (name === 'bare' || name === 'bare-again') return plain([]);
  if (name === 'guard') return await guarded(material.issuer);
  return plain([interceptorOf(await checkOf(name, material))]);
}

function plain(interceptors: readonly ServerInterceptor[]): Arm {
  return { interceptors, addTo: (server) => server.addService(ECHO, ECHO_HANDLERS) };
}

async function guarded(issuer: BenchIssuer): Promise<Arm> {
  const guard = await createGuard({
    log: 'silent',
    issuer: BENCH_ISSUER,
    audience: ECHO_AUDIENCE,
    auth: { source: issuer.source },
    // One user makes all calls of the load.
    limits: {
      callsPerUser: Number.POSITIVE_INFINITY,
      streamsPerUser: Number.POSITIVE_INFINITY,
      streamsPerConnection: Number.POSITIVE_INFINITY,
    },
  });
  await guard.ready;
  return {
    guard,
    interceptors: [guard.interceptor],
    addTo: (server) => guard.addService(server, ECHO, ECHO_SCHEMA, native(ECHO_HANDLERS)),
  };
}

/** Verifies a token, synchronously or not, as the library does. Throws or rejects when the token is bad. */
type Check = (token: string) => unknown;

/** An interceptor as in the documentation of grpc-js, with one check. */
function interceptorOf(check: Check): ServerInterceptor {
  return (_method, call) =>
    new ServerInterceptingCall(call, {
      start: (next) => {
        next({
          onReceiveMetadata: (metadata, pass) => {
            const refuse = (): void => call.sendStatus({ code: status.UNAUTHENTICATED, details: 'no' });
            try {
              const checked = check(tokenIn(metadata));
              if (checked instanceof Promise) checked.then(() => pass(metadata), refuse);
              else pass(metadata);
            } catch {
              refuse();
            }
          },
        });
      },
    });
}

function tokenIn(metadata: Metadata): string {
  const [value] = metadata.get('authorization');
  if (typeof value !== 'string' || !value.startsWith('Bearer ')) throw new Error('no token');
  return value.slice('Bearer '.length);
}

/** The claims that every library checks: issuer and audience. */
const EXPECTED = { issuer: BENCH_ISSUER, audience: ECHO_AUDIENCE };

async function checkOf(
  name: Exclude<ArmName, 'bare' | 'bare-again' | 'guard'>,
  material: ArmMaterial,
): Promise<Check> {
  const { issuer, secret } = material;
  const { algorithm } = issuer.published;
  const jwk = JSON.parse(issuer.published.jwk) as JWK;
  const pem = createPublicKey({ key: { ...jwk }, format: 'jwk' });
  const key = (await importJWK(jwk, algorithm)) as CryptoKey;
  const options = { ...EXPECTED, algorithms: [algorithm], typ: 'at+jwt' };
  const joseVerify = (token: string) => jwtVerify(token, key, options);
  switch (name) {
    case 'jose':
      return joseVerify;
    case 'naive-cache':
      return naiveCache(joseVerify);
    case 'jose-redis': {
      const { redis } = material;
      if (redis === undefined) throw new TypeError('this arm needs Redis');
      return async (token) => {
        const { payload } = await joseVerify(token);
        if ((await redis.get(`revoked:${payload.jti}`)) !== null) throw new Error('revoked');
      };
    }
    case 'introspection': {
      const { introspector } = material;
      if (introspector === undefined) throw new TypeError('this arm needs an introspection server');
      return (token) => introspect(introspector, token);
    }
    case 'jsonwebtoken':
      return (token) => jsonwebtoken.verify(token, secret, { ...EXPECTED, algorithms: ['HS256'] });
    case 'jsonwebtoken-keyobject': {
      const object = createSecretKey(Buffer.from(secret));
      return (token) => jsonwebtoken.verify(token, object, { ...EXPECTED, algorithms: ['HS256'] });
    }
    case 'fast-jwt':
    case 'fast-jwt-cache': {
      const verifier = createVerifier({
        key: pem.export({ type: 'spki', format: 'pem' }).toString(),
        algorithms: ['EdDSA'],
        allowedIss: BENCH_ISSUER,
        allowedAud: ECHO_AUDIENCE,
        cache: name === 'fast-jwt-cache' ? 10_000 : false,
      });
      return (token) => verifier(token) as object;
    }
    case 'node-crypto':
      return (token) => {
        const signed = token.lastIndexOf('.');
        const signature = Buffer.from(token.slice(signed + 1), 'base64url');
        if (!verifySignature(null, Buffer.from(token.slice(0, signed)), pem, signature))
          throw new Error('no');
      };
  }
}

/** The obvious cache: a Map from the whole token to its verified claims. */
function naiveCache(verify: (token: string) => Promise<{ readonly payload: object }>): Check {
  const known = new Map<string, { readonly payload: { readonly exp?: number } }>();
  return (token) => {
    const found = known.get(token);
    if (found !== undefined) {
      if ((found.payload.exp ?? 0) * 1000 < Date.now()) throw new Error('expired');
      return found;
    }
    return verify(token).then((result) => known.set(token, result));
  };
}

function introspect(client: Client, token: string): Promise<void> {
  const identity = (bytes: Buffer): Buffer => bytes;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(UNARY_PATH, identity, identity, Buffer.from(token), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
}
