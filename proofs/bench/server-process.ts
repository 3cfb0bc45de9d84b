/** The server that is measured: one process with a server for each arm, so that all of them share one heap and one V8. */

import { randomBytes, randomUUID } from 'node:crypto';
import { type Profiler, Session } from 'node:inspector/promises';
import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { EntryKind } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type Arm, type ArmName, createArm } from './arms.js';
import { BenchIssuer, ID_BYTES } from './issuer.js';
import { answerCommands } from './worker.js';

/** What a server process is to serve. */
export interface Serving {
  readonly arms: readonly ArmName[];
  readonly algorithm: string;
  readonly secret: string;
  readonly redisUrl?: string;
  /** Where the process listens that is asked about every token. */
  readonly introspectionPort?: number;
  /** How many tokens, none of those that are sent, have been taken back already. */
  readonly revoked?: number;
}

/** Processor time and memory of the process. */
export interface Usage {
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

  /** New tokens of the issuer whose keys the arms know. */
  tokens: async (count: number): Promise<string[]> => (await issuer?.tokens(count)) ?? [],

  /** New tokens of one user, and a way to take them back together. */
  tokensOfOneUser: async (
    count: number,
  ): Promise<{ readonly user: string; readonly tokens: readonly string[] }> => {
    const user = randomUUID();
    const tokens = Array.from({ length: count }, async () => (await issuer?.token({ sub: user })) ?? '');
    return { user, tokens: await Promise.all(tokens) };
  },

  /** Takes a user's tokens back; the guard learns of it at once. @returns when it began, on the clock of the machine */
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

  /** Begins to note, many times a second, what the process is doing. */
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

/** Loaded only where it is used. */
async function connectToRedis(url: string): Promise<{ get(key: string): Promise<string | null> }> {
  const { Redis } = await import('ioredis');
  return new Redis(url);
}

answerCommands(commands);
