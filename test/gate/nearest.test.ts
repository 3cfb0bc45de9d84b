import { expect } from 'chai';
import { nearest } from '../../gate/src/nearest.js';

describe('nearest', () => {
  const NAMES = [
    'callsPerUser',
    'callsPerService',
    'streamsPerUser',
    'listen',
    'tls-cert',
    'scopes',
    'roles',
  ];

  it('finds a name behind letters that are wrong, missing, exchanged or in another case', () => {
    for (const [wrong, right] of [
      ['callsPerUsr', 'callsPerUser'],
      ['calls_per_user', 'callsPerUser'],
      ['streamPerUser', 'streamsPerUser'],
      ['lisetn', 'listen'],
      ['tlsCert', 'tls-cert'],
      ['scope', 'scopes'],
      ['SCOPES', 'scopes'],
      ['calls', 'callsPerUser'],
    ] as const) {
      expect(nearest(wrong, NAMES), wrong).to.equal(right);
    }
  });

  it('finds none for another word, and is not slow with a long one', () => {
    for (const wrong of ['', 'x', 'workers', 'nonsense', 'a'.repeat(1_000_000)]) {
      expect(nearest(wrong, NAMES), wrong.slice(0, 10)).to.equal(undefined);
    }
  });
});
