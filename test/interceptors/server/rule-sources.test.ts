/** Access rules from a table in code and from descriptor sets. */

import { readFileSync } from 'node:fs';
import { codeRules, descriptorRules } from '@portcullis/guard';
import { serviceRules } from '@portcullis/guard/engine';
import { expect } from 'chai';
import { methodsOfDescriptorSet } from '../../../interceptors/src/server/descriptor-rules.js';
import { readRules } from '../../../interceptors/src/server/rule-sources.js';
import { MalformedMessageError } from '../../../interceptors/src/wire/protobuf-fields.js';
import {
  AuthServiceService,
  protoMetadata as authMetadata,
} from '../../../proto/gen/auth/v1/auth_service.js';
import {
  UserServiceService,
  protoMetadata as userMetadata,
} from '../../../proto/gen/auth/v1/user_service.js';
import {
  InventoryServiceService,
  protoMetadata as inventoryMetadata,
} from '../../../proto/gen/inventory/v1/inventory_service.js';
import { Rule } from '../../../proto/gen/portcullis/access/v1/access.js';
import { ECHO } from '../../support/echo.js';

/** The descriptor set of all services of this project. */
const IMAGE = new URL('../../../proto/gen/image.binpb', import.meta.url);

/** Protocol Buffers, Encoding: tags of the fields of a descriptor set that the tests write by hand. */
const field = (number: number, content: Uint8Array): Buffer =>
  Buffer.concat([varint((number << 3) | 2), varint(content.length), content]);

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

/** A descriptor set with the method `/a.v1.Shop/Buy` and these bytes as its options. */
function setWith(options: Uint8Array): Buffer {
  const method = Buffer.concat([field(1, Buffer.from('Buy')), field(4, options)]);
  const service = Buffer.concat([field(1, Buffer.from('Shop')), field(2, method)]);
  const file = Buffer.concat([field(2, Buffer.from('a.v1')), field(6, service)]);
  return field(1, file);
}

/** The option `portcullis.access.v1.rule` with these bytes. */
const ruleOption = (bytes: Uint8Array): Buffer => field(52473, bytes);

const BUY = '/a.v1.Shop/Buy';

describe('rules of a descriptor set', () => {
  it('equal those of the generated code, for every method', () => {
    const rules = descriptorRules(readFileSync(IMAGE));
    for (const [definition, schema] of [
      [AuthServiceService, authMetadata],
      [UserServiceService, userMetadata],
      [InventoryServiceService, inventoryMetadata],
    ] as const) {
      const generated = readRules(definition, schema);
      expect(generated.size).to.be.greaterThan(3);
      expect(readRules(definition, rules)).to.deep.equal(generated);
    }
  });

  it('are merged where the option occurs twice', () => {
    const parts = ['a.read', 'a.write'].map((scope) =>
      ruleOption(Rule.encode(Rule.fromPartial({ scopes: [scope] })).finish()),
    );
    const rules = descriptorRules(setWith(Buffer.concat(parts))).read();
    expect(rules.get(BUY)?.scopes).to.deep.equal(['a.read', 'a.write']);
  });

  it('are refused when they have a condition of a newer version', () => {
    const newer = Buffer.concat([Rule.encode(Rule.fromPartial({})).finish(), field(8, Buffer.from('x'))]);
    expect(() => descriptorRules(setWith(ruleOption(newer))).read()).to.throw(
      TypeError,
      `${BUY} has a rule of a newer version: field 8 is not known`,
    );
  });

  it('are refused when they cannot be read', () => {
    expect(() => descriptorRules(setWith(ruleOption(Buffer.from([0x0a, 0xff])))).read()).to.throw(
      TypeError,
      `${BUY} declares an access rule that cannot be read`,
    );
    const number = Buffer.concat([varint((52473 << 3) | 0), varint(1)]);
    expect(() => descriptorRules(setWith(number))).to.throw(TypeError, 'FileDescriptorSet');
  });

  it('are refused when a condition has another type, which would leave it out', () => {
    // Field 2, the scopes, as a number.
    expect(() => descriptorRules(setWith(ruleOption(Buffer.from([0x10, 0x01])))).read()).to.throw(
      TypeError,
      `${BUY} declares an access rule that cannot be read`,
    );
  });

  it('are refused when the set has a method twice, whatever the rules', () => {
    const open = setWith(ruleOption(Rule.encode(Rule.fromPartial({ public: true })).finish()));
    const closed = setWith(ruleOption(Rule.encode(Rule.fromPartial({ scopes: ['a.read'] })).finish()));
    for (const set of [
      [closed, open],
      [open, closed],
      [closed, closed],
      [closed, setWith(Buffer.alloc(0))],
    ]) {
      expect(() => descriptorRules(Buffer.concat(set)).read()).to.throw(
        TypeError,
        `${BUY} is declared twice`,
      );
      expect(methodsOfDescriptorSet(Buffer.concat(set)).at(-1)).to.deep.equal({
        path: BUY,
        rule: undefined,
        fault: 'is declared twice',
      });
    }
  });

  it('are missing, or the bytes are no descriptor set', () => {
    expect(() => descriptorRules(setWith(Buffer.alloc(0)))).to.throw(TypeError, 'declare it in the .proto');
    expect(() => descriptorRules(Buffer.from('no descriptor set'))).to.throw(TypeError, 'FileDescriptorSet');
  });

  it('name the methods that have none, and what to do', () => {
    const rules = descriptorRules(setWith(ruleOption(Buffer.alloc(0))));
    expect(() => rules.read([BUY, '/a.v1.Shop/Sell'])).to.throw(
      TypeError,
      /^\/a\.v1\.Shop\/Sell declares no access rule\. Declare option .* compile the descriptor set again$/,
    );
  });
});

/** A method in a descriptor set that a test writes: `/a.v1.Shop/Buy`, its rule, and whether it has streams. */
interface Described {
  readonly path: string;
  readonly rule?: Rule;
  readonly streams?: readonly ('request' | 'response')[];
}

/** A descriptor set with a file for each method. */
function setOf(...methods: readonly Described[]): Buffer {
  const files = methods.map(({ path, rule, streams = [] }) => {
    const [service = '', name = ''] = path.slice(1).split('/');
    const dot = service.lastIndexOf('.');
    const option = rule === undefined ? Buffer.alloc(0) : ruleOption(Rule.encode(rule).finish());
    const flag = (number: number, isSet: boolean): Buffer =>
      isSet ? Buffer.from([number << 3, 1]) : Buffer.alloc(0);
    const method = Buffer.concat([
      field(1, Buffer.from(name)),
      field(4, option),
      flag(5, streams.includes('request')),
      flag(6, streams.includes('response')),
    ]);
    const described = Buffer.concat([field(1, Buffer.from(service.slice(dot + 1))), field(2, method)]);
    const packageName = service.slice(0, Math.max(dot, 0));
    return field(1, Buffer.concat([field(2, Buffer.from(packageName)), field(6, described)]));
  });
  return Buffer.concat(files);
}

const READ = Rule.fromPartial({ scopes: ['a.read'] });
const OPEN = Rule.fromPartial({ public: true });
const SELL = '/a.v1.Shop/Sell';

/** Services that a set has beside those of its owner, as a compiler adds them. */
const OTHERS: readonly Described[] = [
  { path: '/google.longrunning.Operations/Get' },
  { path: '/grpc.health.v1.Health/Check' },
  { path: '/grpc.health.v1.Health/Watch', streams: ['response'] },
  { path: '/portcullis.revocation.v1.RevocationService/Sync' },
  { path: '/grpc.Service/Get' },
];

describe('the methods of a descriptor set', () => {
  it('have their rule, or what is wrong with it, without those of others', () => {
    const faulty = setWith(ruleOption(Buffer.from([0x10, 0x01])));
    const set = setOf({ path: SELL, rule: READ }, { path: '/b.v1.Shop/List' }, ...OTHERS);
    expect(methodsOfDescriptorSet(Buffer.concat([set, faulty]))).to.deep.equal([
      {
        path: SELL,
        rule: {
          isPublic: false,
          scopes: ['a.read'],
          roles: [],
          caller: 'ANY',
          maxAuthAgeSeconds: undefined,
          allowStale: false,
          requestBytesMax: Number.POSITIVE_INFINITY,
        },
        fault: undefined,
      },
      { path: '/b.v1.Shop/List', rule: undefined, fault: undefined },
      { path: BUY, rule: undefined, fault: 'declares an access rule that cannot be read' },
    ]);
    const contradiction = Rule.fromPartial({ public: true, scopes: ['a.read'] });
    const [method] = methodsOfDescriptorSet(setOf({ path: BUY, rule: contradiction }));
    expect(method?.rule).to.equal(undefined);
    expect(method?.fault).to.be.a('string');
  });

  it('are those of packages whose names only resemble those of others', () => {
    const paths = ['/a.google.S/M', '/googles.v1.S/M', '/my.grpc.S/M', '/portcullis_demo.v1.S/M', '/S/M'];
    const methods = methodsOfDescriptorSet(setOf(...paths.map((path) => ({ path })), { path: '/grpc.S/M' }));
    expect(methods.map(({ path }) => path)).to.deep.equal(paths);
  });

  it('have the rules of the generated code', () => {
    const rules = new Map(methodsOfDescriptorSet(readFileSync(IMAGE)).map(({ path, rule }) => [path, rule]));
    for (const [path, rule] of readRules(AuthServiceService, authMetadata)) {
      expect(rules.get(path), path).to.deep.equal(rule);
    }
  });

  it('may have every condition of this version', () => {
    const rule = Rule.fromPartial({ scopes: ['a.read'], maxRequestBytes: 10 });
    const [method] = methodsOfDescriptorSet(setOf({ path: BUY, rule }));
    expect(method?.rule).to.include({ requestBytesMax: 10 });
  });

  it('are those of the owner alone, even where those of others have rules', () => {
    const set = setOf({ path: BUY, rule: READ }, { path: '/grpc.health.v1.Health/Check', rule: OPEN });
    for (const rules of [descriptorRules(set), serviceRules(set)]) {
      expect([...rules.paths]).to.deep.equal([BUY]);
    }
  });

  it('say what the bytes are when they are no descriptor set', () => {
    for (const read of [descriptorRules, serviceRules]) {
      try {
        read(Buffer.from('no descriptor set'));
        expect.fail('it was read');
      } catch (error) {
        expect(error).to.be.instanceOf(TypeError);
        expect((error as Error).message).to.equal('expected a google.protobuf.FileDescriptorSet');
        expect((error as Error).cause).to.be.instanceOf(MalformedMessageError);
      }
    }
  });

  it('have their kinds, those of others as well', () => {
    const set = setOf(
      { path: BUY, rule: READ },
      { path: SELL, rule: OPEN, streams: ['request', 'response'] },
      ...OTHERS,
    );
    for (const rules of [descriptorRules(set), serviceRules(set)]) {
      expect([...rules.paths]).to.deep.equal([BUY, SELL]);
      expect(rules.kinds.get(BUY)).to.deep.equal({ requestStream: false, responseStream: false });
      expect(rules.kinds.get(SELL)).to.deep.equal({ requestStream: true, responseStream: true });
      expect(rules.kinds.get('/grpc.health.v1.Health/Watch')).to.deep.equal({
        requestStream: false,
        responseStream: true,
      });
    }
  });
});

describe('rules of whole services', () => {
  const faultOf = (work: () => unknown): string => {
    try {
      work();
    } catch (error) {
      if (error instanceof TypeError) return error.message;
      throw error;
    }
    return '';
  };
  const set = setOf(
    { path: BUY, rule: READ },
    { path: SELL, rule: OPEN },
    { path: '/b.v1.Bank/Pay' },
    ...OTHERS,
  );

  it('are demanded of every method of the services, and of no others', () => {
    expect(faultOf(() => serviceRules(set))).to.match(
      /^\/b\.v1\.Bank\/Pay declares no access rule\. Declare option .* compile the descriptor set again$/,
    );
    const shop = serviceRules(set, { services: ['a.v1.Shop'] });
    expect([...shop.paths]).to.deep.equal([BUY, SELL]);
    expect(shop.read().get(BUY)).to.include({ isPublic: false });
    const named = faultOf(() => serviceRules(set, { services: ['grpc.health.v1.Health'] }));
    expect(named).to.match(/^\/grpc\.health\.v1\.Health\/Check declares no access rule; .*\/Watch declares/);
  });

  it('name every service that the set does not have', () => {
    const services = ['a.v1.Shop', 'a.v1.Shp', 'b.v1.Bank', 'None'];
    expect(faultOf(() => serviceRules(set, { services }))).to.equal(
      'the descriptor set has no service a.v1.Shp, None',
    );
    expect(faultOf(() => serviceRules(set, { services: [] }))).to.equal(
      'the descriptor set has no service: name one, or compile it in',
    );
    expect(faultOf(() => serviceRules(setOf(...OTHERS)))).to.equal(
      'the descriptor set has no service: name one, or compile it in',
    );
  });

  it('open the methods that are named as public, also where the set does not have them', () => {
    const health = '/grpc.health.v1.Health/Check';
    const strange = '/x.v1.Other/Get';
    const rules = serviceRules(set, {
      services: ['a.v1.Shop', 'b.v1.Bank'],
      publicMethods: [SELL, '/b.v1.Bank/Pay', health, strange],
    }).read();
    expect([...rules.keys()]).to.deep.equal([BUY, SELL, '/b.v1.Bank/Pay', health, strange]);
    expect([...rules.values()].map(({ isPublic }) => isPublic)).to.deep.equal([
      false,
      true,
      true,
      true,
      true,
    ]);
  });

  it('open no method whose schema demands a caller, and none that its service does not have', () => {
    const services = ['a.v1.Shop'];
    expect(faultOf(() => serviceRules(set, { services, publicMethods: [BUY] }))).to.equal(
      `${BUY} is named as public, and declares another rule in its schema: name it no longer, or change the schema`,
    );
    const faulty = setWith(ruleOption(Buffer.from([0x10, 0x01])));
    expect(faultOf(() => serviceRules(faulty, { publicMethods: [BUY] }))).to.include('is named as public');
    expect(faultOf(() => serviceRules(set, { services, publicMethods: ['/a.v1.Shop/By'] }))).to.equal(
      '/a.v1.Shop/By is named as public, and its service has no such method',
    );
    expect(faultOf(() => serviceRules(set, { services, publicMethods: ['/b.v1.Bank/Pa'] }))).to.equal(
      '/b.v1.Bank/Pa is named as public, and its service has no such method',
    );
  });

  it('are refused when the set has a method twice', () => {
    const twice = setOf({ path: BUY, rule: OPEN }, { path: BUY, rule: OPEN });
    expect(faultOf(() => serviceRules(twice))).to.equal(`${BUY} is declared twice`);
  });
});

describe('rules of generated code', () => {
  const { Unary } = ECHO as Required<typeof ECHO>;
  const definition = { Unary } as { Unary: NonNullable<typeof Unary> };
  const schemaWith = (members: object) => ({
    options: {
      services: {
        EchoService: {
          methods: { Unary: { rule: { ...Rule.fromPartial({ scopes: ['a.read'] }), ...members } } },
        },
      },
    },
  });

  it('are refused when they have a condition of a newer version', () => {
    for (const members of [
      { networks: ['192.0.2.0/24'] },
      { mfa: true },
      { level: 2 },
      { weight: 3n },
      { purpose: 'billing' },
      { window: { seconds: 1n, nanos: 0 } },
      // What ts-proto keeps of fields that it does not know, with its option unknownFields.
      { _unknownFields: { 66: [new Uint8Array(1)] } },
    ]) {
      expect(() => readRules(definition, schemaWith(members))).to.throw(
        TypeError,
        `Unary has a rule of a newer version: its ${Object.keys(members)[0]} is not known`,
      );
    }
  });

  it('are accepted when a newer schema has conditions that they do not use', () => {
    const unused = {
      networks: [],
      mfa: false,
      level: 0,
      weight: 0n,
      purpose: '',
      window: undefined,
      none: null,
    };
    expect(readRules(definition, schemaWith(unused)).size).to.equal(1);
  });

  it('are refused when two methods have one path', () => {
    const both = { Unary: definition.Unary, Other: definition.Unary };
    expect(() => readRules(both, schemaWith({}))).to.throw(TypeError, 'Unary is declared twice');
    const rules = { Unary: { scopes: 'a.read' }, Other: 'public' } as const;
    expect(() => codeRules(both, rules)).to.throw(TypeError, 'Unary is declared twice');
  });
});

describe('rules in code', () => {
  const { Unary, Public } = ECHO as Required<typeof ECHO>;
  const definition = { Unary, Public } as {
    Unary: NonNullable<typeof Unary>;
    Public: NonNullable<typeof Public>;
  };

  it('have the conditions that the schema can declare', () => {
    const rules = readRules(
      definition,
      codeRules(definition, {
        Unary: {
          scopes: ['echo.call', 'echo.more'],
          roles: 'operator',
          caller: 'USER',
          maxAuthAgeSeconds: 1.5,
          allowStale: true,
          maxRequestBytes: 100,
        },
        Public: 'public',
      }),
    );
    expect(rules.get('/test.v1.EchoService/Unary')).to.deep.equal({
      isPublic: false,
      scopes: ['echo.call', 'echo.more'],
      roles: ['operator'],
      caller: 'USER',
      maxAuthAgeSeconds: 1.5,
      allowStale: true,
      requestBytesMax: 100,
    });
    expect(rules.get('/test.v1.EchoService/Public')).to.include({ isPublic: true });
  });

  it('do not compile, and do not start, without a rule for each method', () => {
    // @ts-expect-error: Public has no rule.
    expect(() => codeRules(definition, { Unary: {} })).to.throw(
      TypeError,
      '/test.v1.EchoService/Public declares no access rule. Add it to the table of rules',
    );
    // @ts-expect-error: there is no method of this name.
    expect(() => codeRules(definition, { Unary: {}, Public: {}, Pubic: {} })).to.throw(
      TypeError,
      'no such method: Pubic',
    );
  });

  it('are refused when a condition is misspelt, or lacks its value', () => {
    const missing: { readonly scopes?: string } = {};
    for (const [rule, fault] of [
      [{ ...{ scope: 'echo.call' } }, 'has "scope", which is no condition'],
      [{ scopes: missing.scopes }, 'has scopes without a value'],
      [{ scopes: [] }, 'has scopes without a word'],
      [{ roles: [] }, 'has roles without a word'],
    ] as const) {
      const rules = { Unary: rule as object, Public: 'public' as const };
      expect(() => codeRules(definition, rules)).to.throw(TypeError, `Unary ${fault}`);
    }
  });

  it('admit no stale list, and requests of any age, unless they say so', () => {
    const rule = readRules(definition, codeRules(definition, { Unary: {}, Public: 'public' })).get(
      '/test.v1.EchoService/Unary',
    );
    expect(rule).to.deep.equal({
      isPublic: false,
      scopes: [],
      roles: [],
      caller: 'ANY',
      maxAuthAgeSeconds: undefined,
      allowStale: false,
      requestBytesMax: Number.POSITIVE_INFINITY,
    });
    for (const allowStale of [false, true]) {
      const stale = codeRules(definition, { Unary: { allowStale }, Public: 'public' });
      expect(readRules(definition, stale).get('/test.v1.EchoService/Unary')).to.include({ allowStale });
    }
    const now = codeRules(definition, { Unary: { maxAuthAgeSeconds: 0 }, Public: 'public' });
    expect(readRules(definition, now).get('/test.v1.EchoService/Unary')).to.include({ maxAuthAgeSeconds: 0 });
  });

  it('are told what to do about a missing one only', () => {
    expect(() => codeRules(definition, { Unary: { maxRequestBytes: -1 }, Public: 'public' })).to.throw(
      TypeError,
      /^\/test\.v1\.EchoService\/Unary has a maxRequestBytes that is not a number of bytes$/,
    );
  });

  it('are refused when they make no sense', () => {
    for (const rule of [
      { maxAuthAgeSeconds: -1 },
      { maxAuthAgeSeconds: Number.NaN },
      { maxRequestBytes: 0.5 },
    ]) {
      expect(() => codeRules(definition, { Unary: rule, Public: 'public' })).to.throw(
        TypeError,
        '/test.v1.EchoService/Unary has a max',
      );
    }
  });
});
