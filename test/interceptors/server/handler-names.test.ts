/** What is said of handlers whose names are wrong: the method that was meant, where one is near. */

import type { ServiceDefinition } from '@grpc/grpc-js';
import { expect } from 'chai';
import { nativeHandlersOf } from '../../../interceptors/src/server/handlers.js';

const identity = (bytes: Buffer): Buffer => bytes;

function definitionOf(names: readonly string[]): ServiceDefinition {
  return Object.fromEntries(
    names.map((name) => [
      name,
      {
        path: `/test.v1.TestService/${name}`,
        requestStream: false,
        responseStream: false,
        requestSerialize: identity,
        requestDeserialize: identity,
        responseSerialize: identity,
        responseDeserialize: identity,
      },
    ]),
  );
}

const handler = (): never => {
  throw new Error('not called');
};

/** What is said of an object as the handlers of these methods, beside the missing handlers. */
function saidOf(methods: readonly string[], given: object): string[] {
  try {
    nativeHandlersOf(definitionOf(methods), given as Parameters<typeof nativeHandlersOf>[1]);
  } catch (error) {
    const [, ...rest] = (error as Error).message.split('; ');
    return rest.map((text) => text.replace('the handler ', ''));
  }
  return ['nothing'];
}

const ofOne = (methods: readonly string[], wrong: string): string =>
  saidOf(methods, { [wrong]: handler }).join();

describe('handlers with wrong names', () => {
  for (const [wrong, methods, meant] of [
    // The nearest one, wherever it stands.
    ['getItm', ['getItem', 'listItems', 'watchStock'], 'getItem'],
    ['getItm', ['listItems', 'getItem', 'watchStock'], 'getItem'],
    ['getItm', ['listItems', 'watchStock', 'getItem'], 'getItem'],
    ['putItm', ['getItem', 'putItem'], 'putItem'],
    ['putItm', ['putItem', 'getItem'], 'putItem'],
    ['GETITEM', ['getItem'], 'getItem'],
    // A third of the letters may differ, and one in any case.
    ['releaseStock', ['reserveStock'], 'reserveStock'],
    ['ge', ['get'], 'get'],
    ['abcdefxyz', ['abcdefghi'], 'abcdefghi'],
  ] as const) {
    it(`${wrong} is told to mean ${meant}, of ${methods.join(', ')}`, () => {
      expect(ofOne(methods, wrong)).to.equal(`${wrong} belongs to no method: did you mean ${meant}?`);
    });
  }

  for (const [wrong, method] of [
    ['abcdewxyz', 'abcdefghi'],
    ['Item', 'getReservedItem'],
    ['getReservedItem', 'Item'],
    ['x', 'abc'],
    ['xxxxItem', 'item'],
    ['abcd', 'z'],
    ['', 'get'],
  ] as const) {
    it(`${wrong === '' ? 'an empty name' : wrong} is near no method ${method}`, () => {
      expect(ofOne([method], wrong)).to.equal(`${wrong} belongs to no method`);
    });
  }

  it('are named of objects without a prototype, too', () => {
    const given = Object.assign(Object.create(null), { getItm: handler, help: handler });
    expect(saidOf(['getItem'], given)).to.deep.equal([
      'getItm belongs to no method: did you mean getItem?',
      'help belongs to no method',
    ]);
  });

  it('are functions alone, of a class those near a method, and never its constructor', () => {
    class Handlers {
      readonly getItemm = 5;
      help(): void {}
      getItm(): void {}
    }
    expect(saidOf(['getItem', 'construct'], new Handlers())).to.deep.equal([
      'getItm belongs to no method: did you mean getItem?',
    ]);
    expect(saidOf(['getItem'], { getItemm: 5 })).to.deep.equal([]);
  });
});
