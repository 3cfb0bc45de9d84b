/** Signed receipts: verified with the published keys, without auth. The format is docs/spec/receipt-v1.md. */

import { KeyRing, parseCompactToken } from '@portcullis/guard/internal';
import { z } from 'zod';
import { CommandError, EXIT } from './failures.js';
import { tableOf } from './tables.js';
import type { Terminal } from './terminal.js';

/** `typ` of a receipt. */
const RECEIPT_TYPE = 'portcullis-receipt+jws';

/** The algorithm of receipts. Keys of another kind may stand in the set: they sign something else. */
const RECEIPT_ALGORITHM = 'EdDSA';

/** Longest signed receipt, in characters: ten thousand instances. */
const RECEIPT_LENGTH_MAX = 8 * 1024 * 1024;

const receiptSchema = z.looseObject({
  v: z.literal(1),
  iss: z.string(),
  iat: z.number(),
  final: z.boolean(),
  as_of: z.string(),
  revocation: z.looseObject({
    epoch: z.string(),
    sequence: z.string(),
    kind: z.string(),
    target: z.string(),
    user: z.object({ id: z.string(), name: z.string() }).optional(),
    issuer: z.string().optional(),
    claim: z.string().optional(),
    revoke_time: z.string(),
    enforced_everywhere_by: z.string(),
    actor: z.string(),
    actor_name: z.string().optional(),
    network: z.string(),
    reason: z.string(),
    request_id: z.string().optional(),
  }),
  instances: z.array(
    z.looseObject({
      service: z.string(),
      instance: z.string(),
      host: z.string().optional(),
      version: z.string().optional(),
      state: z.string(),
      enforced_time: z.string().optional(),
      last_sync_time: z.string().optional(),
      lease_end_time: z.string().optional(),
      left: z.boolean().optional(),
    }),
  ),
});

/** A verified receipt. */
export type Receipt = z.infer<typeof receiptSchema>;

const jwksSchema = z.object({ keys: z.array(z.looseObject({ kid: z.string(), alg: z.string() })) });

/** The compact JWS in the text of a file, which ends with one line break at most. */
export function readReceipt(text: string): string {
  return text.replace(/\r?\n$/, '');
}

/**
 * Verifies a receipt.
 *
 * @param jwks - the published keys, as JSON
 * @throws CommandError when the signature or the form is bad
 */
export async function verifyReceipt(text: string, jwks: string): Promise<Receipt> {
  const keys = await keysOf(jwks);
  const token = parseCompactToken(text, RECEIPT_TYPE, RECEIPT_LENGTH_MAX);
  if (token === undefined) throw invalid('it is not a receipt, or was changed');
  const key = keys.find(({ kid }) => kid === token.keyId);
  if (key === undefined) throw invalid(`the keys do not have its key ${token.keyId}`);
  if (key.algorithm !== RECEIPT_ALGORITHM)
    throw invalid(`its key ${token.keyId} is not one for ${RECEIPT_ALGORITHM}`);
  // One key a time: a set of many years has more keys than a ring may.
  const ring = await KeyRing.import([key]);
  if (!(await ring.verify(token)))
    throw invalid('its signature is not good: it was changed, or another key signed it');
  const parsed = receiptSchema.safeParse(jsonOf(Buffer.from(token.payload).toString('utf8')));
  if (!parsed.success) throw invalid('it has another version of the format');
  if (parsed.data.final && parsed.data.instances.some(({ state }) => state === 'PENDING'))
    throw invalid('it says that it is final, and has a pending instance');
  return parsed.data;
}

function invalid(problem: string): CommandError {
  return new CommandError(`✗ The receipt is not valid: ${problem}.`, { exitCode: EXIT.checkFailed });
}

async function keysOf(jwks: string): Promise<readonly { kid: string; algorithm: string; jwk: string }[]> {
  const parsed = jwksSchema.safeParse(jsonOf(jwks));
  if (!parsed.success) {
    throw new CommandError('The keys are no JWK set: portcullis receipt keys prints one.', {
      exitCode: EXIT.usage,
    });
  }
  return parsed.data.keys.map(({ kid, alg, use: _, ...members }) => ({
    kid,
    algorithm: alg,
    jwk: JSON.stringify(
      Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)),
    ),
  }));
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A receipt for people. */
export function describeReceipt(receipt: Receipt, terminal: Pick<Terminal, 'columns' | 'hasColor'>): string {
  const { revocation, instances } = receipt;
  const { kind, target, user, issuer, claim } = revocation;
  const facts: [string, string][] = [
    ['receipt', `${revocation.sequence}${receipt.final ? '' : ' (not final)'}`],
    [
      'what',
      `${kind.toLowerCase()}${user === undefined ? '' : ` of ${user.name}`} ${claim === undefined ? '' : `${claim} = `}${target}`,
    ],
    ...(issuer === undefined ? [] : [['issuer', issuer] as [string, string]]),
    ['revoked', shortTime(revocation.revoke_time)],
    ['by', revocation.actor_name ?? revocation.actor],
    ['from', revocation.network === '' ? 'auth itself' : revocation.network],
    ['why', revocation.reason],
    ['everywhere by', shortTime(revocation.enforced_everywhere_by)],
  ];
  const width = Math.max(...facts.map(([name]) => name.length)) + 2;
  return [
    ...facts.map(([name, value]) => `${name.padEnd(width)}${value}`),
    '',
    tableOf(
      ['INSTANCE', 'STATE', 'ENFORCED', 'LEASE ENDED'],
      instances.map((one) => [
        `${one.service}${one.host === undefined ? '' : `@${one.host}`}/${one.instance.slice(0, 6)}`,
        {
          text: one.state,
          tone: one.state === 'ENFORCED' ? 'good' : one.state === 'PENDING' ? 'bad' : 'warning',
        },
        one.enforced_time === undefined ? '' : shortTime(one.enforced_time),
        one.state === 'ENFORCED' || one.lease_end_time === undefined ? '' : shortTime(one.lease_end_time),
      ]),
      terminal,
    ),
  ].join('\n');
}

function shortTime(time: string): string {
  return time.replace('T', ' ');
}
