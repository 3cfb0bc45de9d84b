/** The operator of section `scale`: creates the clients of the instances, revokes, and reads auth's counters. */

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { ClientServiceClient } from '../../proto/gen/auth/v1/client_service.js';
import { RevocationServiceClient, RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import type { UserName } from '../../scripts/system/secrets.js';
import type { System } from '../../scripts/system/system.js';
import type { Identity } from './instances-process.js';

const CALL_MS_MAX = 60_000;
/** Calls that create clients at the same time. */
const CREATING_MAX = 16;
/** Calls of Revoke that may be open at the same time; then the next one waits. */
const REVOKING_MAX = 16;

/** The entries of one call of Revoke. */
export interface Batch {
  readonly count: number;
  readonly sequences: readonly bigint[];
  /** The largest of the sequences. */
  readonly last: bigint;
  /** When the call began, in Unix milliseconds. */
  readonly sentMs: number;
}

export interface Operator {
  /** Creates a client with a key for each instance, and spreads the instances over the brokers. */
  createIdentities(count: number, natsUrls: readonly string[]): Promise<Identity[]>;
  /** Revokes the ids of so many unused tokens. */
  revoke(count: number): Promise<Batch>;
  /** Revokes at a fixed rate, in calls of one size. */
  revokeFor(options: { entriesPerSecond: number; batch: number; seconds: number }): Promise<Batch[]>;
  /** What auth has broadcast so far. */
  broadcasts(): Promise<{ readonly sent: number; readonly dropped: number }>;
  close(): Promise<void>;
}

export async function createOperator(system: System): Promise<Operator> {
  const { address, opsAddress } = system.auth;
  const clients = new ClientServiceClient(address, system.credentials);
  const revocations = new RevocationServiceClient(address, system.credentials);
  const token = await logIn(system, 'olga');

  const createIdentity = async (index: number, natsUrl: string): Promise<Identity> => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const clientId = `bench-${index}`;
    const request = {
      clientId,
      credential: {
        $case: 'publicKeyPem' as const,
        value: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
      },
      audiences: ['auth'],
      scopes: ['auth.sync'],
      exchangeAudiences: [],
      exchangeScopes: [],
      requestId: randomUUID(),
      certificateBound: false,
      brokerPublicKey: '',
    };
    await ask(clients.createClient.bind(clients), request, { token, timeoutMs: CALL_MS_MAX });
    return { clientId, natsUrl, privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
  };
  const revoke = async (count: number): Promise<Batch> => {
    const targets = Array.from({ length: count }, () => ({
      target: { $case: 'tokenId' as const, value: randomUUID() },
    }));
    const sentMs = performance.timeOrigin + performance.now();
    const { results } = await ask(
      revocations.revoke.bind(revocations),
      {
        target: undefined,
        targets,
        reason: 'bench',
        wait: RevokeWait.REVOKE_WAIT_NONE,
        dryRun: false,
        fences: [],
      },
      { token, timeoutMs: CALL_MS_MAX },
    );
    const sequences = results.map(({ sequence }) => sequence);
    return { count, sequences, last: largestOf(sequences), sentMs };
  };

  return {
    createIdentities: async (count, natsUrls) => {
      const identities: Identity[] = [];
      for (let start = 0; start < count; start += CREATING_MAX) {
        const part = Array.from({ length: Math.min(CREATING_MAX, count - start) }, (_, index) =>
          createIdentity(start + index, natsUrls[(start + index) % natsUrls.length] ?? ''),
        );
        identities.push(...(await Promise.all(part)));
      }
      return identities;
    },
    revoke,
    revokeFor: async ({ entriesPerSecond, batch, seconds }) => {
      const startedMs = performance.now();
      const done: Batch[] = [];
      const open = new Set<Promise<void>>();
      const total = Math.round((entriesPerSecond * seconds) / batch);
      for (let call = 0; call < total; call += 1) {
        const waitMs = startedMs + (call * batch * 1000) / entriesPerSecond - performance.now();
        if (waitMs > 0) await sleep(waitMs);
        if (open.size >= REVOKING_MAX) await Promise.race(open);
        const one: Promise<void> = revoke(batch).then((result) => {
          done.push(result);
          open.delete(one);
        });
        open.add(one);
      }
      await Promise.all(open);
      return done;
    },
    broadcasts: async () => {
      const text = await (await fetch(`http://${opsAddress}/metrics`)).text();
      const read = (name: string): number => {
        const found = new RegExp(`^\\w*${name} (\\d+)$`, 'm').exec(text)?.[1];
        if (found === undefined) throw new Error(`auth has no metric ${name}`);
        return Number(found);
      };
      return { sent: read('broadcasts_total'), dropped: read('broadcast_entries_dropped_total') };
    },
    close: () => {
      clients.close();
      revocations.close();
      return Promise.resolve();
    },
  };
}

/** The largest sequence, 0 without any. */
export function largestOf(sequences: Iterable<bigint>): bigint {
  let largest = 0n;
  for (const sequence of sequences) if (sequence > largest) largest = sequence;
  return largest;
}

async function logIn(system: System, name: UserName): Promise<string> {
  const client = new AuthServiceClient(system.auth.address, system.credentials);
  try {
    const { username, password } = system.users[name];
    const request = { username, password, audiences: [], scopes: [], deviceName: 'bench' };
    const options = { timeoutMs: CALL_MS_MAX };
    return (await ask(client.login.bind(client), request, options)).accessToken;
  } finally {
    client.close();
  }
}
