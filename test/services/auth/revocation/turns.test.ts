/** The turns of Pulls, which share the memory of lists and the time of auth among the clients. */

import { expect } from 'chai';
import { createTurns, PULL_LIMITS, type Turns } from '../../../../services/auth/revocation/turns.js';

const {
  atOnceMax: PULLS_MAX,
  atOncePerCallerMax: PULLS_PER_CLIENT_MAX,
  waitingPerCallerMax: WAITING_PULLS_PER_CLIENT_MAX,
} = PULL_LIMITS;

describe('turns of Pulls', () => {
  let turns: Turns;
  /** The clients whose turns began, in order. */
  let begun: string[];
  let ends: (() => void)[];

  beforeEach(() => {
    turns = createTurns(PULL_LIMITS);
    begun = [];
    ends = [];
  });

  async function take(client: string, signal = new AbortController().signal): Promise<void> {
    const end = await turns.take(client, signal);
    begun.push(client);
    ends.push(end);
  }
  /** Asks for so many turns; those that wait stay unsettled. */
  async function ask(client: string, count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) void take(client);
    await new Promise(setImmediate);
  }
  async function endOne(): Promise<void> {
    ends.shift()?.();
    await new Promise(setImmediate);
  }
  const countOf = (client: string): number => begun.filter((one) => one === client).length;

  it('give one client only its part, and others theirs at once', async () => {
    await ask('mallory', PULLS_PER_CLIENT_MAX + 5);
    expect(countOf('mallory')).to.equal(PULLS_PER_CLIENT_MAX);
    await ask('inventory', 3);
    expect(countOf('inventory')).to.equal(3);
  });

  it('pass to the next Pull of the client', async () => {
    await ask('inventory', PULLS_PER_CLIENT_MAX + 2);
    await endOne();
    expect(countOf('inventory')).to.equal(PULLS_PER_CLIENT_MAX + 1);
    await endOne();
    await endOne();
    expect(countOf('inventory')).to.equal(PULLS_PER_CLIENT_MAX + 2);
  });

  it('go round among the clients when all are taken', async () => {
    const busy = Array.from({ length: PULLS_MAX / PULLS_PER_CLIENT_MAX }, (_, index) => `busy-${index}`);
    for (const client of busy) await ask(client, PULLS_PER_CLIENT_MAX);
    await ask('one', 2);
    await ask('two', 1);
    expect(begun).to.have.length(PULLS_MAX);
    for (let count = 0; count < 3; count += 1) await endOne();
    expect(begun.slice(PULLS_MAX)).to.deep.equal(['one', 'two', 'one']);
  });

  it('refuse a Pull when too many of its client wait', async () => {
    await ask('mallory', PULLS_PER_CLIENT_MAX + WAITING_PULLS_PER_CLIENT_MAX);
    const error = await take('mallory').catch((cause: unknown) => cause);
    expect(error).to.include({ code: 'RATE_LIMITED', retryAfterMs: 1000 });
    await ask('inventory', 1);
    expect(countOf('inventory')).to.equal(1);
  });

  it('forget a Pull whose caller leaves', async () => {
    await ask('inventory', PULLS_PER_CLIENT_MAX);
    const leaving = new AbortController();
    const left = take('inventory', leaving.signal).catch((cause: unknown) => cause);
    await ask('inventory', 1);
    leaving.abort('gone');
    expect(await left).to.equal('gone');
    await endOne();
    await endOne();
    expect(countOf('inventory')).to.equal(PULLS_PER_CLIENT_MAX + 1);
    const late = await take('inventory', leaving.signal).catch((cause: unknown) => cause);
    expect(late).to.equal('gone');
  });

  it('begin nothing for callers that leave together', async () => {
    const leaving = new AbortController();
    await ask('inventory', PULLS_PER_CLIENT_MAX);
    const left = Promise.allSettled(Array.from({ length: 5 }, () => take('inventory', leaving.signal)));
    await ask('inventory', 1);
    // When a connection closes, its running calls end, and its waiting calls are aborted.
    for (const end of ends.splice(0)) end();
    leaving.abort('gone');
    expect((await left).map(({ status }) => status)).to.deep.equal(new Array(5).fill('rejected'));
    await new Promise(setImmediate);
    expect(countOf('inventory')).to.equal(PULLS_PER_CLIENT_MAX + 1);
  });

  it('let nobody overtake those that wait', async () => {
    await ask('inventory', PULLS_PER_CLIENT_MAX);
    const order: string[] = [];
    const waiting = take('inventory').then(() => order.push('waiting'));
    await new Promise(setImmediate);
    ends.shift()?.();
    const late = take('inventory').then(() => order.push('late'));
    await waiting;
    await endOne();
    await late;
    expect(order).to.deep.equal(['waiting', 'late']);
  });

  it('take a caller back whose turn has just ended, although as many as may wait do so', async () => {
    await ask('inventory', PULLS_PER_CLIENT_MAX + WAITING_PULLS_PER_CLIENT_MAX);
    // A search for sessions takes a turn for each of its steps.
    ends.shift()?.();
    const next = take('inventory').then(
      () => 'begun',
      (error: unknown) => error,
    );
    const refused = await take('inventory').catch((cause: unknown) => cause);
    expect(refused).to.include({ code: 'RATE_LIMITED' });
    for (let count = 0; count <= WAITING_PULLS_PER_CLIENT_MAX; count += 1) await endOne();
    expect(await next).to.equal('begun');
  });
});
