/** Attacks with tokens of another issuer whose tenant and group were revoked: the values are hidden in other forms. */

import { randomUUID, sign } from 'node:crypto';
import { credentials, status } from '@grpc/grpc-js';
import {
  RevocationServiceClient,
  type RevokeRequest,
  RevokeWait,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { expectRefusal, forEach, runClass } from './attempts.js';
import type { Environment } from './environment.js';
import { encode } from './forge.js';
import { AUDIENCE, GOOD_KID, ISSUER, type WeakIssuer } from './weak-key-attacks.js';

const TENANT = 'acme';
const GROUP = 'staff';
/** A tenant that the issuer writes as a number. */
const NUMBER = 4711;

/** The difference between two clocks that is tolerated, in seconds: a token may seem to come from the future. */
const SKEW_SECONDS = 5;

/** Longest time until the revocations are enforced everywhere, in milliseconds. */
const REVOKED_WITHIN_MS = 30_000;

const CLASS = 'revoked claims of another issuer in other forms';

/** Members of a payload, as text: a text can have what an object cannot, such as a member twice. */
const REVOKED: readonly (readonly [what: string, members: string])[] = [
  ['the value', `"tenant":"${TENANT}"`],
  ['a list', `"tenant":["${TENANT}"]`],
  ['the last of a list', `"tenant":["other","${TENANT}"]`],
  ['twice in a list', `"tenant":["${TENANT}","${TENANT}"]`],
  ['escaped characters', `"ten\\u0061nt":"\\u0061cme"`],
  ['a number', `"tenant":${NUMBER}`],
  ['a number with a fraction of zero', `"tenant":${NUMBER}.0`],
  ['a number with an exponent', `"tenant":4.711e3`],
  ['a number in a list', `"tenant":["other",${NUMBER}]`],
  ['a text of digits', `"tenant":"${NUMBER}"`],
  ['a group', `"realm_access":{"groups":["other","${GROUP}"]}`],
  ['a group as a text', `"realm_access":{"groups":"${GROUP}"}`],
  ['a group beside a tenant that is not revoked', `"tenant":"other","realm_access":{"groups":["${GROUP}"]}`],
];

/** Each would be valid if the form that cannot be read counted as no value. */
const UNREADABLE: readonly (readonly [what: string, members: string])[] = [
  ['an object', `"tenant":{"id":"${TENANT}"}`],
  ['an object with the value as a name', `"tenant":{"${TENANT}":true}`],
  ['a list in a list', `"tenant":[["${TENANT}"]]`],
  ['an object in a list', `"tenant":["other",{"id":"${TENANT}"}]`],
  ['true', '"tenant":true'],
  ['an empty text', '"tenant":""'],
  ['a fraction', `"tenant":${NUMBER}.5`],
  ['a number beyond 53 bits', '"tenant":9007199254740993'],
  ['a number without an end', '"tenant":1e400'],
  ['null in a list', `"tenant":[null,"${TENANT}"]`],
  ['a control character', `"tenant":"${TENANT}\\u0000"`],
  ['a lone surrogate', `"tenant":"${TENANT}\\ud800"`],
  [
    'too many values',
    `"tenant":[${Array.from({ length: 64 }, (_, index) => `"t${index}"`).join(',')},"${TENANT}"]`,
  ],
  ['a text of more than 255 characters', `"tenant":"${TENANT}${'x'.repeat(255)}"`],
  ['the member twice', `"tenant":"other","tenant":"${TENANT}"`],
  ['the member twice, the other last', `"tenant":"${TENANT}","tenant":"other"`],
  ['a text in place of the object of the groups', `"realm_access":"${GROUP}"`],
  ['a list in place of the object of the groups', `"realm_access":[{"groups":["${GROUP}"]}]`],
  ['groups that are an object', `"realm_access":{"groups":{"${GROUP}":true}}`],
];

/** Other values, which must stay valid: a revocation that hits them would be an attack on others. */
const OTHERS: readonly (readonly [what: string, members: string])[] = [
  ['no tenant', '"other":1'],
  ['null', '"tenant":null'],
  ['an empty list', '"tenant":[]'],
  ['another tenant', '"tenant":"other"'],
  ['upper case', `"tenant":"${TENANT.toUpperCase()}"`],
  ['a trailing space', `"tenant":"${TENANT} "`],
  ['a word of a text', `"tenant":"${TENANT} other"`],
  ['a member with the name of the pointer', `"/tenant":"${TENANT}"`],
  ['a member named like the path of the groups', `"realm_access/groups":["${GROUP}"]`],
  ['the group as a tenant', `"tenant":"${GROUP}"`],
];

export async function attackWithRevokedClaims(environment: Environment, issuer: WeakIssuer): Promise<void> {
  await runClass(environment, CLASS, async () => {
    await revokeAll(environment);
    const targets = environment.targets.filter(({ audience }) => audience !== 'auth');
    const send = (target: (typeof targets)[number], members: string, ahead?: number) =>
      environment.send(target, { authorization: [`Bearer ${tokenWith(issuer, members, ahead)}`] });
    const [first] = targets;
    if (first === undefined) return;
    const { fields: revoked } = await send(first, `"tenant":"${TENANT}"`);
    environment.board.holds(CLASS, revoked !== environment.refusals.invalid, `the value alone: ${revoked}`);
    const attempts = targets.flatMap((target) => [
      ...REVOKED.map(([what, members]) => ({ target, what, members, expected: revoked })),
      ...UNREADABLE.map(([what, members]) => ({
        ...{ target, what, members },
        expected: environment.refusals.invalid,
      })),
    ]);
    await forEach(attempts, async ({ target, what, members, expected }) => {
      const name = `${target.process.name}: ${what}`;
      expectRefusal(environment, CLASS, name, await send(target, members), [expected]);
      const early = await send(target, members, SKEW_SECONDS - 1);
      expectRefusal(environment, CLASS, `${name}, issued by a clock that is ahead`, early, [expected]);
    });
    await forEach(
      targets.flatMap((target) => OTHERS.map(([what, members]) => ({ target, what, members }))),
      async ({ target, what, members }) => {
        const { status: code, fields } = await send(target, members);
        environment.board.holds(
          CLASS,
          code === status.OK,
          `${target.process.name}: ${what} is refused: ${fields}`,
        );
      },
    );
  });
}

/** Revokes the tenants and the group everywhere. */
async function revokeAll({ system, olga }: Environment): Promise<void> {
  const client = new RevocationServiceClient(system.auth.address, credentials.createInsecure());
  const claims = [
    ['/tenant', TENANT],
    ['/tenant', String(NUMBER)],
    ['/realm_access/groups', GROUP],
  ] as const;
  const request: RevokeRequest = {
    target: undefined,
    targets: claims.map(([claim, value]) => {
      const what = { $case: 'claim', value: { claim, value } } as const;
      return { target: { $case: 'foreign', value: { issuer: ISSUER, what } } };
    }),
    reason: 'attack',
    wait: RevokeWait.REVOKE_WAIT_EVERYWHERE,
    dryRun: false,
    fences: [],
  };
  try {
    const { results } = await ask(client.revoke.bind(client), request, {
      token: olga.accessToken,
      timeoutMs: REVOKED_WITHIN_MS,
    });
    const [failed] = results.filter(({ errorReason }) => errorReason !== '');
    if (failed !== undefined) throw new Error(`the claims cannot be revoked: ${failed.errorMessage}`);
  } finally {
    client.close();
  }
}

/** @param ahead - by how many seconds the issuer's clock is ahead */
function tokenWith({ privateKey }: WeakIssuer, members: string, ahead = 0): string {
  const nowSeconds = Math.floor(Date.now() / 1000) + ahead;
  const others = JSON.stringify({
    ...{ iss: ISSUER, aud: AUDIENCE, sub: 'mallory', client_id: 'web', sid: randomUUID(), jti: randomUUID() },
    ...{ iat: nowSeconds, exp: nowSeconds + 60, scope: 'read pay' },
  });
  const header = encode(JSON.stringify({ alg: 'EdDSA', kid: GOOD_KID, typ: 'at+jwt' }));
  const text = `${header}.${encode(`${others.slice(0, -1)},${members}}`)}`;
  return `${text}.${sign(null, Buffer.from(text), privateKey).toString('base64url')}`;
}
