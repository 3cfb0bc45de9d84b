/** Tests of the places for refreshes that are in progress. */

import { expect } from 'chai';
import {
  createRefreshPlaces,
  TOO_MANY_REFRESHES,
} from '../../../../services/auth/sessions/refresh-places.js';

describe('the places of refreshes', () => {
  it('are as many for each token as configured, and free again when a refresh has ended', () => {
    const places = createRefreshPlaces(2);
    const leave = [places.enter('a'), places.enter('a')];
    expect(leave).to.not.include(undefined);
    expect(places.enter('a')).to.equal(undefined);
    expect(places.enter('b')).to.not.equal(undefined);
    leave[0]?.();
    // One of two is left, so exactly one is free.
    const again = places.enter('a');
    expect(again).to.not.equal(undefined);
    expect(places.enter('a')).to.equal(undefined);
    leave[1]?.();
    again?.();
    expect([places.enter('a'), places.enter('a')]).to.not.include(undefined);
    expect(places.enter('a')).to.equal(undefined);
  });

  it('hold nothing of a token without a refresh in progress', () => {
    const inProgress = new Map<string, number>();
    const places = createRefreshPlaces(2, inProgress);
    const leave = [places.enter('a'), places.enter('a')];
    expect([...inProgress]).to.deep.equal([['a', 2]]);
    for (const one of leave) one?.();
    expect([...inProgress]).to.deep.equal([]);
  });

  it('are refused with the time after which to retry', () => {
    expect(TOO_MANY_REFRESHES).to.include({ code: 'RATE_LIMITED', retryAfterMs: 500 });
  });
});
