/** The keys of another issuer over real HTTP: within the limits of time, size and number, whatever the issuer does. */

import { createHash, KeyObject } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { CompactSign, type CryptoKey, importPKCS8 } from 'jose';
import { type CompactToken, parseForeignToken } from '../../../interceptors/src/token/compact.js';
import {
  createLegacyKeys,
  createPublishedKeys,
  type ForeignIssuerKeys,
  KEYS_BYTES_MAX,
  KEYS_KEPT_MS,
  KEYS_PAUSE_MS,
  KEYS_REFRESH_MS,
  KEYS_WAIT_MS,
  KEYS_WAITERS_MAX,
  type KeyVerdict,
  type PublishedIssuerKeys,
} from '../../../interceptors/src/token/issuer-keys.js';
import { weakKeys } from '../../../proofs/attack/weak-keys.js';
import { makeFolder } from '../../support/folders.js';
import { createForeignKey, ForeignIssuer, type ForeignKey } from '../../support/foreign-issuer.js';
import { until } from '../../support/waiting.js';
import { SetClock, SetTimers } from '../tokens-support.js';

const TYPES = new Set(['application/jwt']);

/** The form of a verdict, without the key. */
async function verdictOf(verdict: Promise<KeyVerdict>): Promise<'GOOD' | 'BAD' | 'UNKNOWN'> {
  const given = await verdict;
  return typeof given === 'string' ? given : 'GOOD';
}

/** The thumbprint of a key (RFC 7638). */
function thumbprintOf({ jwk }: ForeignKey): string {
  const { crv, kty, x, y } = jwk;
  return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
}

/** An RSA key for another algorithm. */
function asAlgorithm({ privateKey, algorithm }: ForeignKey, wanted: string): Promise<CryptoKey> {
  const pkcs8 = KeyObject.from(privateKey).export({ type: 'pkcs8', format: 'pem' }).toString();
  expect(algorithm).to.match(/^[RP]S256$/);
  return importPKCS8(pkcs8, wanted);
}

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

  async function tokenBy(key: ForeignKey = issuer.key, header: object = {}): Promise<CompactToken> {
    const token = parseForeignToken(await issuer.sign(issuer.claims(), header, key), TYPES);
    if (token === undefined) throw new Error('the test made no token');
    return token;
  }

  const verify = (token: CompactToken) => verdictOf(keys.verify(token));

  /** Advances the clock, and runs the timers that are due. */
  function pass(ms: number): void {
    clock.pass(ms);
    timers.pass(ms);
  }

  const failed = () => until(() => warnings.length > 0);

  it("verify the issuer's tokens, and are fetched once for many", async () => {
    open();
    const token = await tokenBy();
    expect(await Promise.all([1, 2, 3].map(() => verify(token)))).to.deep.equal(['GOOD', 'GOOD', 'GOOD']);
    const forged = { ...token, signed: Buffer.concat([token.signed, Buffer.from('A')]) };
    expect(await verify(forged)).to.equal('BAD');
    expect(await verify({ ...token, algorithm: 'HS256' })).to.equal('BAD');
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
          return verify({ ...token, keyId: `kid-${round}-${index}` });
        }),
      );
      expect(new Set(many)).to.deep.equal(new Set(['BAD']));
      clock.pass(1000);
    }
    expect(issuer.asked).to.equal(2);
    expect(await verify(await tokenBy())).to.equal('GOOD');
  });

  it('include a new key with the first token that it signed', async () => {
    open();
    expect(await verify(await tokenBy())).to.equal('GOOD');
    const former = issuer.key;
    issuer.keys = [await createForeignKey('ES256')];
    clock.pass(KEYS_PAUSE_MS);
    expect(await verify(await tokenBy())).to.equal('GOOD');
    expect(keys.has(thumbprintOf(former))).to.equal(false);
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
    expect(keys.has(thumbprintOf(former))).to.equal(false);
  });

  it('are kept for a limited time while the issuer is unreachable', async () => {
    open();
    const token = await tokenBy();
    expect(await verify(token)).to.equal('GOOD');
    issuer.behaviour = 'down';
    pass(KEYS_REFRESH_MS);
    await failed();
    expect(await verify(token)).to.equal('GOOD');
    clock.pass(KEYS_KEPT_MS);
    expect(await verify(token)).to.equal('UNKNOWN');
    issuer.behaviour = 'good';
    clock.pass(KEYS_PAUSE_MS);
    expect(await verify(token)).to.equal('GOOD');
  });

  it('that cannot be fetched leave a token undecided, until the issuer is reachable', async () => {
    issuer.behaviour = 'down';
    open();
    await failed();
    expect(await verify(await tokenBy())).to.equal('UNKNOWN');
    expect(issuer.asked).to.equal(1);
    issuer.behaviour = 'good';
    pass(KEYS_PAUSE_MS);
    await until(() => changes === 1);
    expect(await verify(await tokenBy())).to.equal('GOOD');
  });

  it('delay few calls, and each for a short time, when the issuer is slow', async () => {
    issuer.behaviour = 'slow';
    open();
    const token = await tokenBy();
    const waiting = Array.from({ length: KEYS_WAITERS_MAX }, () => verify(token));
    // One more call is answered while the fetch is still open.
    expect(await verify(token)).to.equal('UNKNOWN');
    expect(warnings).to.deep.equal([]);
    timers.pass(KEYS_WAIT_MS);
    expect(new Set(await Promise.all(waiting))).to.deep.equal(new Set(['UNKNOWN']));
    await until(() => warnings.length > 0);
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
    expect(await verify(token)).to.equal('GOOD');
    issuer.behaviour = 'lie';
    const good = issuer.key.jwk;
    const lies: unknown[] = [
      'no JSON',
      [],
      {},
      { keys: {} },
      { keys: [] },
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
    expect(await verify(token)).to.equal('GOOD');
  });

  /** Opens the keys of a set with these members, and waits until they are there. */
  async function publish(
    members: readonly unknown[],
    over: Partial<PublishedIssuerKeys> = {},
  ): Promise<void> {
    issuer.behaviour = 'lie';
    issuer.lie = { keys: members };
    open(over);
    await until(() => changes === 1);
  }

  it('are only those that fit exactly one configured algorithm and contain no private part', async () => {
    const [es, rsa, rsaWithout, ed] = [
      await createForeignKey('ES256'),
      await createForeignKey('RS256'),
      await createForeignKey('RS256'),
      await createForeignKey('EdDSA'),
    ];
    const { alg: _alg, ...ambiguous } = rsaWithout.jwk;
    const odd = [
      { ...es.jwk, kid: 'encryption', use: 'enc' },
      { ...es.jwk, kid: 'operations', key_ops: ['deriveKey'] },
      { ...es.jwk, kid: 'private', d: 'AAAA' },
      { ...es.jwk, kid: 'other algorithm', alg: 'ES384' },
      { ...es.jwk, kid: 'off the curve', x: es.jwk.y },
      { ...es.jwk, kid: 7 },
      { ...es.jwk, kid: '' },
      { ...es.jwk, kid: 'k'.repeat(256) },
      { kty: 'oct', kid: 'symmetric', k: 'c2VjcmV0', alg: 'HS256' },
      { ...rsa.jwk, kid: 'short', n: (rsa.jwk.n ?? '').slice(0, 171) },
      { ...rsa.jwk, kid: 'exponent', e: 'AQ' },
      'no key',
      null,
    ];
    await publish([...odd, es.jwk, rsa.jwk, ambiguous, ed.jwk, ...odd], {
      algorithms: ['ES256', 'RS256', 'PS256'],
    });
    for (const key of [es, rsa]) expect(await verify(await tokenBy(key))).to.equal('GOOD');
    for (const key of [rsaWithout, ed])
      expect(await verify(await tokenBy(key)), key.algorithm).to.equal('BAD');
    const kids = [
      'encryption',
      'operations',
      'private',
      'other algorithm',
      'off the curve',
      '7',
      '',
      'symmetric',
    ];
    for (const kid of kids)
      expect(await verify(await tokenBy({ ...es, kid: String(kid) })), String(kid)).to.equal('BAD');
    // One line names what is wrong with those that look as if they should be used.
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.match(
      /key "private" must contain the public members only.*key "off the curve" must be/,
    );
  });

  it('of one kid are told apart by their algorithm, and then by the signature', async () => {
    const kid = 'the same';
    const rs = await createForeignKey('RS256', kid);
    const others = await Promise.all([1, 2].map(() => createForeignKey('PS256', kid)));
    const signer = { ...rs, algorithm: 'PS256', privateKey: await asAlgorithm(rs, 'PS256') };
    await publish([rs.jwk, { ...rs.jwk, alg: 'PS256' }, ...others.map(({ jwk }) => jwk), rs.jwk], {
      algorithms: ['RS256', 'PS256'],
    });
    for (const key of [rs, signer, ...others]) expect(await verify(await tokenBy(key))).to.equal('GOOD');
    expect(await verify(await tokenBy(await createForeignKey('PS256', kid)))).to.equal('BAD');
    expect(warnings).to.deep.equal([]);
  });

  it('without kid serve tokens without kid', async () => {
    const [lone, other, named] = await Promise.all([1, 2, 3].map(() => createForeignKey('ES256')));
    if (lone === undefined || other === undefined || named === undefined) throw new Error('incomplete');
    const nameless = ({ kid: _kid, ...jwk }: ForeignKey['jwk']) => jwk;
    await publish([nameless(lone.jwk), nameless(other.jwk), named.jwk]);
    for (const key of [lone, other]) {
      expect(await verify(await tokenBy(key, { kid: undefined }))).to.equal('GOOD');
      expect(await verify(await tokenBy(key))).to.equal('BAD');
    }
    expect(await verify(await tokenBy(named, { kid: undefined }))).to.equal('BAD');
    expect(await verify(await tokenBy(named))).to.equal('GOOD');
  });

  it('with a kid serve tokens without kid if there is only one, and its successor at the next fetch', async () => {
    const [first, second] = [await createForeignKey('ES256'), await createForeignKey('ES256')];
    issuer.keys = [first];
    open();
    await until(() => changes === 1);
    const token = await tokenBy(first, { kid: undefined });
    expect(await verify(token)).to.equal('GOOD');
    issuer.keys = [second];
    clock.pass(KEYS_PAUSE_MS);
    expect(await verify(await tokenBy(second, { kid: undefined }))).to.equal('GOOD');
    expect(keys.has(thumbprintOf(first))).to.equal(false);
    expect(await verify(token)).to.equal('BAD');
    issuer.keys = [first, second];
    pass(KEYS_REFRESH_MS);
    await until(() => changes === 3);
    expect(await verify(token)).to.equal('BAD');
  });

  it('are named by what they are in a verdict, so that another key with the same kid is another key', async () => {
    const [first, second] = [await createForeignKey('ES256', 'k'), await createForeignKey('ES256', 'k')];
    issuer.keys = [first];
    open();
    await until(() => changes === 1);
    expect(await keys.verify(await tokenBy(first))).to.deep.equal({ verifiedBy: thumbprintOf(first) });
    issuer.keys = [second];
    pass(KEYS_REFRESH_MS);
    await until(() => changes === 2);
    expect(keys.has(thumbprintOf(first))).to.equal(false);
    expect(await keys.verify(await tokenBy(second))).to.deep.equal({ verifiedBy: thumbprintOf(second) });
  });

  it('that are weak are refused, and the others are used', async function () {
    this.timeout(180_000);
    const weak = weakKeys();
    issuer.keys = [await createForeignKey('RS256')];
    await publish(
      [...weak.map(({ name, algorithm, jwk }) => ({ ...jwk, kid: name, alg: algorithm })), issuer.key.jwk],
      {
        algorithms: ['RS256', 'EdDSA'],
      },
    );
    expect(await verify(await tokenBy())).to.equal('GOOD');
    for (const { name, algorithm, sign } of weak) {
      const head = [{ alg: algorithm, kid: name, typ: 'JWT' }, issuer.claims()]
        .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
        .join('.');
      const signature = sign?.(Buffer.from(head)) ?? Buffer.alloc(256, 1);
      const token = parseForeignToken(`${head}.${signature.toString('base64url')}`, TYPES);
      if (token === undefined) throw new Error('the test made no token');
      expect(await verify(token), name).to.equal('BAD');
    }
    expect(warnings[0]).to.contain('RSA exponent');
  });

  it('of a set without a usable key leave tokens undecided, and the log says why', async () => {
    const key = await createForeignKey('RS256');
    issuer.behaviour = 'lie';
    issuer.lie = { keys: [{ ...key.jwk, e: 'Aw' }] };
    open({ algorithms: ['RS256'] });
    await failed();
    expect(warnings[0]).to.match(/no usable key: key ".+" must have an odd RSA exponent/);
    expect(await verify(await tokenBy(key))).to.equal('UNKNOWN');
  });

  it('can be in a file, which is read again', async () => {
    const folder = await makeFolder();
    const jwksFile = join(folder.path, 'jwks.json');
    const write = () => writeFile(jwksFile, JSON.stringify({ keys: issuer.keys.map(({ jwk }) => jwk) }));
    await write();
    open({ jwksUrl: undefined, jwksFile });
    expect(await verify(await tokenBy())).to.equal('GOOD');
    issuer.keys = [await createForeignKey('ES256')];
    await write();
    clock.pass(KEYS_PAUSE_MS);
    expect(await verify(await tokenBy())).to.equal('GOOD');
    expect(issuer.asked).to.equal(0);
    await writeFile(jwksFile, Buffer.alloc(KEYS_BYTES_MAX + 1, ' '));
    pass(KEYS_REFRESH_MS);
    await failed();
    await folder.remove();
  });

  it('are fetched neither for a known key, nor for an algorithm that the issuer does not use', async () => {
    issuer.behaviour = 'down';
    open();
    await failed();
    expect(await verify({ ...(await tokenBy()), algorithm: 'RS256' })).to.equal('BAD');
    issuer.behaviour = 'good';
    pass(KEYS_PAUSE_MS);
    await until(() => changes === 1);
    clock.pass(KEYS_PAUSE_MS);
    const token = await tokenBy();
    const asked = issuer.asked;
    expect(await verify(token)).to.equal('GOOD');
    expect(await verify(await tokenBy(issuer.key, { kid: undefined }))).to.equal('GOOD');
    expect(await verify({ ...token, signed: Buffer.from('forged') })).to.equal('BAD');
    expect(await verify({ ...token, algorithm: 'RS256' })).to.equal('BAD');
    expect(issuer.asked).to.equal(asked);
  });

  it('are used up to the end of their time, and not at it', async () => {
    open();
    const token = await tokenBy();
    expect(await verify(token)).to.equal('GOOD');
    issuer.behaviour = 'down';
    clock.pass(KEYS_KEPT_MS - 1);
    expect(await verify(token)).to.equal('GOOD');
    clock.pass(1);
    expect(await verify(token)).to.equal('UNKNOWN');
  });

  it('that are not recent leave an unknown kid undecided, and decide about a known one', async () => {
    open();
    const [token, stranger] = [await tokenBy(), await tokenBy(await createForeignKey('ES256'))];
    expect(await verify(stranger)).to.equal('BAD');
    issuer.behaviour = 'down';
    // The fetch that this token causes fails, and the next is not due.
    clock.pass(KEYS_PAUSE_MS);
    expect(await verify(stranger)).to.equal('UNKNOWN');
    expect(await verify(stranger)).to.equal('UNKNOWN');
    expect(await verify({ ...stranger, keyId: '' })).to.equal('BAD');
    expect(await verify({ ...stranger, keyId: token.keyId })).to.equal('BAD');
    expect(await verify(token)).to.equal('GOOD');
    expect(issuer.asked).to.equal(2);
  });

  it('let calls wait again after many others have waited', async () => {
    open();
    const stranger = await tokenBy(await createForeignKey('ES256'));
    for (let round = 0; round <= KEYS_WAITERS_MAX; round += 1) {
      expect(await verify(stranger), String(round)).to.equal('BAD');
      clock.pass(KEYS_PAUSE_MS);
    }
    // The timer of the next fetch alone.
    expect(timers.waiting).to.equal(1);
  });

  it('leave unknown kids undecided while too many calls wait for a fetch', async () => {
    open();
    await until(() => changes === 1);
    issuer.behaviour = 'slow';
    clock.pass(KEYS_PAUSE_MS);
    const stranger = await tokenBy(await createForeignKey('ES256'));
    const waiting = Array.from({ length: KEYS_WAITERS_MAX }, () => verify(stranger));
    expect(await verify(stranger)).to.equal('UNKNOWN');
    expect(await verify(await tokenBy())).to.equal('GOOD');
    timers.pass(KEYS_WAIT_MS);
    await Promise.all(waiting);
  });

  it('are fetched again after the interval, and not before', async () => {
    open();
    await until(() => timers.waiting === 1);
    pass(KEYS_REFRESH_MS - 1);
    await until(async () => (await verify(await tokenBy())) === 'GOOD');
    expect(issuer.asked).to.equal(1);
    pass(1);
    await until(() => changes === 2);
    expect(issuer.asked).to.equal(2);
  });

  it('are no longer fetched after they were closed, and what is open ends without a log line', async () => {
    open();
    await until(() => timers.waiting === 1);
    keys.close();
    expect(timers.waiting).to.equal(0);
    issuer.behaviour = 'slow';
    open();
    await until(() => issuer.answering === 1);
    keys.close();
    await until(() => issuer.answering === 0);
    expect(timers.waiting).to.equal(0);
    expect(warnings).to.deep.equal([]);
    expect(issuer.asked).to.equal(2);
  });

  it('are asked for as a JWK Set, with status 200 as the only success', async () => {
    issuer.behaviour = 'down';
    for (const status of [503, 404, 204, 201]) {
      issuer.status = status;
      const before = warnings.length;
      open();
      await until(() => warnings.length > before);
      keys.close();
      expect(warnings.at(-1)).to.equal(`expected the key set with status 200, got ${status}`);
    }
    issuer.status = 503;
    expect(issuer.accepted).to.equal('application/jwk-set+json, application/json');
  });

  it('may be a set of exactly the maximum size, over HTTP and in a file', async () => {
    const folder = await makeFolder();
    const jwksFile = join(folder.path, 'jwks.json');
    const text = JSON.stringify({ keys: issuer.keys.map(({ jwk }) => jwk) }).padEnd(KEYS_BYTES_MAX);
    await writeFile(jwksFile, text);
    issuer.behaviour = 'lie';
    issuer.lie = text;
    for (const over of [{}, { jwksUrl: undefined, jwksFile }]) {
      open(over);
      expect(await verify(await tokenBy())).to.equal('GOOD');
      keys.close();
    }
    issuer.lie = `${text} `;
    await writeFile(jwksFile, `${text} `);
    for (const over of [{}, { jwksUrl: undefined, jwksFile }]) {
      const before = warnings.length;
      open(over);
      await until(() => warnings.length > before);
      keys.close();
      expect(warnings.at(-1)).to.equal(`expected a key set of at most ${KEYS_BYTES_MAX} bytes`);
    }
    await folder.remove();
  });

  it('that are refused are logged once for as long as they stay the same, and five of them by name', async () => {
    const refused = (count: number): unknown[] => Array.from({ length: count }, () => 'no key');
    const refetch = async (members: readonly unknown[]): Promise<void> => {
      issuer.lie = { keys: members };
      const before = changes;
      await until(() => {
        pass(KEYS_REFRESH_MS);
        return changes > before;
      });
    };
    await publish([issuer.key.jwk]);
    expect(warnings).to.deep.equal([]);
    await refetch([issuer.key.jwk, ...refused(6)]);
    const line = [1, 2, 3, 4, 5].map((index) => `member ${index} must be an object`).join('; ');
    expect(warnings).to.deep.equal([line]);
    await refetch([issuer.key.jwk, ...refused(6)]);
    expect(warnings).to.deep.equal([line]);
    await refetch([issuer.key.jwk]);
    await refetch([issuer.key.jwk, ...refused(6)]);
    expect(warnings).to.deep.equal([line, line]);
  });

  it('of a legacy issuer are its secret, for HS256 only', async () => {
    const secret = Buffer.alloc(64, 7);
    keys = createLegacyKeys(secret);
    const signed = async (alg: string): Promise<CompactToken> => {
      const text = await new CompactSign(Buffer.from('{}'))
        .setProtectedHeader({ alg, typ: 'JWT' })
        .sign(secret);
      const token = parseForeignToken(text, TYPES);
      if (token === undefined) throw new Error('the test made no token');
      return token;
    };
    expect(await keys.verify(await signed('HS256'))).to.deep.equal({ verifiedBy: '' });
    expect(keys.has('')).to.equal(true);
    for (const alg of ['HS384', 'HS512']) expect(await keys.verify(await signed(alg)), alg).to.equal('BAD');
    const token = await tokenBy();
    expect(await verify(token)).to.equal('BAD');
    expect(await verify({ ...token, algorithm: 'HS256' })).to.equal('BAD');
  });
});
