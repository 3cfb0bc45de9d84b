/** The program that serves {@link ECHO}: guarded like every service, by the library alone. */

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { bidi, clientStream, createGuard, native, serverStream, signalOf, unary } from '@portcullis/guard';
import { systemClock } from '@portcullis/guard/clock';
import { nowMs } from '../shared/waiting.js';
import { ECHO, ECHO_AUDIENCE, ECHO_CLIENT, ECHO_SCHEMA, ECHO_TICK_MS } from './echo-service.js';

const BLOCK_MS_MAX = 10_000;
const WITNESSES_MAX = 10_000;
const READY = 200;
const NOT_READY = 503;

const log = (level: string) => (fields: object, message: string) =>
  console.log(JSON.stringify({ level, time: new Date().toISOString(), ...fields, message }));

/** The machine's clocks, shifted by what the drill has set. */
const clock = {
  setBackMs: 0,
  asleepMs: 0,
  wallMs: () => systemClock.wallMs() - clock.setBackMs,
  monotonicMs: () => systemClock.monotonicMs() - clock.asleepMs,
};

const guard = await createGuard({
  clock,
  issuer: variable('DRILL_ISSUER'),
  audience: ECHO_AUDIENCE,
  auth: {
    address: variable('DRILL_AUTH_ADDRESS'),
    credentials: credentials.createInsecure(),
    clientId: ECHO_CLIENT,
    clientKey: await readFile(variable('DRILL_CLIENT_KEY_FILE'), 'utf8'),
  },
  nats: { url: variable('DRILL_NATS_URL') },
  // A few users make all calls of the drill.
  limits: { callsPerUser: Number.POSITIVE_INFINITY, streamsPerUser: Number.POSITIVE_INFINITY },
  log: { info: log('info'), warn: log('warn'), error: log('error') },
});
const witnesses = new Map<string, number>();
const server = new Server({ interceptors: [guard.interceptor] });
const handlers = native({
  Unary: unary<Buffer, Buffer>((request) => request),
  ClientStream: clientStream<Buffer, Buffer>(async (requests) => {
    let name: string | undefined;
    let count = 0;
    for await (const request of requests) {
      count += 1;
      if (name === undefined) name = request.toString();
      else if (witnesses.size < WITNESSES_MAX) witnesses.set(name, Number(request.toString()));
    }
    return Buffer.from(String(count));
  }),
  ServerStream: serverStream<Buffer, Buffer>(async function* (_request, call) {
    const signal = signalOf(call);
    while (!signal.aborted) {
      yield Buffer.from(String(nowMs()));
      await sleep(ECHO_TICK_MS, undefined, { signal }).catch(() => undefined);
    }
  }),
  Bidi: bidi<Buffer, Buffer>(async function* (requests) {
    for await (const request of requests) yield request;
  }),
  Witness: unary<Buffer, Buffer>(() => {
    const told = JSON.stringify(Object.fromEntries(witnesses));
    witnesses.clear();
    return Buffer.from(told);
  }),
  Block: unary<Buffer, Buffer>((request) => {
    block(Number(request.toString()));
    return Buffer.alloc(0);
  }),
  SetBack: unary<Buffer, Buffer>((request) => {
    clock.setBackMs += Number(request.toString());
    return Buffer.alloc(0);
  }),
  Sleep: unary<Buffer, Buffer>((request) => {
    const { forMs, times } = JSON.parse(request.toString()) as { forMs: number; times: number };
    const fromMs = nowMs();
    for (let time = 0; time < times; time += 1) {
      // The promise holds only when the clocks are read between the set-back and the sleep.
      guard.state();
      clock.setBackMs += forMs;
      guard.state();
      const startedMs = nowMs();
      block(forMs);
      clock.asleepMs += nowMs() - startedMs;
    }
    guard.state();
    return Buffer.from(JSON.stringify({ fromMs, toMs: nowMs() }));
  }),
});
guard.addService(server, ECHO, ECHO_SCHEMA, handlers);
await new Promise<void>((resolve, reject) => {
  server.bindAsync(variable('DRILL_LISTEN'), ServerCredentials.createInsecure(), (error) =>
    error === null ? resolve() : reject(error),
  );
});
const [host = '', port = ''] = variable('DRILL_OPS_LISTEN').split(':');
createServer((_request, response) => {
  const { current, staleReason } = guard.state();
  response.writeHead(current ? READY : NOT_READY).end(staleReason);
}).listen(Number(port), host);
process.once('SIGTERM', () => process.exit(0));

function block(ms: number): void {
  const untilMs = nowMs() + Math.min(BLOCK_MS_MAX, ms);
  while (nowMs() < untilMs);
}

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}
