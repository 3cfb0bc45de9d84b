/** The measured server: one process with a server for each arm, so that all arms share one heap and one V8. */

import { randomBytes, randomUUID } from 'node:crypto';
import { type Profiler, Session } from 'node:inspector/promises';
import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { EntryKind } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type Arm, type ArmName, createArm } from './arms.js';
import { BenchIssuer, ID_BYTES } from './issuer.js';
import { executeCommands } from './worker.js';

export interface Serving {
  readonly arms: readonly ArmName[];
  readonly algorithm: string;
  readonly secret: string;
  readonly redisUrl?: string;
  /** The port of the introspection server. */
  readonly introspectionPort?: number;
  /** The number of other tokens that are revoked at the start. */
  readonly revoked?: number;
}

/** Processor time and memory of the process. */
interface Usage {
  readonly cpuMicroseconds: number;
  readonly heapBytes: number;
  readonly residentBytes: number;
}

const PROFILE_INTERVAL_US = 200;

const inspector = new Session();
const arms = new Map<ArmName, Arm>();
let issuer: BenchIssuer | undefined;

const commands = {
  /** Opens a port for each arm. */
  serve: async (serving: Serving): Promise<Partial<Record<ArmName, number>>> => {
    issuer = await BenchIssuer.create(serving.algorithm);
    issuer.packed = randomBytes((serving.revoked ?? 0) * ID_BYTES);
    const material = {
      issuer,
      secret: serving.secret,
      ...(serving.redisUrl !== undefined && { redis: await connectToRedis(serving.redisUrl) }),
      ...(serving.introspectionPort !== undefined && {
        introspector: new Client(`127.0.0.1:${serving.introspectionPort}`, credentials.createInsecure()),
      }),
    };
    const ports: Partial<Record<ArmName, number>> = {};
    for (const name of serving.arms) {
      const arm = await createArm(name, material);
      arms.set(name, arm);
      ports[name] = await open(arm);
    }
    return ports;
  },

  /** Signs new tokens with the issuer's key. */
  tokens: async (count: number): Promise<string[]> => (await issuer?.tokens(count)) ?? [],

  /** Signs new tokens of one user, for `revokeUser`. */
  tokensOfOneUser: async (
    count: number,
  ): Promise<{ readonly user: string; readonly tokens: readonly string[] }> => {
    const user = randomUUID();
    const tokens = Array.from({ length: count }, async () => (await issuer?.token({ sub: user })) ?? '');
    return { user, tokens: await Promise.all(tokens) };
  },

  /** Revokes a user's tokens; the guard syncs at once. @returns when it began, in Unix milliseconds */
  revokeUser: (user: string): number => {
    const startedMs = performance.timeOrigin + performance.now();
    issuer?.revoke(EntryKind.ENTRY_KIND_USER, Buffer.from(user), 2n);
    arms.get('guard')?.guard?.syncNow();
    return startedMs;
  },

  usage: (): Usage => {
    const { user, system } = process.cpuUsage();
    const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
    return {
      cpuMicroseconds: user + system,
      heapBytes: heapUsed + external + arrayBuffers,
      residentBytes: rss,
    };
  },

  /** Starts the V8 sampling profiler. */
  startProfile: async (): Promise<void> => {
    inspector.connect();
    await inspector.post('Profiler.enable');
    await inspector.post('Profiler.setSamplingInterval', { interval: PROFILE_INTERVAL_US });
    await inspector.post('Profiler.start');
  },

  stopProfile: async (): Promise<Profiler.Profile> => {
    const { profile } = await inspector.post('Profiler.stop');
    inspector.disconnect();
    return profile;
  },

  collectGarbage: (): void => {
    globalThis.gc?.();
  },
};

export type ServerCommands = typeof commands;

function open({ interceptors, addTo }: Arm): Promise<number> {
  const server = new Server({ interceptors: [...interceptors] });
  addTo(server);
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

/** Loads the Redis client only when it is needed. */
async function connectToRedis(url: string): Promise<{ get(key: string): Promise<string | null> }> {
  const { Redis } = await import('ioredis');
  return new Redis(url);
}

executeCommands(commands);
