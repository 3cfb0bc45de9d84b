/** The keys of another issuer over real HTTP: within the limits of time, size and number, whatever the issuer does. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { type CompactToken, parseForeignToken } from '../../../interceptors/src/token/compact.js';
import {
  createLegacyKeys,
  createPublishedKeys,
  type ForeignIssuerKeys,
  KEYS_BYTES_MAX,
  KEYS_FETCH_TIMEOUT_MS,
  KEYS_KEPT_MS,
  KEYS_PAUSE_MS,
  KEYS_REFRESH_MS,
  KEYS_WAIT_MS,
  KEYS_WAITERS_MAX,
  type PublishedIssuerKeys,
} from '../../../interceptors/src/token/foreign-issuer-keys.js';
import { makeFolder } from '../../support/folders.js';
import { createForeignKey, ForeignIssuer, type ForeignKey } from '../../support/foreign-issuer.js';
import { until } from '../../support/waiting.js';
import { SetClock, SetTimers } from '../tokens-support.js';

const TYPES = { types: new Set(['jwt']), mayLackKeyId: false };

describe('the keys of another issuer', () => {
  let issuer: ForeignIssuer;
  let clock: SetClock;
  let timers: SetTimers;
  let keys: ForeignIssuerKeys;
  let warnings: string[];
  let changes: number;

  before(async () => {
    issuer = await ForeignIssuer.start({ algorithm: 'ES256' });
  });
  after(() => issuer.stop());
  beforeEach(async () => {
    issuer.behaviour = 'good';
    issuer.keys = [await createForeignKey('ES256')];
    issuer.asked = 0;
    issuer.sent = 0;
    clock = new SetClock();
    timers = new SetTimers();
    warnings = [];
    changes = 0;
  });
  afterEach(() => keys.close());

  function open(over: Partial<PublishedIssuerKeys> = {}): void {
    keys = createPublishedKeys({
      issuer: issuer.name,
      jwksUrl: issuer.jwksUrl,
      algorithms: ['ES256'],
      clock,
      timers,
      log: {
        info: () => undefined,
        error: () => undefined,
        warn: (fields) => void warnings.push(String((fields as { reason?: unknown }).reason)),
      },
      onChange: () => {
        changes += 1;
      },
      ...over,
    });
  }

  async function tokenBy(key: ForeignKey = issuer.key): Promise<CompactToken> {
    const token = parseForeignToken(await issuer.sign(issuer.claims(), {}, key), TYPES);
    if (token === undefined) throw new Error('the test made no token');
    return token;
  }

  /** Advances the clock, and runs the timers that are due. */
  function pass(ms: number): void {
    clock.pass(ms);
    timers.pass(ms);
  }

  const failed = () => until(() => warnings.length > 0);

  it("verify the issuer's tokens, and are fetched once for many", async () => {
    open();
    const token = await tokenBy();
    expect(await Promise.all([1, 2, 3].map(() => keys.verify(token)))).to.deep.equal([
      'GOOD',
      'GOOD',
      'GOOD',
    ]);
    const forged = { ...token, signed: Buffer.concat([token.signed, Buffer.from('A')]) };
    expect(await keys.verify(forged)).to.equal('BAD');
    expect(await keys.verify({ ...token, algorithm: 'HS256' })).to.equal('BAD');
    expect(issuer.asked).to.equal(1);
  });

  it('are fetched at a limited rate, however many unknown kids arrive', async () => {
    open();
    await until(() => changes === 1);
    clock.pass(KEYS_PAUSE_MS);
    const stranger = await createForeignKey('ES256');
    for (let round = 0; round < 5; round += 1) {
      const many = await Promise.all(
        Array.from({ length: 50 }, async (_, index) => {
          const token = await tokenBy(stranger);
          return keys.verify({ ...token, keyId: `kid-${round}-${index}` });
        }),
      );
      expect(new Set(many)).to.deep.equal(new Set(['BAD']));
      clock.pass(1000);
    }
    expect(issuer.asked).to.equal(2);
    expect(await keys.verify(await tokenBy())).to.equal('GOOD');
  });

  it('include a new key with the first token that it signed', async () => {
    open();
    expect(await keys.verify(await tokenBy())).to.equal('GOOD');
    const former = issuer.key;
    issuer.keys = [await createForeignKey('ES256')];
    clock.pass(KEYS_PAUSE_MS);
    expect(await keys.verify(await tokenBy())).to.equal('GOOD');
    expect(keys.has(former.kid)).to.equal(false);
    expect(changes).to.equal(2);
  });

  it('are fetched again regularly, so that a withdrawn key leaves', async () => {
    open();
    await until(() => changes === 1);
    const former = issuer.key;
    issuer.keys = [await createForeignKey('ES256')];
    await until(() => {
      pass(KEYS_REFRESH_MS);
      return changes >= 2;
    });
    expect(keys.has(former.kid)).to.equal(false);
  });

  it('are kept for a limited time while the issuer is unreachable', async () => {
    open();
    const token = await tokenBy();
    expect(await keys.verify(token)).to.equal('GOOD');
    issuer.behaviour = 'down';
    pass(KEYS_REFRESH_MS);
    await failed();
    expect(await keys.verify(token)).to.equal('GOOD');
    clock.pass(KEYS_KEPT_MS);
    expect(await keys.verify(token)).to.equal('UNKNOWN');
    issuer.behaviour = 'good';
    clock.pass(KEYS_PAUSE_MS);
    expect(await keys.verify(token)).to.equal('GOOD');
  });

  it('that cannot be fetched leave a token undecided, until the issuer is reachable', async () => {
    issuer.behaviour = 'down';
    open();
    await failed();
    expect(await keys.verify(await tokenBy())).to.equal('UNKNOWN');
    expect(issuer.asked).to.equal(1);
    issuer.behaviour = 'good';
    pass(KEYS_PAUSE_MS);
    await until(() => changes === 1);
    expect(await keys.verify(await tokenBy())).to.equal('GOOD');
  });

  it('delay few calls, and each for a short time, when the issuer is slow', async function () {
    this.timeout(KEYS_FETCH_TIMEOUT_MS + 10_000);
    issuer.behaviour = 'slow';
    open();
    const token = await tokenBy();
    const waiting = Array.from({ length: KEYS_WAITERS_MAX }, () => keys.verify(token));
    // One more call is answered while the fetch is still open.
    expect(await keys.verify(token)).to.equal('UNKNOWN');
    expect(warnings).to.deep.equal([]);
    timers.pass(KEYS_WAIT_MS);
    expect(new Set(await Promise.all(waiting))).to.deep.equal(new Set(['UNKNOWN']));
    await until(() => warnings.length > 0, { withinMs: KEYS_FETCH_TIMEOUT_MS + 5000 });
    expect(issuer.asked).to.equal(1);
  });

  it('are not read beyond the size limit', async () => {
    issuer.behaviour = 'huge';
    open();
    await failed();
    expect(warnings[0]).to.contain(String(KEYS_BYTES_MAX));
    // The connection is closed, so that the issuer stops sending.
    await until(() => issuer.answering === 0);
    expect(issuer.sent).to.be.below(64 * 1024 * 1024);
  });

  it('are not fetched from the target of a redirect', async () => {
    issuer.behaviour = 'redirect';
    open();
    await failed();
    expect(issuer.asked).to.equal(1);
  });

  it('of a malformed response are rejected as a whole, and the former ones stay', async () => {
    open();
    const token = await tokenBy();
    expect(await keys.verify(token)).to.equal('GOOD');
    issuer.behaviour = 'lie';
    const good = issuer.key.jwk;
    const other = await createForeignKey('ES256', issuer.key.kid);
    const lies: unknown[] = [
      'no JSON',
      [],
      {},
      { keys: {} },
      { keys: [] },
      { keys: [good, other.jwk] },
      { keys: Array.from({ length: 33 }, (_, index) => ({ ...good, kid: `kid-${index}` })) },
      `{"keys": [], "keys": [${JSON.stringify(good)}]}`,
    ];
    for (const lie of lies) {
      issuer.lie = lie;
      const before = warnings.length;
      await until(() => {
        pass(KEYS_PAUSE_MS);
        return warnings.length > before;
      });
    }
    expect(changes).to.equal(1);
    clock.monotonic = 50_000;
    expect(await keys.verify(token)).to.equal('GOOD');
  });

  it('are only those that fit exactly one configured algorithm and contain no private part', async () => {
    const [es, rsa, rsaWithout, ed] = [
      await createForeignKey('ES256'),
      await createForeignKey('RS256'),
      await createForeignKey('RS256'),
      await createForeignKey('EdDSA'),
    ];
    const { alg: _alg, ...ambiguous } = rsaWithout.jwk;
    issuer.behaviour = 'lie';
    issuer.lie = {
      keys: [
        es.jwk,
        rsa.jwk,
        ambiguous,
        ed.jwk,
        { ...es.jwk, kid: 'encryption', use: 'enc' },
        { ...es.jwk, kid: 'private', d: 'AAAA' },
        { ...es.jwk, kid: 'other algorithm', alg: 'ES384' },
        { ...es.jwk, kid: 'off the curve', x: es.jwk.y },
        { ...es.jwk, kid: 7 },
        { ...es.jwk, kid: '' },
        { kty: 'oct', kid: 'symmetric', k: 'c2VjcmV0', alg: 'HS256' },
        { ...rsa.jwk, kid: 'short', n: (rsa.jwk.n ?? '').slice(0, 171) },
        'no key',
        null,
      ],
    };
    open({ algorithms: ['ES256', 'RS256', 'PS256'] });
    await until(() => changes === 1);
    for (const kid of [es.kid, rsa.kid]) expect(keys.has(kid), kid).to.equal(true);
    const unusable = ['encryption', 'private', 'other algorithm', 'off the curve', '', 'symmetric', 'short'];
    for (const kid of [rsaWithout.kid, ed.kid, ...unusable]) expect(keys.has(kid), kid).to.equal(false);
  });

  it('can be in a file, which is read again', async () => {
    const folder = await makeFolder();
    const jwksFile = join(folder.path, 'jwks.json');
    const write = () => writeFile(jwksFile, JSON.stringify({ keys: issuer.keys.map(({ jwk }) => jwk) }));
    await write();
    open({ jwksUrl: undefined, jwksFile });
    expect(await keys.verify(await tokenBy())).to.equal('GOOD');
    issuer.keys = [await createForeignKey('ES256')];
    await write();
    clock.pass(KEYS_PAUSE_MS);
    expect(await keys.verify(await tokenBy())).to.equal('GOOD');
    expect(issuer.asked).to.equal(0);
    await writeFile(jwksFile, Buffer.alloc(KEYS_BYTES_MAX + 1, ' '));
    pass(KEYS_REFRESH_MS);
    await failed();
    await folder.remove();
  });

  it('of a legacy issuer are its secret, for HS256 only', async () => {
    keys = createLegacyKeys(Buffer.alloc(32, 7));
    const token = await tokenBy();
    expect(await keys.verify(token)).to.equal('BAD');
    expect(await keys.verify({ ...token, algorithm: 'HS256' })).to.equal('BAD');
  });
});
