import { expect } from 'chai';
import { HpackDecoder } from '../../../gate/src/http2/hpack-decoder.js';
import { RequestHead, readRequestHead, readRequestTrailers } from '../../../gate/src/http2/request-head.js';
import { block } from '../support/hpack-writer.js';
import { requestFields } from '../support/raw-peer.js';

const LIMITS = { tableBytesMax: 4096, listBytesMax: 16_384, fieldsMax: 256 };
const PATH = '/test.Echo/Unary';

type Pair = readonly [name: string, value: string];

function decoded(bytes: Buffer) {
  return new HpackDecoder(LIMITS).decode(bytes, 0, bytes.length) ?? [];
}

function namesOf(bytes: Buffer | undefined): string[] {
  return bytes === undefined ? ['malformed'] : decoded(bytes).map(({ name }) => name);
}

function headOf(...more: readonly Pair[]) {
  return readRequestHead(decoded(block(...requestFields(PATH), ...more)), false);
}

function trailersOf(...fields: readonly Pair[]) {
  return readRequestTrailers(decoded(block(...fields)));
}

describe('gate: head of a request', () => {
  const own: readonly Pair[] = [
    ['x-portcullis-subject', 'mallory'],
    ['x_portcullis_subject', 'mallory'],
    ['x-portcullis_roles', 'admin'],
    ['x_portcullis-roles', 'admin'],
    ['x_portcullis_identity-bin', 'x'],
  ];
  const others: readonly Pair[] = [
    ['x-portcullish', '1'],
    ['x_other', '2'],
    ['my-x-portcullis-subject', '3'],
  ];

  it("passes no field that a server could take for the gate's, however its words are joined", () => {
    const head = headOf(...own, ...others);
    if (!(head instanceof RequestHead)) throw new Error(head);
    const names = namesOf(head.block).filter((name) => /portcullis|other/.test(name));
    expect(names).to.deep.equal(others.map(([name]) => name));
    expect(namesOf(trailersOf(...own, ...others))).to.deep.equal(others.map(([name]) => name));
  });

  it('is malformed with a value that begins or ends with a space or a tab (RFC 9113 §8.2.1)', () => {
    for (const value of [' a', 'a ', '\ta', 'a\t', ' ', '\t']) {
      expect(headOf(['x-a', value]), JSON.stringify(value)).to.equal('invalid field');
      expect(trailersOf(['x-a', value]), JSON.stringify(value)).to.equal(undefined);
    }
    for (const value of ['', 'a', 'a b\tc']) {
      expect(headOf(['x-a', value])).to.be.instanceOf(RequestHead);
      expect(trailersOf(['x-a', value])).to.not.equal(undefined);
    }
  });
});
