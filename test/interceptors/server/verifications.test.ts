/** Which verifications run, wait and are refused, and whose turn it is. */

import { expect } from 'chai';
import {
  JOINED_CALLS_MAX,
  JOINED_CALLS_PER_NETWORK_MAX,
  VERIFICATIONS_MAX,
  VERIFICATIONS_PER_NETWORK_MAX,
  Verifications,
} from '../../../interceptors/src/server/verifications.js';

describe('verifications', () => {
  let known: Set<string>;
  let verifications: Verifications;
  /** The verifications that run, in the order in which they began. */
  let running: { readonly name: string; readonly end: (fail?: boolean) => Promise<void> }[];
  let begun: string[];
  let refused: string[];

  beforeEach(() => start(4));

  function start(runningMax: number): void {
    known = new Set(['10.0.0.1', '10.0.0.2']);
    running = [];
    begun = [];
    refused = [];
    verifications = new Verifications(runningMax, (network) => known.has(network));
  }

  /** Requests a verification, which runs until the test ends it. */
  function ask(name: string, peer: string): Promise<string> {
    const result = verifications.run(
      peer,
      () => {
        begun.push(name);
        return new Promise<string>((resolve, reject) => {
          running.push({
            name,
            end: async (fail = false) => {
              running = running.filter((one) => one.name !== name);
              if (fail) reject(new Error(name));
              else resolve(name);
              await turn();
            },
          });
        });
      },
      'refused',
    );
    void result.then(
      (outcome) => {
        if (outcome === 'refused') refused.push(name);
      },
      () => undefined,
    );
    return result;
  }

  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

  /** Ends the verifications one by one until none is left. */
  async function endAll(): Promise<void> {
    for (let next = running[0]; next !== undefined; next = running[0]) await next.end();
  }

  it('run at once up to the maximum, and unknown networks up to three quarters of it', async () => {
    for (const index of [1, 2, 3, 4]) void ask(`unknown ${index}`, `192.0.2.${index}:1`);
    expect(begun).to.deep.equal(['unknown 1', 'unknown 2', 'unknown 3']);
    for (const index of [1, 2]) void ask(`known ${index}`, '10.0.0.1:1');
    expect(begun.slice(3)).to.deep.equal(['known 1']);
    await endAll();
    expect(begun).to.have.length(6);
    start(2);
    for (const index of [1, 2, 3]) void ask(`unknown ${index}`, '192.0.2.1:1');
    expect(begun).to.deep.equal(['unknown 1', 'unknown 2']);
    start(4);
    for (const index of [1, 2, 3, 4, 5]) void ask(`known ${index}`, '10.0.0.1:1');
    expect(begun).to.have.length(4);
  });

  it('return the result or the error of each, and make room after both', async () => {
    start(1);
    const [one, two, three] = ['one', 'two', 'three'].map((name) => ask(name, '10.0.0.1:1'));
    const failure = two?.then(
      () => 'no error',
      (error: Error) => `failed: ${error.message}`,
    );
    await running[0]?.end();
    expect(await one).to.equal('one');
    await running[0]?.end(true);
    expect(await failure).to.equal('failed: two');
    await running[0]?.end();
    expect(await three).to.equal('three');
    // The same for unknown networks.
    const four = ask('four', '192.0.2.1:1').catch(() => 'failed');
    await running[0]?.end(true);
    expect(await four).to.equal('failed');
    void ask('five', '192.0.2.1:1');
    expect(begun.at(-1)).to.equal('five');
  });

  it('take turns between networks, and within a network between connections', async () => {
    start(1);
    void ask('first', '10.0.0.1:1');
    for (const index of [1, 2, 3]) void ask(`a${index}`, '10.0.0.1:1');
    for (const index of [1, 2]) void ask(`b${index}`, '10.0.0.1:2');
    for (const index of [1, 2]) void ask(`c${index}`, '10.0.0.2:1');
    await endAll();
    expect(begun).to.deep.equal(['first', 'a1', 'c1', 'b1', 'c2', 'a2', 'b2', 'a3']);
  });

  it('start one of an unknown network for three of known ones while both wait', async () => {
    start(4);
    for (const index of [1, 2, 3, 4]) void ask(`first ${index}`, '10.0.0.1:1');
    for (let index = 0; index < 9; index += 1) {
      void ask(`known ${index}`, '10.0.0.1:1');
      void ask(`unknown ${index}`, '192.0.2.1:1');
    }
    for (let count = 0; count < 8; count += 1) await running[0]?.end();
    const classes = begun.slice(4).map((name) => name.split(' ')[0]);
    const four = ['known', 'known', 'known', 'unknown'];
    expect(classes).to.deep.equal([...four, ...four]);
    await endAll();
    expect(begun).to.have.length(22);
  });

  it('keep the last quarter of the places for known networks, also when verifications end', async () => {
    start(4);
    for (const index of [1, 2, 3]) void ask(`unknown ${index}`, '192.0.2.1:1');
    void ask('known 1', '10.0.0.1:1');
    void ask('unknown 4', '192.0.2.1:1');
    void ask('known 2', '10.0.0.1:1');
    const end = (name: string) => running.find((one) => one.name === name)?.end();
    await end('known 1');
    expect(begun.slice(4)).to.deep.equal(['known 2']);
    await end('known 2');
    expect(begun.slice(4)).to.deep.equal(['known 2']);
    await end('unknown 2');
    expect(begun.slice(4)).to.deep.equal(['known 2', 'unknown 4']);
  });

  it('let an unknown network use the place that no known one needs, and the other way round', async () => {
    start(1);
    void ask('first', '192.0.2.1:1');
    for (const index of [1, 2]) void ask(`unknown ${index}`, '192.0.2.1:1');
    await endAll();
    for (const index of [1, 2, 3, 4, 5, 6]) void ask(`known ${index}`, '10.0.0.1:1');
    await endAll();
    expect(begun).to.have.length(9);
    expect(refused).to.deep.equal([]);
  });

  it('limit the calls that join them, for each network and for each class, until they leave', () => {
    const join = (peer: string) => verifications.join(peer);
    const leaves = Array.from({ length: JOINED_CALLS_PER_NETWORK_MAX }, () => join('192.0.2.1:1'));
    expect(leaves.every((leave) => leave !== undefined)).to.equal(true);
    expect(join('192.0.2.1:2')).to.equal(undefined);
    for (let count = JOINED_CALLS_PER_NETWORK_MAX; count < JOINED_CALLS_MAX; count += 1) {
      expect(join(`198.51.${count >> 8}.${count & 255}:1`)).to.not.equal(undefined);
    }
    expect(join('203.0.113.1:1')).to.equal(undefined);
    // Known networks are a class of their own.
    expect(join('10.0.0.1:1')).to.not.equal(undefined);
    leaves[0]?.();
    expect(join('192.0.2.1:1')).to.not.equal(undefined);
    expect(join('203.0.113.1:1')).to.equal(undefined);
    for (const leave of leaves.slice(1)) leave?.();
    for (let count = 1; count < JOINED_CALLS_PER_NETWORK_MAX; count += 1) {
      expect(join('192.0.2.1:1')).to.not.equal(undefined);
    }
    expect(join('192.0.2.1:1')).to.equal(undefined);
  });

  it('refuse the newest of the busiest connection when one network waits with too many', async () => {
    start(1);
    void ask('first', '10.0.0.1:1');
    const half = VERIFICATIONS_PER_NETWORK_MAX / 2;
    for (let index = 0; index < half; index += 1) void ask(`a${index}`, '10.0.0.1:1');
    for (let index = 0; index < half; index += 1) void ask(`b${index}`, '10.0.0.1:2');
    await turn();
    expect(refused).to.deep.equal([]);
    // Both connections have as many: the later one gives way, then its newest, then the other's.
    void ask('c', '10.0.0.1:3');
    await turn();
    expect(refused).to.deep.equal([`b${half - 1}`]);
    void ask('d', '10.0.0.1:3');
    await turn();
    expect(refused).to.deep.equal([`b${half - 1}`, `a${half - 1}`]);
    void ask('e', '10.0.0.1:1');
    await turn();
    expect(refused.at(-1)).to.equal('e');
    // Another network is not affected.
    void ask('f', '10.0.0.2:1');
    await turn();
    expect(refused).to.have.length(3);
    await endAll();
    expect(begun).to.have.length(1 + VERIFICATIONS_PER_NETWORK_MAX + 1);
  });

  it('refuse the newest of the busiest network when all networks of a class wait with too many', async () => {
    start(1);
    void ask('first', '192.0.2.1:1');
    for (let index = 0; index < VERIFICATIONS_MAX - 1; index += 1) {
      void ask(`other ${index}`, `198.51.${index >> 8}.${index & 255}:1`);
    }
    void ask('pair 1', '198.51.0.7:1');
    await turn();
    expect(refused).to.deep.equal([]);
    void ask('single', '203.0.113.1:1');
    await turn();
    expect(refused).to.deep.equal(['pair 1']);
    // Known networks have a class of their own.
    void ask('known', '10.0.0.1:1');
    await turn();
    expect(refused).to.deep.equal(['pair 1']);
    // Where all wait with one, the newest leaves.
    void ask('another', '203.0.113.2:1');
    await turn();
    expect(refused).to.deep.equal(['pair 1', 'another']);
    await endAll();
    expect(begun).to.have.length(1 + VERIFICATIONS_MAX + 1);
  });
});
