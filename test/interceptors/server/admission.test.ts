/** Decisions between fakes: credentials, keys that fail, other issuers, and what the guard learns from each token. */

import { expect } from 'chai';
import { Feed } from '../../../interceptors/src/revocation/feed.js';
import { Admissions } from '../../../interceptors/src/server/admission.js';
import { JOINED_CALLS_PER_NETWORK_MAX } from '../../../interceptors/src/server/verifications.js';
import type { ForeignIssuer, TrustedIssuers } from '../../../interceptors/src/token/trusted-issuers.js';
import { answer, endOfPull, keySet, LEASE_MS, NOTHING } from '../revocation/feed-support.js';
import { AUDIENCE, callerWith, ISSUER, SetClock, verifiedToken } from '../tokens-support.js';
import { ALLOW, bearer, foreignIssuer, HeldKeys, outcomeOf, REFUSE, tokenText } from './admission-support.js';

const OTHER = 'https://other.example';

describe('admission', () => {
  let clock: SetClock;
  let keys: HeldKeys;
  let feed: Feed;
  let admissions: Admissions;
  let faults: string[];
  let verifiedMs: number[];
  let limited: string[];

  beforeEach(() => {
    start();
    hydrate();
  });

  function start(trusted?: TrustedIssuers): void {
    clock = new SetClock();
    keys = new HeldKeys('key-1');
    faults = [];
    verifiedMs = [];
    limited = [];
    const listener = { entryAdded: () => {}, listFilled: () => {}, epochChanged: () => {} };
    feed = new Feed({ service: AUDIENCE, instance: Buffer.alloc(16, 1), listener });
    admissions = new Admissions({
      issuer: ISSUER,
      audience: AUDIENCE,
      clock,
      feed,
      trusted,
      onTokenInvalid: (fault) => faults.push(fault),
      onVerified: (ms) => verifiedMs.push(ms),
      onLimit: (limit) => limited.push(limit),
    });
  }

  function sync(over: Parameters<typeof answer>[0] = {}): void {
    const sentAt = { monotonicMs: clock.monotonic, wallMs: clock.wall };
    feed.applySyncResponse(feed.createSyncRequest(sentAt), answer(over), () => admissions.replaceKeys(keys));
  }

  function hydrate(): void {
    sync({ pull: true, keySet: keySet(1) });
    feed.beginPull();
    feed.applyPullPart(endOfPull(0n, NOTHING));
    clock.pass(1);
    sync();
  }

  /** The trusted issuers of a test, which it may change. */
  function trusting(...issuers: ForeignIssuer[]): TrustedIssuers & { readonly issuers: ForeignIssuer[] } {
    return {
      issuers,
      get size() {
        return issuers.length;
      },
      claimIds: [],
      find: (name) => issuers.find(({ issuer }) => issuer === name),
      close: () => {},
    };
  }

  const decide = (text: string, rule = REFUSE, caller = callerWith()) =>
    admissions.decide(rule, bearer(text), caller);
  const decided = async (text: string, rule = REFUSE) => outcomeOf(await decide(text, rule));

  describe('of a credential', () => {
    it('needs the scheme Bearer, not another scheme of the same length', async () => {
      const text = tokenText();
      for (const scheme of ['Digest ', 'Bearex ', 'Bearer-', '       ']) {
        const admission = await admissions.decide(REFUSE, [`${scheme}${text}`], callerWith());
        expect(outcomeOf(admission), scheme).to.equal('TOKEN_INVALID');
      }
      expect(new Set(faults)).to.deep.equal(new Set(['authorization']));
    });

    it('counts every decision on one', async () => {
      const text = tokenText();
      for (const each of [text, text, 'x']) await decide(each);
      admissions.decide(REFUSE, [], callerWith());
      expect(admissions.decisions).to.equal(3);
    });

    it('asks for the address of the peer only to verify a new token', async () => {
      const text = tokenText();
      let asked = 0;
      const caller = Object.assign(callerWith(), {
        getPeer: () => {
          asked += 1;
          return 'peer';
        },
      });
      for (let count = 0; count < 3; count += 1) await decide(text, REFUSE, caller);
      expect(asked).to.equal(1);
    });

    it('marks a cached token as used, so that it is not evicted', async () => {
      const text = tokenText();
      await decide(text);
      const token = admissions.tokens.find(text);
      if (token === undefined) throw new Error('the token is not cached');
      token.used = false;
      await decide(text);
      expect(token.used).to.equal(true);
    });
  });

  describe('of a token that is not cached', () => {
    it('ends the wait of the calls that joined its verification, whether it succeeds or fails', async () => {
      const verify = keys.verify.bind(keys);
      for (const fails of [false, true, false]) {
        const text = tokenText();
        keys.isHolding = true;
        if (fails) {
          keys.verify = async (token) => {
            await verify(token);
            throw new Error('a fault of the library');
          };
        }
        const waiting = Array.from({ length: JOINED_CALLS_PER_NETWORK_MAX + 1 }, () =>
          decided(text).catch(() => 'failed'),
        );
        keys.release();
        expect(new Set(await Promise.all(waiting))).to.deep.equal(new Set([fails ? 'failed' : 'admitted']));
        keys.verify = verify;
      }
      expect(limited).to.deep.equal([]);
    });

    it('reports how long its verification took', async () => {
      keys.isHolding = true;
      const waiting = decided(tokenText());
      clock.pass(7);
      keys.release();
      expect([await waiting, verifiedMs]).to.deep.equal(['admitted', [7]]);
    });

    it('fails with the error of its keys, and is verified again by the next call', async () => {
      const text = tokenText();
      const fault = new Error('a fault of the library');
      const verify = keys.verify.bind(keys);
      keys.verify = () => Promise.reject(fault);
      let thrown: unknown;
      try {
        await decide(text);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).to.equal(fault);
      keys.verify = verify;
      expect(await decided(text)).to.equal('admitted');
    });

    it('is invalid when its signed payload is not JSON', async () => {
      const [header = '', , signature = ''] = tokenText().split('.');
      const payload = Buffer.from('no JSON').toString('base64url');
      expect(await decided(`${header}.${payload}.${signature}`)).to.equal('TOKEN_INVALID');
      expect(faults).to.deep.equal(['payload']);
    });

    it('makes its network known while the list is stale, too', async () => {
      clock.pass(LEASE_MS);
      expect(await decided(tokenText(), ALLOW)).to.equal('admitted');
      expect(admissions.knownNetworks.has('peer')).to.equal(true);
    });

    it('is not cached when it has expired, at the very moment or before', async () => {
      for (const afterMs of [0, 1]) {
        start();
        hydrate();
        const text = tokenText();
        // Its expiry, with the skew of 5 seconds.
        clock.pass(295_000 - 1 + afterMs);
        expect(await decided(text, ALLOW)).to.equal('TOKEN_EXPIRED');
        expect(admissions.tokens.size).to.equal(0);
      }
    });

    it('is not called invalid for an unknown key at the moment when the lease ends', async () => {
      const unknown = tokenText({}, 'key-9');
      clock.pass(LEASE_MS - 1);
      expect(await decided(unknown)).to.equal('TOKEN_INVALID');
      clock.pass(1);
      expect(await decided(unknown)).to.equal('REVOCATION_STATE_STALE');
      expect(faults).to.deep.equal(['kid']);
    });

    it('is introspected while the list is stale, too', async () => {
      clock.pass(LEASE_MS);
      const jti = '55555555-5555-4555-8555-555555555555';
      expect(await admissions.introspect(tokenText({ jti }), undefined)).to.have.property('tokenId', jti);
    });
  });

  it('knows for how long a call may go on: its token and, unless the rule allows a stale list, the lease', () => {
    const token = verifiedToken();
    const lifeMs = token.expiresAtMs - clock.wall;
    expect(admissions.validForMs(token, true)).to.equal(lifeMs);
    expect(admissions.validForMs(token, false)).to.equal(LEASE_MS);
    const short = verifiedToken({ expiresAtSeconds: clock.wall / 1000 - 4 });
    expect(admissions.validForMs(short, false)).to.equal(short.expiresAtMs - clock.wall);
    clock.pass(100);
    expect(admissions.validForMs(token, true)).to.equal(lifeMs - 100);
    expect(admissions.validForMs(token, false)).to.equal(LEASE_MS - 100);
  });

  describe('of the token of another issuer', () => {
    const OTHER_ADMITTED = tokenText({ iss: OTHER }, 'theirs');
    let theirs: HeldKeys;
    let trusted: ReturnType<typeof trusting>;

    beforeEach(() => {
      theirs = new HeldKeys('theirs');
      trusted = trusting(foreignIssuer(OTHER, theirs));
      start(trusted);
      hydrate();
    });

    it('uses the keys of the issuer that it names, and no others', async () => {
      expect(await decided(OTHER_ADMITTED)).to.equal('admitted');
      expect(await decided(tokenText())).to.equal('admitted');
      expect([keys.verified, theirs.verified]).to.deep.equal([1, 1]);
      expect(await decided(tokenText({ iss: OTHER }, 'key-1'))).to.equal('TOKEN_INVALID');
      expect(await decided(tokenText({}, 'theirs'))).to.equal('TOKEN_INVALID');
      expect(keys.verified).to.equal(1);
    });

    it('names the fault of a token without a trusted issuer, and verifies nothing', async () => {
      for (const [text, fault] of [
        ['x', 'form'],
        [tokenText({ iss: undefined }), 'form'],
        [tokenText({ iss: 'https://third.example' }), 'iss'],
      ] as const) {
        faults = [];
        expect(await decided(text)).to.equal('TOKEN_INVALID');
        expect(faults).to.deep.equal([fault]);
      }
      expect([keys.verified, theirs.verified]).to.deep.equal([0, 0]);
    });

    it('calls no token invalid before the first sync where no other issuer is trusted', async () => {
      start(trusting());
      expect(await decided(OTHER_ADMITTED)).to.equal('REVOCATION_STATE_STALE');
      expect(faults).to.deep.equal([]);
    });

    it('counts the verifications of one issuer together, and apart from those of others', async () => {
      theirs.isHolding = true;
      const waiting = Array.from({ length: 700 }, () => decided(tokenText({ iss: OTHER }, 'theirs')));
      await new Promise((resolve) => setImmediate(resolve));
      // As many as may run for unknown networks: three quarters of 128.
      expect(theirs.verified).to.equal(96);
      expect(await decided(tokenText())).to.equal('admitted');
      theirs.release();
      expect(await Promise.all(waiting)).to.include('RATE_LIMITED');
      expect(limited).to.include('verifications');
    });

    it('finds it revoked when it is not cached and its issuer is not trusted any longer', async () => {
      await decide(OTHER_ADMITTED);
      const token = admissions.tokens.find(OTHER_ADMITTED);
      if (token === undefined) throw new Error('the token is not cached');
      admissions.tokens.remove(token);
      expect(admissions.denialReason(token, false)).to.equal(undefined);
      theirs.kids.clear();
      expect(admissions.denialReason(token, false)).to.equal('TOKEN_REVOKED');
      theirs.kids.add('theirs');
      trusted.issuers.length = 0;
      expect(admissions.denialReason(token, false)).to.equal('TOKEN_REVOKED');
    });
  });
});
