/** Tests of the revocation of a key, on stand-ins for its rows. */

import { expect } from 'chai';
import { revokeKey } from '../../../../services/auth/keys/revoke-key.js';
import type { KeyState } from '../../../../services/auth/records/keys.js';
import { keyRevocation } from '../../../../services/auth/revocation/log.js';
import { codeOf } from '../../../support/outcomes.js';

describe('the revocation of a key', () => {
  const revoke = async (state: KeyState | undefined) => {
    const steps: string[] = [];
    const outcome = revokeKey(
      {
        lockCreation: async () => void steps.push('lock'),
        retire: async (kid) => {
          steps.push(`retire ${kid}`);
          return state && { purpose: 'broadcast', state };
        },
        promoteNext: async (purpose) => void steps.push(`promote ${purpose}`),
      },
      'one',
    );
    return { outcome, steps };
  };

  it('lets the next key of its purpose sign if it was the signing one', async () => {
    const { outcome, steps } = await revoke('signing');
    expect(await outcome).to.deep.equal(keyRevocation('one'));
    expect(steps).to.deep.equal(['lock', 'retire one', 'promote broadcast']);
  });

  it('promotes no key for one that does not sign', async () => {
    for (const state of ['next', 'verify-only'] as const) {
      const { outcome, steps } = await revoke(state);
      expect(await outcome).to.deep.equal(keyRevocation('one'));
      expect(steps).to.deep.equal(['lock', 'retire one']);
    }
  });

  it('fails for an unknown key', async () => {
    const { outcome, steps } = await revoke(undefined);
    expect(await codeOf(outcome)).to.equal('NOT_FOUND');
    expect(steps).to.deep.equal(['lock', 'retire one']);
  });
});
