/** Keys of another issuer that change while one of its tokens is being verified. */

import { expect } from 'chai';
import { Feed } from '../../../interceptors/src/revocation/feed.js';
import { VerifiedToken } from '../../../interceptors/src/revocation/verified-tokens.js';
import { PUBLIC_RULE } from '../../../interceptors/src/server/access-rule.js';
import { Enforcement } from '../../../interceptors/src/server/enforcement.js';
import { KEYS_PAUSE_MS } from '../../../interceptors/src/token/issuer-keys.js';
import {
  createTrustedIssuers,
  type TrustedIssuers,
} from '../../../interceptors/src/token/trusted-issuers.js';
import { MovableClock } from '../../support/clock.js';
import { createForeignKey, ForeignIssuer } from '../../support/foreign-issuer.js';
import { until } from '../../support/waiting.js';
import { callerWith, SetTimers } from '../tokens-support.js';
import { bearer } from './admission-support.js';

const SILENT = { info: () => {}, warn: () => {}, error: () => {} };

describe("a token of another issuer whose key is withdrawn while the token's signature is verified", () => {
  let issuer: ForeignIssuer;
  let trusted: TrustedIssuers;
  let enforcement: Enforcement;
  let faults: string[];
  const clock = new MovableClock();
  const timers = new SetTimers();
  /** Runs after the signature was found good, and before the guard learns it. */
  let meanwhile: () => Promise<void>;

  beforeEach(async () => {
    issuer = await ForeignIssuer.start({ algorithm: 'ES256', kid: 'the same' });
    faults = [];
    meanwhile = () => Promise.resolve();
    trusted = createTrustedIssuers({
      issuers: [
        { issuer: issuer.name, keys: { jwksUrl: issuer.jwksUrl, algorithms: ['ES256'] }, types: ['JWT'] },
      ],
      ...{
        ownIssuer: 'https://auth.example',
        audience: 'echo',
        plaintext: 'loopback',
        clock,
        timers,
        log: SILENT,
      },
      onKeys: (changed) => enforcement.foreignKeysChanged(changed),
    });
    enforcement = new Enforcement({
      ...{ issuer: 'https://auth.example', audience: 'echo', clock, timers },
      createFeed: (listener) => new Feed({ service: 'echo', instance: Buffer.alloc(16, 1), listener }),
      trusted: {
        ...trusted,
        find: (name) => {
          const found = trusted.find(name);
          return (
            found && {
              ...found,
              verify: async (token) => {
                const verdict = await found.verify(token);
                await meanwhile();
                return verdict;
              },
            }
          );
        },
      },
      onTokenInvalid: (fault) => void faults.push(fault),
      onCutFailed: () => undefined,
    });
  });
  afterEach(async () => {
    trusted.close();
    await issuer.stop();
  });

  /** Decides a call with a token. @returns the verified token, if there is one now */
  async function verify(text: string): Promise<VerifiedToken | undefined> {
    const rule = { ...PUBLIC_RULE, isPublic: false };
    await enforcement.admissions.decide(rule, bearer(text), callerWith());
    return enforcement.admissions.tokens.find(text);
  }

  /** Publishes another key, and waits until the guard has it. */
  async function replaceKey(kid: string): Promise<void> {
    issuer.keys = [await createForeignKey('ES256', kid)];
    clock.pass(KEYS_PAUSE_MS);
    timers.pass(KEYS_PAUSE_MS * 1000);
    const before = issuer.asked;
    await until(async () => {
      const found = trusted.find(issuer.name);
      const token = found?.parse(await issuer.token());
      return token !== undefined && typeof (await found?.verify(token)) === 'object';
    });
    expect(issuer.asked).to.be.at.least(before);
  }

  it('is accepted while the key stays', async () => {
    const verified = await verify(await issuer.token());
    expect(verified).to.be.instanceOf(VerifiedToken);
  });

  for (const kid of ['another', 'the same']) {
    it(`is rejected, also if the next key has ${kid === 'another' ? 'another' : 'the same'} kid`, async () => {
      const text = await issuer.token();
      meanwhile = () => replaceKey(kid);
      expect(await verify(text)).to.equal(undefined);
      expect(faults).to.deep.equal(['kid']);
    });
  }

  it('is revoked when it was verified before', async () => {
    const verified = await verify(await issuer.token());
    await replaceKey('the same');
    expect(verified).to.be.instanceOf(VerifiedToken).with.property('revoked', true);
  });
});
