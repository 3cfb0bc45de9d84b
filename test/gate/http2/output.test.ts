import { Writable } from 'node:stream';
import { expect } from 'chai';
import { Output } from '../../../gate/src/http2/output.js';

describe('gate: output of a turn', () => {
  it('is blocked, and then overfull, by what it has not written yet', () => {
    const socket = new Writable({ write: (_chunk, _encoding, done) => done() });
    const output = new Output(socket as never);
    output.reserve(40_000);
    expect(output.isBlocked).to.equal(false);
    output.append(Buffer.alloc(30_000), 0, 30_000);
    expect([output.isBlocked, output.isOverfull]).to.deep.equal([true, false]);
    output.reserve(50_000);
    for (let part = 0; part < 5; part++) output.append(Buffer.alloc(30_000), 0, 30_000);
    expect(output.isOverfull).to.equal(true);
    output.flush();
    expect([output.isBlocked, output.isOverfull]).to.deep.equal([false, false]);
  });
});
