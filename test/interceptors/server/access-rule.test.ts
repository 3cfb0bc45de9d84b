/** Access rules as the schema declares them, and whether a caller meets them. */

import type { ServiceDefinition } from '@grpc/grpc-js';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  type AccessRule,
  describeViolation,
  PUBLIC_RULE,
  violationOf,
  withRequestBytes,
} from '../../../interceptors/src/server/access-rule.js';
import { DEFAULT_LIMITS } from '../../../interceptors/src/server/guard-limits.js';
import { readRules } from '../../../interceptors/src/server/rule-sources.js';
import { Caller, OnStale, type Rule } from '../../../proto/gen/portcullis/access/v1/access.js';
import {
  protoMetadata,
  RevocationServiceService,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { claims, NOW_SECONDS } from '../tokens-support.js';

const rule = (over: Partial<Rule> = {}): Rule => ({
  public: false,
  scopes: [],
  roles: [],
  caller: Caller.CALLER_UNSPECIFIED,
  maxAuthAge: undefined,
  onStale: OnStale.ON_STALE_UNSPECIFIED,
  maxRequestBytes: 0,
  ...over,
});

const accessRule = (over: Partial<AccessRule> = {}): AccessRule => ({
  isPublic: false,
  scopes: [],
  roles: [],
  caller: 'ANY',
  maxAuthAgeSeconds: undefined,
  allowStale: false,
  requestBytesMax: Number.POSITIVE_INFINITY,
  ...over,
});

/** A service definition with these methods; only their paths matter. */
function definition(...methods: string[]): ServiceDefinition {
  const method = {
    requestStream: false,
    responseStream: false,
    requestSerialize: () => Buffer.alloc(0),
    requestDeserialize: () => ({}),
    responseSerialize: () => Buffer.alloc(0),
    responseDeserialize: () => ({}),
  };
  return Object.fromEntries(methods.map((name) => [name, { ...method, path: `/a.v1.Shop/${name}` }]));
}

const schema = (methods: Record<string, Record<string, unknown>>) => ({
  options: { services: { Shop: { methods } } },
});

/** The rule that is read from this declaration. */
function readOne(declared: Rule): AccessRule | undefined {
  return readRules(definition('Buy'), schema({ Buy: { rule: declared } })).get('/a.v1.Shop/Buy');
}

describe('the access rules of a service', () => {
  it('are read for every method, by its full path', () => {
    const rules = readRules(RevocationServiceService, protoMetadata);
    expect([...rules.keys()]).to.have.members(
      Object.values(RevocationServiceService).map(({ path }) => path),
    );
    expect(rules.get('/portcullis.revocation.v1.RevocationService/Sync')).to.deep.equal(
      accessRule({ scopes: ['auth.sync'], caller: 'SERVICE' }),
    );
  });

  it('fail for methods without a rule, naming all of them', () => {
    const partly = schema({ Buy: { rule: rule() }, Sell: {}, Steal: { other: 1 } });
    expect(() => readRules(definition('Buy', 'Sell', 'Steal', 'Browse'), partly)).to.throw(
      TypeError,
      '/a.v1.Shop/Sell declares no access rule; /a.v1.Shop/Steal declares no access rule; /a.v1.Shop/Browse declares no access rule',
    );
  });

  it('fail for a method whose options are missing, as those of no other method are', () => {
    const methods: Record<string, Record<string, unknown>> = { Buy: { rule: rule() } };
    Object.assign(methods, { Sell: undefined });
    expect(() => readRules(definition('Buy', 'Sell'), schema(methods))).to.throw(
      TypeError,
      '/a.v1.Shop/Sell declares no access rule',
    );
  });

  it('fail when the schema has no options at all', () => {
    for (const empty of [
      {},
      { options: undefined },
      { options: { services: undefined } },
      { options: { services: {} } },
    ]) {
      expect(() => readRules(definition('Buy'), empty)).to.throw(TypeError, 'declares no access rule');
    }
  });

  it('are not read from inherited properties', () => {
    expect(() => readRules(definition('constructor', 'toString'), schema({}))).to.throw(TypeError);
    const inherited = schema(Object.create({ Buy: { rule: rule({ public: true }) } }));
    expect(() => readRules(definition('Buy'), inherited)).to.throw(TypeError);
  });

  it('are not read from a service with another name', () => {
    const other = { options: { services: { Store: { methods: { Buy: { rule: rule() } } } } } };
    expect(() => readRules(definition('Buy'), other)).to.throw(TypeError);
  });

  it('admit any authenticated caller when empty, and reject calls on a stale list', () => {
    expect(readOne(rule())).to.deep.equal(accessRule());
  });

  it('are public when they say so and contain nothing else', () => {
    expect(PUBLIC_RULE).to.deep.equal(accessRule({ isPublic: true, allowStale: true }));
    expect(readOne(rule({ public: true }))).to.deep.equal(PUBLIC_RULE);
    const withSize = readOne(rule({ public: true, maxRequestBytes: 100 }));
    expect(withSize).to.deep.equal({ ...PUBLIC_RULE, requestBytesMax: 100 });
  });

  it('limit request messages to their own size, at most to that of the guard', () => {
    const limits = { ...DEFAULT_LIMITS, requestBytes: 1000, publicRequestBytes: 10 };
    const bytesOf = (over: Partial<Rule>) => {
      const declared = readOne(rule(over));
      return declared === undefined ? undefined : withRequestBytes(declared, limits).requestBytesMax;
    };
    expect(bytesOf({})).to.equal(1000);
    expect(bytesOf({ public: true })).to.equal(10);
    expect(bytesOf({ public: true, maxRequestBytes: 500 })).to.equal(500);
    expect(bytesOf({ maxRequestBytes: 5000 })).to.equal(1000);
  });

  const contradictions: Record<string, Partial<Rule>> = {
    scopes: { scopes: ['a.read'] },
    'an empty scope': { scopes: [''] },
    roles: { roles: ['admin'] },
    'a kind of caller': { caller: Caller.CALLER_USER },
    'an age of the login': { maxAuthAge: { seconds: 60n, nanos: 0 } },
    'an age of the login of nothing': { maxAuthAge: { seconds: 0n, nanos: 0 } },
    'on_stale ALLOW': { onStale: OnStale.ON_STALE_ALLOW },
    'on_stale REFUSE': { onStale: OnStale.ON_STALE_REFUSE },
  };
  for (const [what, over] of Object.entries(contradictions)) {
    it(`are rejected with public and ${what}`, () => {
      expect(() => readOne(rule({ public: true, ...over }))).to.throw(
        TypeError,
        '/a.v1.Shop/Buy is public and has other conditions',
      );
      expect(readOne(rule(over))).to.have.property('isPublic', false);
    });
  }

  it('are rejected with an unknown caller kind or on_stale', () => {
    for (const unknown of [3, 99, -1]) {
      expect(() => readOne(rule({ caller: unknown as Caller })), `caller ${unknown}`).to.throw(
        TypeError,
        'has a rule of a newer version',
      );
      expect(() => readOne(rule({ onStale: unknown as OnStale })), `on_stale ${unknown}`).to.throw(
        TypeError,
        'has a rule of a newer version',
      );
      expect(() => readOne(rule({ public: true, caller: unknown as Caller }))).to.throw(TypeError);
    }
  });

  it('are read value by value', () => {
    expect(readOne(rule({ caller: Caller.CALLER_USER }))).to.have.property('caller', 'USER');
    expect(readOne(rule({ caller: Caller.CALLER_SERVICE }))).to.have.property('caller', 'SERVICE');
    expect(readOne(rule({ onStale: OnStale.ON_STALE_REFUSE }))).to.have.property('allowStale', false);
    expect(readOne(rule({ onStale: OnStale.ON_STALE_ALLOW }))).to.have.property('allowStale', true);
    expect(readOne(rule({ maxAuthAge: { seconds: 90n, nanos: 500_000_000 } }))).to.have.property(
      'maxAuthAgeSeconds',
      90.5,
    );
  });
});

describe('a caller', () => {
  const violation = (declared: Partial<AccessRule>, caller: Parameters<typeof claims>[0] = {}) =>
    violationOf(accessRule(declared), claims(caller), NOW_SECONDS);

  it('needs every scope of the rule', () => {
    const names = ['a', 'b', 'c', 'd'];
    fc.assert(
      fc.property(fc.subarray(names), fc.subarray(names), (needed, held) => {
        const isMet = needed.every((scope) => held.includes(scope));
        expect(violation({ scopes: needed }, { scopes: new Set(held) })).to.equal(
          isMet ? undefined : 'SCOPE_MISSING',
        );
      }),
    );
  });

  it('needs any one of the roles of the rule', () => {
    const names = ['a', 'b', 'c', 'd'];
    fc.assert(
      fc.property(fc.subarray(names), fc.subarray(names), (needed, held) => {
        const isMet = needed.length === 0 || needed.some((role) => held.includes(role));
        expect(violation({ roles: needed }, { roles: new Set(held) })).to.equal(
          isMet ? undefined : 'ROLE_MISSING',
        );
      }),
    );
  });

  it('does not meet a rule with a similar scope or role', () => {
    for (const near of [
      'inventory.rea',
      'inventory.reads',
      'Inventory.read',
      ' inventory.read',
      'inventory',
      'inventory.*',
      '',
    ]) {
      expect(violation({ scopes: ['inventory.read'] }, { scopes: new Set([near]) }), near).to.equal(
        'SCOPE_MISSING',
      );
      expect(violation({ roles: ['inventory.read'] }, { roles: new Set([near]) }), near).to.equal(
        'ROLE_MISSING',
      );
    }
  });

  it('does not meet a rule on scopes with roles, or a rule on roles with scopes', () => {
    expect(violation({ scopes: ['admin'] }, { roles: new Set(['admin']) })).to.equal('SCOPE_MISSING');
    expect(violation({ roles: ['admin'] }, { scopes: new Set(['admin']) })).to.equal('ROLE_MISSING');
  });

  it('must be of the kind that the rule requires', () => {
    const matrix = [
      ['ANY', 'USER', undefined],
      ['ANY', 'SERVICE', undefined],
      ['USER', 'USER', undefined],
      ['USER', 'SERVICE', 'CALLER_KIND'],
      ['SERVICE', 'SERVICE', undefined],
      ['SERVICE', 'USER', 'CALLER_KIND'],
    ] as const;
    for (const [caller, kind, expected] of matrix) {
      expect(violation({ caller }, { kind }), `${caller} ${kind}`).to.equal(expected);
    }
  });

  it('is the user when a service acts for it', () => {
    expect(
      violation({ caller: 'SERVICE' }, { kind: 'USER', clientId: 'payment', actors: ['payment'] }),
    ).to.equal('CALLER_KIND');
  });

  it('must have logged in within the time of the rule', () => {
    const at = (authTimeSeconds: number | undefined) =>
      violation({ maxAuthAgeSeconds: 300 }, { authTimeSeconds });
    expect(at(NOW_SECONDS)).to.equal(undefined);
    expect(at(NOW_SECONDS - 300)).to.equal(undefined);
    expect(at(NOW_SECONDS - 300.5)).to.equal('LOGIN_TOO_OLD');
    expect(at(undefined)).to.equal('LOGIN_TOO_OLD');
    expect(violation({ maxAuthAgeSeconds: 0 }, { authTimeSeconds: NOW_SECONDS - 1 })).to.equal(
      'LOGIN_TOO_OLD',
    );
  });

  it('receives the first condition that it does not meet', () => {
    const declared = accessRule({
      scopes: ['a', 'b'],
      roles: ['c', 'd'],
      caller: 'SERVICE',
      maxAuthAgeSeconds: 60,
    });
    expect(violation(declared)).to.equal('SCOPE_MISSING');
    expect(describeViolation('SCOPE_MISSING', declared)).to.include({
      code: 'SCOPE_MISSING',
      message: 'this method requires scope a and b',
    });
    expect(describeViolation('ROLE_MISSING', declared)).to.include({
      code: 'ROLE_MISSING',
      message: 'this method requires role c or d; a token with narrowed scopes may lack a role of its user',
    });
    expect(describeViolation('CALLER_KIND', declared)).to.include({
      code: 'CALLER_KIND',
      message: 'this method is for services',
    });
    expect(describeViolation('CALLER_KIND', accessRule({ caller: 'USER' }))).to.include({
      message: 'this method is for users',
    });
    expect(describeViolation('LOGIN_TOO_OLD', declared)).to.include({
      code: 'LOGIN_TOO_OLD',
      message: 'this method requires a login within the last 60 seconds',
    });
  });
});
