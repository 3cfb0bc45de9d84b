/** In which order calls begin, and how many of them in one turn of the event loop. */

import { expect } from 'chai';
import { type Arrival, Turns } from '../../../interceptors/src/server/turns.js';

const MAX = 8;

describe('turns', () => {
  let begun: string[];
  /** The ports of the arrivals that have begun. */
  let ports: number[];
  let nextTurns: (() => void)[];
  let turns: Turns;

  beforeEach(() => {
    begun = [];
    ports = [];
    nextTurns = [];
    turns = new Turns(MAX, (callback) => nextTurns.push(callback));
  });

  function arrive(
    network: string,
    options: { isKnown?: boolean; port?: number; isGone?: boolean } = {},
  ): void {
    const { isKnown = false, port = 1, isGone = false } = options;
    const arrival: Arrival = {
      begin: () => {
        if (isGone) return false;
        begun.push(network);
        ports.push(port);
        return true;
      },
    };
    turns.arrive({ network, connection: `${network}:${port}`, isKnown }, arrival);
  }

  function arriveOften(count: number, ...of: Parameters<typeof arrive>): void {
    for (let index = 0; index < count; index += 1) arrive(...of);
  }

  /** Lets the event loop turn. @returns what began */
  function turn(): string[] {
    const before = begun.length;
    for (const callback of nextTurns.splice(0)) callback();
    return begun.slice(before);
  }

  it('begin at once what is below the maximum, and leave a quarter of a turn to known peers', () => {
    arriveOften(7, 'stranger');
    expect(begun).to.have.lengthOf(6);
    arriveOften(3, 'known', { isKnown: true });
    expect(begun).to.deep.equal([...new Array<string>(6).fill('stranger'), 'known', 'known']);
    expect(turns.waiting).to.equal(2);
  });

  it('begin the rest in later turns, at most the maximum in each', () => {
    arriveOften(30, 'stranger');
    expect(begun).to.have.lengthOf(6);
    expect([turn(), turn(), turn(), turn()].map(({ length }) => length)).to.deep.equal([8, 8, 8, 0]);
    expect(turns.waiting).to.equal(0);
  });

  it('begin at once in the turn after one whose places were just all taken', () => {
    arriveOften(6, 'first');
    turn();
    arrive('second');
    expect(begun).to.include('second');
  });

  it('begin at once in the turn after one in which exactly all that waited began', () => {
    arriveOften(6 + MAX, 'first');
    expect(turn()).to.have.lengthOf(MAX);
    expect(turns.waiting).to.equal(0);
    turn();
    arrive('second');
    expect(begun).to.include('second');
  });

  it('do not begin an arrival before one that waits', () => {
    arriveOften(20, 'stranger');
    turn();
    arrive('other');
    expect(begun).to.not.include('other');
    expect(turn()).to.include('other');
  });

  it('alternate between networks, and between the connections of one network', () => {
    arriveOften(6, 'first');
    arriveOften(4, 'flood', { port: 1 });
    arriveOften(4, 'flood', { port: 2 });
    arriveOften(2, 'quiet');
    expect(turn().slice(0, 4)).to.deep.equal(['flood', 'quiet', 'flood', 'quiet']);
    expect(ports.slice(6, 10)).to.deep.equal([1, 1, 2, 1]);
  });

  it('begin one arrival of an unknown network for three of known ones', () => {
    arriveOften(20, 'stranger');
    arriveOften(20, 'known', { isKnown: true });
    expect(turn().filter((network) => network === 'stranger')).to.have.lengthOf(MAX / 4);
  });

  it('give the place of a peer that has left to the next one', () => {
    arriveOften(6, 'first');
    arriveOften(10, 'gone', { isGone: true });
    arriveOften(8, 'patient');
    expect(turn()).to.deep.equal(new Array<string>(8).fill('patient'));
  });

  it('go on with the others after an arrival that throws', () => {
    const peer = { network: 'broken', connection: 'broken:1', isKnown: false };
    arriveOften(6, 'first');
    turns.arrive(peer, {
      begin: () => {
        throw new TypeError('a listener failed');
      },
    });
    arriveOften(2, 'patient');
    expect(turn).to.throw('a listener failed');
    expect(turn()).to.deep.equal(['patient', 'patient']);
  });

  it('count the arrivals of several quiet turns together, and begin all of them at once', () => {
    for (let count = 1; count <= 100; count += 1) {
      arrive('quiet');
      expect(begun).to.have.lengthOf(count);
      turn();
    }
  });
});
