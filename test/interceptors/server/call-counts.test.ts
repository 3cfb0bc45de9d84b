/** How calls, streams and bytes are counted for each caller and for all, step by step, without a server. */

import { expect } from 'chai';
import type { VerifiedToken } from '../../../interceptors/src/revocation/verified-tokens.js';
import {
  CallLimits,
  CallQueue,
  type HeldCall,
  type Holder,
} from '../../../interceptors/src/server/call-limits.js';
import { DEFAULT_LIMITS, type GuardLimits } from '../../../interceptors/src/server/guard-limits.js';
import { SetClock, verifiedToken } from '../tokens-support.js';

const FORGET_INTERVAL_MS = 10_000;

/** A call that ends as a guarded call does. */
class FakeHeldCall implements HeldCall {
  holder: Holder | undefined;
  isUnknown = false;
  heldBytes = 0;
  queue: CallQueue | undefined;
  previousHeld: HeldCall | undefined;
  nextHeld: HeldCall | undefined;
  heldSinceMs = 0;
  readonly ended: string[] = [];
  readonly isStream: boolean;
  readonly requestStream: boolean;
  /** Undefined: the call does not leave. */
  limits: CallLimits | undefined;

  constructor(limits: CallLimits | undefined, kind: '' | 'requests' | 'responses' = '') {
    this.limits = limits;
    this.isStream = kind !== '';
    this.requestStream = kind === 'requests';
  }

  endForLimit(limit: string): void {
    this.limits?.leave(this);
    this.ended.push(limit);
  }
}

describe('a queue of calls', () => {
  const calls = (queue: CallQueue) => {
    const found: HeldCall[] = [];
    queue.find((call) => {
      found.push(call);
      return false;
    });
    return found;
  };

  it('keeps the order of its calls, whichever of them leaves', () => {
    for (const leaving of [0, 1, 2]) {
      const queue = new CallQueue();
      const all = [0, 1, 2].map(() => new FakeHeldCall(undefined));
      for (const [index, call] of all.entries()) queue.append(call, index * 10);
      expect(calls(queue)).to.deep.equal(all);
      expect(all.map(({ heldSinceMs }) => heldSinceMs)).to.deep.equal([0, 10, 20]);
      const [left] = all.splice(leaving, 1);
      if (left === undefined) throw new Error('no such call');
      queue.remove(left);
      expect(left).to.include({ queue: undefined, previousHeld: undefined, nextHeld: undefined });
      const later = new FakeHeldCall(undefined);
      queue.append(later, 30);
      expect(calls(queue)).to.deep.equal([...all, later]);
      expect(queue.first).to.equal(all[0]);
      expect(all.map(({ previousHeld }) => previousHeld)).to.deep.equal([undefined, all[0]]);
      expect(later.queue).to.equal(queue);
    }
  });

  it('is empty after its only call has left, and finds the oldest call of a kind', () => {
    const queue = new CallQueue();
    const [one, two] = [new FakeHeldCall(undefined), new FakeHeldCall(undefined, 'requests')];
    queue.append(one, 1);
    queue.remove(one);
    expect([queue.first, queue.find(() => true)]).to.deep.equal([undefined, undefined]);
    queue.append(one, 2);
    queue.append(two, 3);
    expect(queue.find(({ isStream }) => isStream)).to.equal(two);
    expect(queue.find(() => true)).to.equal(one);
    expect(queue.find(() => false)).to.equal(undefined);
  });
});

describe('the counts of calls', () => {
  let clock: SetClock;
  let limits: CallLimits;
  let known: Set<string>;

  beforeEach(() => start());

  function start(over: Partial<GuardLimits> = {}): void {
    clock = new SetClock();
    known = new Set();
    limits = new CallLimits({ ...DEFAULT_LIMITS, ...over }, clock, (network) => known.has(network));
  }

  const call = (kind: '' | 'requests' | 'responses' = '') => new FakeHeldCall(limits, kind);
  const withToken = (token: VerifiedToken, kind: '' | 'requests' | 'responses' = '') => {
    const entered = call(kind);
    return { call: entered, limit: limits.enterWithToken(entered, token) };
  };
  const open = (address: string, kind: '' | 'requests' | 'responses' = '') => {
    const entered = call(kind);
    return { call: entered, limit: limits.enterPublic(entered, address) };
  };
  const sweepAfter = (ms: number) => {
    clock.pass(ms);
    limits.sweep();
  };
  const indexed = (over: Parameters<typeof verifiedToken>[0] = {}) => {
    const token = verifiedToken(over);
    token.indexed = true;
    return token;
  };

  describe('of a principal', () => {
    const kinds = [
      [
        'USER',
        'user',
        { callsPerUser: 2, callsPerService: 50 },
        { streamsPerUser: 2, streamsPerService: 50 },
      ],
      [
        'SERVICE',
        'service',
        { callsPerUser: 50, callsPerService: 2 },
        { streamsPerUser: 50, streamsPerService: 2 },
      ],
    ] as const;
    for (const [kind, name, callLimits, streamLimits] of kinds) {
      it(`limit the calls of a ${name}, over all its tokens, until one ends`, () => {
        start(callLimits);
        const tokens = [indexed({ kind }), indexed({ kind }), indexed({ kind })];
        const [one, two, three] = tokens.map((token) => withToken(token));
        expect([one?.limit, two?.limit, three?.limit]).to.deep.equal([
          undefined,
          undefined,
          `calls_per_${name}`,
        ]);
        if (one !== undefined) limits.leave(one.call);
        expect(withToken(indexed({ kind })).limit).to.equal(undefined);
        expect(withToken(indexed({ kind })).limit).to.equal(`calls_per_${name}`);
      });

      it(`limit the streams of a ${name} in both directions, apart from short calls`, () => {
        start(streamLimits);
        const token = indexed({ kind });
        const streams = [withToken(token, 'requests'), withToken(token, 'responses')];
        expect(streams.map(({ limit }) => limit)).to.deep.equal([undefined, undefined]);
        expect(withToken(token, 'requests').limit).to.equal(`streams_per_${name}`);
        expect(withToken(token).limit).to.equal(undefined);
        if (streams[0] !== undefined) limits.leave(streams[0].call);
        expect(withToken(token, 'responses').limit).to.equal(undefined);
        expect(withToken(token, 'responses').limit).to.equal(`streams_per_${name}`);
      });
    }

    it('are apart for another issuer, another subject and another kind', () => {
      start({ callsPerUser: 1, callsPerService: 1 });
      for (const over of [
        {},
        { issuer: 'https://other.example' },
        { subject: 'user-2' },
        { kind: 'SERVICE' },
      ] as const) {
        expect(withToken(indexed(over)).limit).to.equal(undefined);
        expect(withToken(indexed(over)).limit).to.not.equal(undefined);
      }
    });

    it('are found by its cached tokens, and kept while there are any', () => {
      const [cached, uncached] = [indexed(), verifiedToken()];
      const first = withToken(cached);
      const second = withToken(uncached);
      expect(first.call.holder).to.equal(second.call.holder);
      expect([cached.holder, uncached.holder]).to.deep.equal([first.call.holder, undefined]);
      expect(cached.holder).to.include({ tokens: 1, calls: 2 });
      withToken(cached);
      expect(cached.holder).to.include({ tokens: 1, calls: 3 });
    });

    it('are not those of strangers', () => {
      withToken(indexed());
      expect(limits.state().publicCalls).to.equal(0);
    });
  });

  describe('of public methods', () => {
    it('leave half of the calls of a network to short ones', () => {
      start({ publicCallsPerAddress: 4 });
      expect([1, 2, 3].map(() => open('192.0.2.1', 'responses').limit)).to.deep.equal([
        undefined,
        undefined,
        'public_calls_per_address',
      ]);
      expect(open('192.0.2.1').limit).to.equal(undefined);
      expect(open('192.0.2.2', 'requests').limit).to.equal(undefined);
      // Any address of a /64 of IPv6 is of one network.
      start({ publicCallsPerAddress: 2 });
      expect(open('2001:db8::1', 'responses').limit).to.equal(undefined);
      expect(open('2001:db8::2', 'responses').limit).to.equal('public_calls_per_address');
    });

    it('end the oldest incomplete call of a network for a new one, never one of another network', () => {
      start({ publicCallsPerAddress: 2 });
      const other = open('192.0.2.9');
      const [one, two, three] = [open('192.0.2.1'), open('192.0.2.1'), open('192.0.2.1')];
      expect(three.limit).to.equal(undefined);
      expect([other, one, two, three].map(({ call: { ended } }) => ended)).to.deep.equal([
        [],
        ['public_calls_per_address'],
        [],
        [],
      ]);
      for (const each of [two, three]) limits.arrived(each.call);
      // Their requests are complete, so they cannot make room.
      expect(open('192.0.2.1').limit).to.equal('public_calls_per_address');
      expect(other.call.ended).to.deep.equal([]);
    });

    it('end the oldest incomplete call of all strangers for a new one', () => {
      start({ publicCalls: 2 });
      const [one, two] = [open('192.0.2.1'), open('192.0.2.2')];
      expect(open('192.0.2.3').limit).to.equal(undefined);
      expect([one.call.ended, two.call.ended]).to.deep.equal([['public_calls'], []]);
      expect(limits.state().publicCalls).to.equal(2);
    });

    it('refuse strangers when no incomplete call can make room, and leave half to short calls', () => {
      start({ publicCalls: 4 });
      const streams = [open('192.0.2.1', 'requests'), open('192.0.2.2', 'responses')];
      expect(open('192.0.2.3', 'requests').limit).to.equal('public_calls');
      for (const address of ['192.0.2.4', '192.0.2.5']) limits.arrived(open(address).call);
      limits.arrived(streams[1]?.call ?? call());
      expect(open('192.0.2.6').limit).to.equal('public_calls');
      if (streams[0] !== undefined) limits.leave(streams[0].call);
      expect(open('192.0.2.6', 'responses').limit).to.equal(undefined);
      expect(streams.map(({ call: { ended } }) => ended)).to.deep.equal([[], []]);
    });

    it('do not count known networks among strangers, nor end their calls for them', () => {
      start({ publicCalls: 2 });
      known.add('192.0.2.1');
      const streams = [1, 2, 3].map(() => open('192.0.2.1', 'responses'));
      const short = [1, 2, 3].map(() => open('192.0.2.1'));
      expect(limits.state().publicCalls).to.equal(0);
      const strangers = ['192.0.2.2', '192.0.2.3', '192.0.2.4'].map((address) => open(address));
      expect([...streams, ...short, ...strangers].every(({ limit }) => limit === undefined)).to.equal(true);
      expect(limits.state().publicCalls).to.equal(2);
      expect(short.every(({ call: { ended } }) => ended.length === 0)).to.equal(true);
      expect(strangers[0]?.call.ended).to.deep.equal(['public_calls']);
    });
  });

  describe('of public methods whose responses are not read', () => {
    const UNREAD_MS = 1000;
    /** A call that waits for its peer to read the response. */
    const answer = (address: string) => {
      const { call: entered } = open(address);
      limits.arrived(entered);
      limits.answered(entered);
      return entered;
    };

    it('make room for strangers after a second, the oldest first', () => {
      start({ publicCalls: 2 });
      const [one, two] = [answer('192.0.2.1'), answer('192.0.2.2')];
      sweepAfter(UNREAD_MS - 1);
      expect(open('192.0.2.3').limit).to.equal('public_calls');
      sweepAfter(1);
      expect(open('192.0.2.3').limit).to.equal(undefined);
      expect([one.ended, two.ended]).to.deep.equal([['response_seconds'], []]);
    });

    it('make room for their own address only', () => {
      start({ publicCallsPerAddress: 1 });
      const [one, two] = [answer('192.0.2.1'), answer('192.0.2.2')];
      sweepAfter(UNREAD_MS);
      expect(open('192.0.2.2').limit).to.equal(undefined);
      expect([one.ended, two.ended]).to.deep.equal([[], ['response_seconds']]);
    });

    it('make room after the requests that are incomplete, and never those of callers with a token', () => {
      start({ publicCalls: 2 });
      const { call: theirs } = withToken(indexed());
      limits.arrived(theirs);
      limits.answered(theirs);
      const unread = answer('192.0.2.1');
      const incomplete = open('192.0.2.2').call;
      sweepAfter(UNREAD_MS);
      expect(open('192.0.2.3').limit).to.equal(undefined);
      expect([incomplete.ended, unread.ended]).to.deep.equal([['public_calls'], []]);
      for (let count = 0; count < 2; count += 1) limits.arrived(open('192.0.2.3').call);
      expect(theirs.ended).to.deep.equal([]);
    });

    it('make room as well when it is a message of a stream, and not when it was read', () => {
      start({ publicCalls: 2 });
      const [unread, read] = [open('192.0.2.1', 'responses').call, open('192.0.2.2').call];
      for (const each of [unread, read]) {
        limits.arrived(each);
        limits.sending(each);
      }
      limits.sent(read);
      sweepAfter(UNREAD_MS);
      expect(open('192.0.2.3').limit).to.equal(undefined);
      expect([unread.ended, read.ended]).to.deep.equal([['response_seconds'], []]);
    });
  });

  describe('of bytes in flight', () => {
    const token = (subject: string) => indexed({ subject });

    it('change with every charge, and end with the call or its request', () => {
      const { call: one } = withToken(token('user-1'));
      const { call: stranger } = open('192.0.2.1');
      limits.charge(one, 100);
      limits.charge(stranger, 50);
      limits.charge(one, 80);
      expect(limits.state().bytesInFlight).to.equal(130);
      expect([one.heldBytes, one.holder?.bytes, stranger.holder?.bytes]).to.deep.equal([80, 80, 50]);
      limits.arrived(one);
      expect(limits.state().bytesInFlight).to.equal(50);
      limits.leave(stranger);
      expect(limits.state().bytesInFlight).to.equal(0);
      expect(stranger).to.include({ heldBytes: 0, holder: undefined });
    });

    it('are not charged to a call that has not entered, or has ended', () => {
      const outside = call();
      expect(limits.charge(outside, 100)).to.equal(undefined);
      const { call: one } = withToken(token('user-1'));
      limits.leave(one);
      expect(limits.charge(one, 100)).to.equal(undefined);
      expect([limits.state().bytesInFlight, one.heldBytes]).to.deep.equal([0, 0]);
    });

    it('are an eighth for one caller at most, over all its calls', () => {
      start({ bytesInFlight: 800 });
      const [one, two] = [withToken(token('user-1')).call, withToken(token('user-1')).call];
      expect(limits.charge(one, 60)).to.equal(undefined);
      expect(limits.charge(two, 40)).to.equal(undefined);
      expect(limits.charge(two, 41)).to.equal('bytes_in_flight');
      // A charge that is refused changes nothing, and less is always allowed.
      expect(two.heldBytes).to.equal(40);
      expect(limits.charge(one, 59)).to.equal(undefined);
      expect(limits.charge(two, 41)).to.equal(undefined);
    });

    it('are three quarters for known callers together, and make room by the oldest incomplete request', () => {
      start({ bytesInFlight: 800 });
      const calls = [0, 1, 2, 3, 4, 5, 6].map((index) => withToken(token(`user-${index}`)).call);
      const [empty, first, second] = [withToken(token('without')).call, calls[0], calls[1]];
      for (const each of calls.slice(0, 6)) expect(limits.charge(each, 100)).to.equal(undefined);
      const last = calls[6];
      if (last === undefined || first === undefined || second === undefined) throw new Error('no calls');
      expect(limits.charge(last, 1)).to.equal(undefined);
      expect([first.ended, second.ended, empty.ended]).to.deep.equal([['bytes_in_flight'], [], []]);
      expect(limits.state().bytesInFlight).to.equal(501);
    });

    it('are a quarter for strangers together, who cannot end the requests of known callers', () => {
      start({ bytesInFlight: 800 });
      const { call: user } = withToken(token('user-1'));
      limits.charge(user, 100);
      const [one, two, three] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((address) => open(address).call);
      if (one === undefined || two === undefined || three === undefined) throw new Error('no calls');
      expect([limits.charge(one, 100), limits.charge(two, 100)]).to.deep.equal([undefined, undefined]);
      expect(limits.charge(three, 1)).to.equal(undefined);
      expect([user.ended, one.ended, two.ended]).to.deep.equal([[], ['bytes_in_flight'], []]);
    });

    it('are refused when no other incomplete request holds any', () => {
      start({ bytesInFlight: 800 });
      const { call: one } = open('192.0.2.3');
      limits.charge(one, 10);
      const streams = ['192.0.2.1', '192.0.2.2'].map((address) => open(address, 'requests').call);
      for (const [index, each] of streams.entries()) limits.charge(each, 100 - 10 * index);
      // It must not end itself, nor a request that holds nothing.
      const { call: empty } = open('192.0.2.4');
      expect(limits.charge(one, 11)).to.equal('bytes_in_flight');
      expect([one.ended, empty.ended]).to.deep.equal([[], []]);
    });

    it('of a call that makes room leave first, whatever it grows to itself', () => {
      start({ bytesInFlight: 800 });
      const [one, two] = [open('192.0.2.1').call, open('192.0.2.2').call];
      for (const each of [one, two]) limits.charge(each, 90);
      expect(limits.charge(one, 100)).to.equal(undefined);
      expect(limits.charge(two, 100)).to.equal(undefined);
      expect([one.ended, two.ended]).to.deep.equal([[], []]);
      const { call: three } = open('192.0.2.3');
      expect(limits.charge(three, 100)).to.equal(undefined);
      expect([one.ended, two.ended]).to.deep.equal([['bytes_in_flight'], []]);
    });
  });

  describe('over time', () => {
    it('end requests that have not arrived, of both classes, at the limit and not before', () => {
      limits.sweep();
      const user = withToken(indexed()).call;
      const other = withToken(indexed({ subject: 'user-2' })).call;
      const stranger = open('192.0.2.1').call;
      const arrived = withToken(indexed()).call;
      limits.arrived(arrived);
      sweepAfter(DEFAULT_LIMITS.requestMs - 1);
      expect([user.ended, stranger.ended]).to.deep.equal([[], []]);
      sweepAfter(1);
      expect([user, other, stranger].map(({ ended }) => ended)).to.deep.equal(
        new Array(3).fill(['request_seconds']),
      );
      expect([arrived.ended, limits.state().publicCalls]).to.deep.equal([[], 0]);
    });

    it('do not end a stream of requests with a token, and a public one only when it is idle', () => {
      limits.sweep();
      const [mine, idle, active] = [
        withToken(indexed(), 'requests').call,
        open('192.0.2.1', 'requests').call,
        open('192.0.2.1', 'requests').call,
      ];
      sweepAfter(DEFAULT_LIMITS.publicIdleMs - 1);
      for (const each of [mine, active]) limits.active(each);
      expect([mine.queue, idle.ended]).to.deep.equal([undefined, []]);
      sweepAfter(1);
      expect([mine.ended, idle.ended, active.ended]).to.deep.equal([[], ['public_idle_seconds'], []]);
      sweepAfter(DEFAULT_LIMITS.publicIdleMs - 2);
      expect(active.ended).to.deep.equal([]);
      sweepAfter(1);
      expect(active.ended).to.deep.equal(['public_idle_seconds']);
    });

    it('end responses that are not read, from the time of the response on', () => {
      limits.sweep();
      const one = withToken(indexed()).call;
      sweepAfter(DEFAULT_LIMITS.requestMs / 2);
      limits.answered(one);
      sweepAfter(DEFAULT_LIMITS.responseMs - 1);
      expect(one.ended).to.deep.equal([]);
      sweepAfter(1);
      expect(one.ended).to.deep.equal(['response_seconds']);
    });

    it('end a stream whose message waits for its peer, unless it waits for something else or has ended', () => {
      limits.sweep();
      const [waiting, sent, arriving, idle, gone] = [
        withToken(indexed(), 'requests').call,
        withToken(indexed(), 'requests').call,
        withToken(indexed(), 'responses').call,
        open('192.0.2.1', 'requests').call,
        withToken(indexed(), 'requests').call,
      ];
      limits.leave(gone);
      const queues = [arriving, idle].map(({ queue }) => queue);
      for (const each of [waiting, sent, arriving, idle, gone]) limits.sending(each);
      for (const each of [sent, arriving, idle, gone]) limits.sent(each);
      expect([sent.queue, gone.queue]).to.deep.equal([undefined, undefined]);
      expect([arriving.queue === queues[0], idle.queue === queues[1]]).to.deep.equal([true, true]);
      limits.arrived(arriving);
      sweepAfter(DEFAULT_LIMITS.responseMs);
      expect([waiting, sent, arriving].map(({ ended }) => ended)).to.deep.equal([
        ['response_seconds'],
        [],
        [],
      ]);
    });

    it('end all that are late, also behind one that does not leave', () => {
      limits.sweep();
      const calls = [1, 2, 3].map(() => withToken(indexed()).call);
      for (const each of calls) each.limits = undefined;
      sweepAfter(DEFAULT_LIMITS.requestMs);
      expect(calls.map(({ ended }) => ended.length)).to.deep.equal([1, 1, 1]);
      sweepAfter(1);
      expect(calls.map(({ ended }) => ended.length)).to.deep.equal([1, 1, 1]);
    });

    it('are counted once, however often a call leaves', () => {
      const one = open('192.0.2.1', 'responses').call;
      const two = open('192.0.2.1').call;
      for (let count = 0; count < 3; count += 1) limits.leave(one);
      expect(two.holder).to.include({ calls: 1, streams: 0, bytes: 0 });
      expect(limits.state().publicCalls).to.equal(1);
      const { holder } = two;
      limits.leave(two);
      expect(holder).to.include({ calls: 0, streams: 0, bytes: 0 });
      expect(limits.state().publicCalls).to.equal(0);
    });

    it('forget callers without calls and cached tokens, ten seconds later at most', () => {
      limits.sweep();
      const kept = indexed({ subject: 'cached' });
      const calling = verifiedToken({ subject: 'calling' });
      const gone = verifiedToken({ subject: 'gone' });
      const holders = [kept, calling, gone].map((token) => {
        const { call: entered } = withToken(token);
        const { holder } = entered;
        if (token !== calling) limits.leave(entered);
        return holder;
      });
      const stranger = open('192.0.2.1').call;
      const { holder: network } = stranger;
      limits.leave(stranger);
      const again = () => [
        ...[kept, calling, gone].map((token, index) => {
          const { call: entered } = withToken(verifiedToken({ subject: token.claims.subject }));
          const isSame = entered.holder === holders[index];
          limits.leave(entered);
          return isSame;
        }),
        open('192.0.2.1').call.holder === network,
      ];
      sweepAfter(FORGET_INTERVAL_MS - 1);
      expect(again()).to.deep.equal([true, true, true, true]);
      limits.sweep();
      expect(again().slice(0, 3)).to.deep.equal([true, true, true]);
      sweepAfter(1);
      expect(again().slice(0, 3)).to.deep.equal([true, true, false]);
    });
  });
});
