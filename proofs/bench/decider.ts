/** The guard's decision on its own: as the interceptor makes it, with a current list, without a server. */

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata } from '@grpc/grpc-js';
import { systemClock, systemTimers } from '@portcullis/guard/clock';
import { type Admissions, Enforcement, Feed, FeedRunner, readRules } from '@portcullis/guard/internal';
import { ECHO, ECHO_AUDIENCE, ECHO_SCHEMA, UNARY_PATH } from './echo.js';
import { BENCH_ISSUER, type BenchIssuer, ID_BYTES } from './issuer.js';

const POLL_MS = 5;

interface Decider {
  decide(metadata: Metadata): ReturnType<Admissions['decide']>;
  close(): Promise<void>;
}

/** Creates a decider, and waits until its revocation list is current. */
export async function createDecider(issuer: BenchIssuer): Promise<Decider> {
  const instance = randomBytes(ID_BYTES);
  const enforcement = new Enforcement({
    issuer: BENCH_ISSUER,
    audience: ECHO_AUDIENCE,
    clock: systemClock,
    timers: systemTimers,
    createFeed: (listener) => new Feed({ service: ECHO_AUDIENCE, instance, listener }),
    onTokenInvalid: (fault) => {
      throw new Error(`a valid token was refused: ${fault}`);
    },
    onCutFailed: () => {},
  });
  const runner = new FeedRunner({
    feed: enforcement.feed,
    source: issuer.source,
    service: ECHO_AUDIENCE,
    instance,
    nats: undefined,
    clock: systemClock,
    log: { info: () => {}, warn: () => {}, error: () => {} },
    onKeys: (keys) => enforcement.replaceKeys(keys),
    onCurrentChange: () => {},
    onForgery: () => {},
  });
  runner.start();
  while (!runner.isCurrent()) await sleep(POLL_MS);
  const rule = readRules(ECHO, ECHO_SCHEMA).get(UNARY_PATH);
  if (rule === undefined) throw new TypeError('the method has no rule');
  const peer = {
    isPrivate: true,
    certificateThumbprint: undefined,
    retireConnection: () => {},
    getPeer: () => '127.0.0.1:1',
  };
  return {
    decide: (metadata) => enforcement.admissions.decide(rule, metadata.get('authorization'), peer),
    close: () => runner.close(),
  };
}

/** Metadata with a token, as in a request. */
export function bearer(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}
