/** Accounts of nats-server in operator mode, and the credentials of their users, as `nsc` would make them. */

import { randomUUID } from 'node:crypto';
import { nkeys } from 'nats';

type KeyPair = ReturnType<typeof nkeys.createUser>;

/** An account under an operator of its own. */
export interface NatsAccount {
  /** The settings with which a server trusts the operator. */
  readonly authentication: Readonly<Record<string, unknown>>;
  /** The key that signs users. */
  readonly key: KeyPair;
}

const UNLIMITED = { subs: -1, data: -1, payload: -1 };

/** Creates an operator and an account. */
export function natsAccount(): NatsAccount {
  const operator = nkeys.createOperator();
  const key = nkeys.createAccount();
  const account = signClaims(operator, key.getPublicKey(), {
    type: 'account',
    limits: { ...UNLIMITED, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 },
  });
  return {
    authentication: {
      operator: signClaims(operator, operator.getPublicKey(), { type: 'operator' }),
      resolver: 'MEMORY',
      resolver_preload: { [key.getPublicKey()]: account },
    },
    key,
  };
}

/** The contents of a credentials file for a new user of the account. */
export function credentialsOf({ key }: NatsAccount): string {
  const user = nkeys.createUser();
  const jwt = signClaims(key, user.getPublicKey(), { type: 'user', pub: {}, sub: {}, ...UNLIMITED });
  return [
    '-----BEGIN NATS USER JWT-----',
    jwt,
    '------END NATS USER JWT------',
    '',
    '-----BEGIN USER NKEY SEED-----',
    seedOf(user),
    '------END USER NKEY SEED------',
    '',
  ].join('\n');
}

/** The seed of a key in text. */
export function seedOf(key: KeyPair): string {
  return Buffer.from(key.getSeed()).toString('latin1');
}

function signClaims(issuer: KeyPair, subject: string, nats: object): string {
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = {
    jti: randomUUID(),
    iat: Math.floor(Date.now() / 1000),
    iss: issuer.getPublicKey(),
    name: 'test',
    sub: subject,
    nats: { ...nats, version: 2 },
  };
  const signed = `${encode({ typ: 'JWT', alg: 'ed25519-nkey' })}.${encode(claims)}`;
  return `${signed}.${Buffer.from(issuer.sign(Buffer.from(signed))).toString('base64url')}`;
}
