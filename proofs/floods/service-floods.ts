/** Floods of a service client: a holder of a client key, whose client may sync, exchange and introspect. */

import { createPrivateKey, randomBytes, randomUUID, sign } from 'node:crypto';
import { IntrospectRequest } from '../../proto/gen/auth/v1/auth_service.js';
import { PullRequest, SyncRequest } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ExchangeTokenRequest, IssueServiceTokenRequest } from '../../proto/gen/portcullis/token/v1/token.js';
import type { Attack } from './attack.js';
import type { Flood } from './flood.js';

const REVOCATION = '/portcullis.revocation.v1.RevocationService';
const AUTH = '/auth.v1.AuthService';
const INSTANCE_ID_BYTES = 16;
const ASSERTION_SECONDS = 60;

/** Sends messages of the attackers' client to auth from one address, as a service would. */
async function sendAsService(
  attack: Attack,
  pace: { readonly perSecond: number; readonly atOnce: number; readonly most: number },
  call: (index: number) => { readonly path: string; readonly message: Uint8Array },
): Promise<void> {
  const { accessToken: token } = attack.input.service;
  await attack.repeat(pace, async (index) => {
    await attack.send({ to: attack.input.addresses.auth, ...call(index), token, from: attack.strange(0) });
  });
}

/** Creates valid assertions of the attackers' client (RFC 7523 §3), each with an id of its own. */
function createAssertions(attack: Attack): () => string {
  const { clientId, privateKeyPem } = attack.input.service;
  const key = createPrivateKey(privateKeyPem);
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return () => {
    const issuedAt = Math.floor(Date.now() / 1_000);
    const text = `${encode({ alg: 'EdDSA' })}.${encode({
      iss: clientId,
      sub: clientId,
      aud: attack.input.issuer,
      iat: issuedAt,
      exp: issuedAt + ASSERTION_SECONDS,
      jti: randomUUID(),
    })}`;
    return `${text}.${sign(null, Buffer.from(text), key).toString('base64url')}`;
  };
}

function syncMessage(service: string, instance: Buffer): Uint8Array {
  return SyncRequest.encode(SyncRequest.fromPartial({ service, instance })).finish();
}

export const SERVICE_FLOODS: readonly Flood[] = [
  {
    name: 'invented-instances',
    attacker: 'service',
    title: '3,000 syncs of instances that do not exist, also under the names of other services',
    notReached:
      'A Revoke that waits cannot tell an instance that was invented from one that froze and may still admit calls, so ' +
      'it waits for the bound of the promise. The other instances enforce the revocation meanwhile.',
    run: (attack) => {
      const names = [attack.input.service.clientId, 'inventory', 'payment', 'a\nb'];
      return sendAsService(attack, { perSecond: 800, atOnce: 200, most: 3_000 }, (index) => ({
        path: `${REVOCATION}/Sync`,
        message: syncMessage(names[index % names.length] ?? '', randomBytes(INSTANCE_ID_BYTES)),
      }));
    },
  },
  {
    name: 'sync-storm',
    attacker: 'service',
    title: 'Sync of one instance as fast as it is answered',
    notReached:
      'The instance syncs and never says that it enforces a revocation, so a Revoke that waits does so for the bound of ' +
      'the promise, as with an instance that froze. The other instances enforce it meanwhile.',
    run: (attack) => {
      const instance = randomBytes(INSTANCE_ID_BYTES);
      return sendAsService(attack, { perSecond: 3_000, atOnce: 400, most: 60_000 }, () => ({
        path: `${REVOCATION}/Sync`,
        message: syncMessage(attack.input.service.clientId, instance),
      }));
    },
  },
  {
    name: 'pull-storm',
    attacker: 'service',
    title: 'Pull of the whole list as fast as it is answered',
    run: (attack) => {
      const message = PullRequest.encode({
        service: attack.input.service.clientId,
        instance: randomBytes(INSTANCE_ID_BYTES),
      }).finish();
      return sendAsService(attack, { perSecond: 1_000, atOnce: 400, most: 20_000 }, () => ({
        path: `${REVOCATION}/Pull`,
        message,
      }));
    },
  },
  {
    name: 'introspection-storm',
    attacker: 'service',
    title: 'Introspect as fast as it is answered',
    run: (attack) => {
      const { customers } = attack.input;
      return sendAsService(attack, { perSecond: 3_000, atOnce: 500, most: 60_000 }, (index) => ({
        path: `${AUTH}/Introspect`,
        message: IntrospectRequest.encode({
          token: customers[index % customers.length]?.accessToken ?? '',
        }).finish(),
      }));
    },
  },
  {
    name: 'exchange-storm',
    attacker: 'service',
    title: 'ExchangeToken of tokens that were not meant for the client, as fast as it is answered',
    run: (attack) => {
      const { customers } = attack.input;
      return sendAsService(attack, { perSecond: 2_000, atOnce: 500, most: 40_000 }, (index) => ({
        path: `${AUTH}/ExchangeToken`,
        message: ExchangeTokenRequest.encode(
          ExchangeTokenRequest.fromPartial({
            subjectToken: customers[index % customers.length]?.accessToken ?? '',
            audience: 'inventory',
            scopes: ['inventory.read'],
          }),
        ).finish(),
      }));
    },
  },
  {
    name: 'service-token-storm',
    attacker: 'service',
    title: 'service tokens with valid assertions as fast as they are issued',
    run: (attack) => {
      const assertion = createAssertions(attack);
      return sendAsService(attack, { perSecond: 1_000, atOnce: 400, most: 20_000 }, () => ({
        path: `${AUTH}/IssueServiceToken`,
        message: IssueServiceTokenRequest.encode({
          clientId: attack.input.service.clientId,
          audiences: [],
          scopes: [],
          credential: { $case: 'clientAssertion', value: assertion() },
        }).finish(),
      }));
    },
  },
];
