/** What a handler reads about its call where no guard has decided it. */

import { Metadata } from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  bearerOf,
  certificateThumbprintOf,
  passFence,
  principalOf,
  signalOf,
  stateOf,
  stillAllowed,
} from '../../../interceptors/src/server/call-state.js';
import { rejectionOf } from '../../support/outcomes.js';

describe('a call that no guard has decided', () => {
  it('passes no fence', async () => {
    const call = { metadata: new Metadata() };
    const rejection = await rejectionOf(passFence(call, () => Promise.resolve({ rows: [] })));
    expect(rejection).to.be.instanceOf(TypeError);
  });

  it('has no state, and every function that reads it says what is missing', () => {
    const call = { metadata: new Metadata() };
    expect(stateOf(call)).to.equal(undefined);
    for (const read of [principalOf, bearerOf, stillAllowed, signalOf, certificateThumbprintOf]) {
      expect(() => read(call), read.name).to.throw(
        TypeError,
        'no guard decided this call: give its interceptor to the server',
      );
    }
  });
});
