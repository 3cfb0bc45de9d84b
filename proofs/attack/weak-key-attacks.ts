/** Attacks with weak public keys: as keys of clients, and as members of another issuer's key set. */

import { generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { ClientServiceClient, CreateClientRequest } from '../../proto/gen/auth/v1/client_service.js';
import { ask } from '../../scripts/system/calls.js';
import type { Answer } from '../shared/wire.js';
import { expectRefusal, forEach, runClass } from './attempts.js';
import type { Environment, Target } from './environment.js';
import { encode } from './forge.js';
import { infinityPem, pemOf, type WeakKey, weakKeys } from './weak-keys.js';

/** The name of the issuer whose key set is under attack. */
export const ISSUER = 'https://issuer-with-weak-keys.example';
export const AUDIENCE = 'attacked';
export const GOOD_KID = 'good';

/** The claims of the issuer by which its tokens can be revoked. */
const REVOCABLE = ['tenant', ['realm_access', 'groups']];

/** The longest time until a token with an unknown key is decided: several fetches, on a busy machine. */
const DECIDED_WITHIN_MS = 60_000;
const DECIDED_POLL_MS = 100;

/** Another issuer whose key set contains every weak key, and one good one. */
export interface WeakIssuer {
  /** The value of PORTCULLIS_TRUSTED_ISSUERS. */
  readonly configuration: string;
  readonly privateKey: KeyObject;
}

/** Writes the key set of the issuer to a file. */
export async function createWeakIssuer(file: string): Promise<WeakIssuer> {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const good = { ...publicKey.export({ format: 'jwk' }), kid: GOOD_KID };
  const weak = weakKeys().map(({ name, algorithm, jwk }) => ({ ...jwk, kid: name, alg: algorithm }));
  await writeFile(file, JSON.stringify({ keys: [...weak, good] }));
  const audiences = { auth: AUDIENCE, inventory: AUDIENCE, payment: AUDIENCE };
  const scopes = { read: 'inventory.read', pay: 'payment.read' };
  const configuration = JSON.stringify([
    {
      ...{ issuer: ISSUER, jwks_file: file, algorithms: ['RS256', 'EdDSA'], audiences, scopes },
      revocable: REVOCABLE,
    },
  ]);
  return { configuration, privateKey };
}

export async function attackWithWeakKeys(environment: Environment, issuer: WeakIssuer): Promise<void> {
  await runClass(environment, CLIENT_CLASS, () => registerWeakKeys(environment));
  await runClass(environment, ISSUER_CLASS, () => presentWeakSignatures(environment, issuer));
}

const CLIENT_CLASS = 'weak keys of clients';

/** Registers a client with each weak key, and authenticates as it where that is possible without a private key. */
async function registerWeakKeys(environment: Environment): Promise<void> {
  const { system, board } = environment;
  const { accessToken: token } = await environment.logIn('olga');
  const clients = new ClientServiceClient(system.auth.address, credentials.createInsecure());
  const keys = [
    ...weakKeys().map((weak) => ({ what: weak.name, pem: pemOf(weak.jwk), weak })),
    { what: 'the point at infinity of P-256', pem: infinityPem(), weak: undefined },
  ];
  try {
    for (const { what, pem, weak } of keys) {
      const clientId = `weak-${randomUUID()}`;
      const request = CreateClientRequest.fromPartial({
        ...{ clientId, audiences: ['auth'], scopes: ['auth.sync'], requestId: randomUUID() },
        credential: { $case: 'publicKeyPem', value: pem },
      });
      const code = await ask(clients.createClient.bind(clients), request, { token }).then(
        () => undefined,
        (error: unknown) => errorOf(error)?.code ?? status.UNKNOWN,
      );
      if (code === undefined) {
        const how = (await authenticates(environment, clientId, weak)) ? 'and authenticates' : 'and stays';
        board.accepted(CLIENT_CLASS, `${what} is registered ${how}`);
      } else if (code === status.INVALID_ARGUMENT) board.refused(CLIENT_CLASS);
      else board.crashed(CLIENT_CLASS, `${what}: ${status[code]}`);
    }
  } finally {
    clients.close();
  }
}

async function authenticates(
  { system }: Environment,
  clientId: string,
  weak: WeakKey | undefined,
): Promise<boolean> {
  if (weak?.sign === undefined) return false;
  const nowSeconds = Math.floor(Date.now() / 1000);
  const claims = {
    iss: clientId,
    sub: clientId,
    aud: system.issuer,
    exp: nowSeconds + 60,
    jti: randomUUID(),
  };
  const value = signed({ alg: weak.algorithm, typ: 'JWT' }, claims, weak.sign);
  const auth = new AuthServiceClient(system.auth.address, credentials.createInsecure());
  const request = {
    clientId,
    audiences: [],
    scopes: [],
    credential: { $case: 'clientAssertion', value } as const,
  };
  try {
    return await ask(auth.issueServiceToken.bind(auth), request).then(
      () => true,
      () => false,
    );
  } finally {
    auth.close();
  }
}

const ISSUER_CLASS = "weak keys in another issuer's key set";

/** Sends tokens with signatures that were made without the issuer's private keys. */
async function presentWeakSignatures(environment: Environment, issuer: WeakIssuer): Promise<void> {
  const targets = environment.targets.filter(({ audience }) => audience !== 'auth');
  const claims = () => {
    const nowSeconds = Math.floor(Date.now() / 1000);
    return {
      ...{
        iss: ISSUER,
        aud: AUDIENCE,
        sub: 'mallory',
        client_id: 'web',
        sid: randomUUID(),
        jti: randomUUID(),
      },
      ...{ iat: nowSeconds, exp: nowSeconds + 60, scope: 'read pay' },
    };
  };
  await expectGoodKeyAccepted(environment, targets, (kid) =>
    signed({ alg: 'EdDSA', kid, typ: 'at+jwt' }, claims(), (text) => sign(null, text, issuer.privateKey)),
  );
  const attempts = weakKeys().flatMap(
    ({ name: kid, algorithm: alg, sign: make = () => Buffer.alloc(256, 1) }) =>
      targets.map((target) => ({ target, kid, token: signed({ alg, kid, typ: 'at+jwt' }, claims(), make) })),
  );
  await forEach(attempts, async ({ target, kid, token }) => {
    const answer = await decided(environment, target, token);
    const what = `${target.process.name}: ${kid}`;
    expectRefusal(environment, ISSUER_CLASS, what, answer, [environment.refusals.invalid]);
  });
}

/** Sends a token until it is decided: while the issuer's keys are fetched, an unknown key may yet be among them. */
async function decided(environment: Environment, target: Target, token: string): Promise<Answer> {
  const latestMs = performance.now() + DECIDED_WITHIN_MS;
  for (;;) {
    const answer = await environment.send(target, { authorization: [`Bearer ${token}`] });
    if (answer.status !== status.UNAVAILABLE || performance.now() > latestMs) return answer;
    await sleep(DECIDED_POLL_MS);
  }
}

/** Without this, the other attempts would prove nothing: they could be refused for the issuer's name. */
async function expectGoodKeyAccepted(
  environment: Environment,
  targets: readonly Target[],
  tokenBy: (kid: string) => string,
): Promise<void> {
  for (const target of targets) {
    const answer = await environment.send(target, { authorization: [`Bearer ${tokenBy(GOOD_KID)}`] });
    if (answer.kind !== 'answered' || answer.status !== status.OK) {
      throw new Error(`${target.process.name} refuses the good key of the other issuer: ${answer.fields}`);
    }
  }
}

function signed(header: object, claims: object, make: (text: Buffer) => Buffer): string {
  const text = [header, claims].map((part) => encode(JSON.stringify(part))).join('.');
  return `${text}.${make(Buffer.from(text)).toString('base64url')}`;
}
