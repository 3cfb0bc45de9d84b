/** The explorer of the fence: it visits whole worlds, and finds each missing guard. */

import { expect } from 'chai';
import { FENCE_GUARDS, FENCE_WORLDS } from '../../../proofs/explore/fence/guards.js';
import { searchFence } from '../../../proofs/explore/fence/search.js';

// A search takes some seconds, and the machine may be busy.
const PATIENCE_MS = 180_000;

describe('the explorer of the fence', function () {
  this.timeout(PATIENCE_MS);

  for (const { name, states } of FENCE_WORLDS) {
    it(`finds no commit after Revoke has returned FENCED, in the world "${name}"`, async () => {
      const found = await searchFence(name);
      expect(found.violation).to.equal('');
      expect(found.states).to.equal(states);
    });
  }

  for (const { name, world, about, redundant } of FENCE_GUARDS) {
    it(`${redundant === undefined ? 'finds a late commit' : 'finds none'} without the guard ${name}: ${about}`, async () => {
      const { story, violation } = await searchFence(world, name);
      if (redundant === undefined) expect(violation).to.match(/committed after Revoke has returned FENCED/);
      else expect(story).to.equal(undefined);
    });
  }
});
