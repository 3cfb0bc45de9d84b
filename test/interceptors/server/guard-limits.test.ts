/** The limits of a guard: their defaults, and the values that it accepts. */

import { expect } from 'chai';
import {
  DEFAULT_LIMITS,
  type GuardLimits,
  guardLimitsOf,
} from '../../../interceptors/src/server/guard-limits.js';

describe('the limits of a guard', () => {
  it('have the defaults that their documentation states', () => {
    expect(DEFAULT_LIMITS).to.include({
      requestBytes: 4_194_304,
      publicRequestBytes: 16_384,
      requestMs: 20_000,
      publicIdleMs: 60_000,
      responseMs: 60_000,
      bytesInFlight: 67_108_864,
      connectionSetupMs: 10_000,
      firstRequestMs: 60_000,
      headerBytes: 16_384,
    });
    expect(guardLimitsOf()).to.deep.equal(DEFAULT_LIMITS);
  });

  it('are those of the options; a missing or undefined one has its default', () => {
    const options: Partial<GuardLimits> = { requestBytes: 1, connections: Number.POSITIVE_INFINITY };
    expect(guardLimitsOf(Object.assign(options, { callsPerUser: undefined }))).to.deep.equal({
      ...DEFAULT_LIMITS,
      requestBytes: 1,
      connections: Number.POSITIVE_INFINITY,
    });
  });

  it('must be positive, and the error names all that are not', () => {
    expect(() => guardLimitsOf({ requestBytes: 0, callsPerUser: -1, connections: Number.NaN })).to.throw(
      TypeError,
      'expected positive limits, but requestBytes is 0, callsPerUser is -1, connections is NaN',
    );
    expect(guardLimitsOf({ requestMs: Number.MIN_VALUE })).to.have.property('requestMs', Number.MIN_VALUE);
  });
});
