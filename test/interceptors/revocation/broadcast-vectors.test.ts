/** The vectors of broadcasts, against the reader of an instance and the rows of the specification. */

import { expect } from 'chai';
import { BroadcastReader } from '../../../interceptors/src/revocation/broadcasts.js';
import {
  acceptsMessage,
  BROADCAST_MESSAGE_ROWS,
  readBroadcastVectors,
} from '../../../proofs/spec/broadcasts.js';

describe('the vectors of broadcasts', () => {
  const { keys, vectors } = readBroadcastVectors();
  const reader = new BroadcastReader();

  before(async () => {
    reader.replaceKeys(await reader.importKeys(keys));
  });

  for (const { name, message, expect: isAccepted } of vectors) {
    it(name, async () => {
      expect(acceptsMessage(message, keys), 'the rows').to.equal(isAccepted);
      expect((await reader.read(Buffer.from(message))) !== undefined, 'the instance').to.equal(isAccepted);
    });
  }

  for (const { id } of BROADCAST_MESSAGE_ROWS) {
    it(`fail without row ${id}`, () => {
      const failing = vectors.filter(
        ({ message, expect: isAccepted }) => acceptsMessage(message, keys, id) !== isAccepted,
      );
      expect(failing.map(({ row }) => row)).to.include(id);
    });
  }
});
