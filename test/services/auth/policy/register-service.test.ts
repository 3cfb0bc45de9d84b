/** Tests of the registration of a service from its descriptor set, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  MethodDescriptorProtoSchema,
  MethodOptionsSchema,
  ServiceDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import { expect } from 'chai';
import {
  DESCRIPTOR_SET_BYTES_MAX,
  METHODS_MAX,
  methodsOf,
} from '../../../../services/auth/adapters/descriptor-set.js';
import type { ServiceRegistration } from '../../../../services/auth/policy/register-service.js';
import { registry } from '../../../support/descriptor-image.js';
import { serviceErrorOf, violatedFieldsOf } from '../../../support/outcomes.js';
import { DEMO_POLICY } from '../demo-policy.js';
import {
  addClient,
  addUser,
  claimsOf,
  type FreshAuth,
  logIn,
  openFreshAuth,
  serviceToken,
} from '../instance.js';

const IMAGE = readFileSync(new URL('../../../../proto/gen/image.binpb', import.meta.url));

/** The field number of the method option. */
const RULE = 52_473;

type Rule = (rule: BinaryWriter) => unknown;

const scopes =
  (...words: string[]): Rule =>
  (rule) => {
    for (const word of words) rule.tag(2, WireType.LengthDelimited).string(word);
  };
const roles =
  (...words: string[]): Rule =>
  (rule) => {
    for (const word of words) rule.tag(3, WireType.LengthDelimited).string(word);
  };
const number =
  (field: number, value: number): Rule =>
  (rule) =>
    rule.tag(field, WireType.Varint).uint32(value);
const all =
  (...rules: Rule[]): Rule =>
  (rule) => {
    for (const one of rules) one(rule);
  };

/** The file of a service whose methods have these rules; undefined is a method without one. */
function fileWith(
  methods: Readonly<Record<string, Rule | undefined>>,
  packageName = 'greeter.v1',
): FileDescriptorProto {
  return create(FileDescriptorProtoSchema, {
    name: 'greeter.proto',
    package: packageName,
    service: [
      create(ServiceDescriptorProtoSchema, {
        name: 'Greeter',
        method: Object.entries(methods).map(([name, rule]) =>
          create(MethodDescriptorProtoSchema, {
            name,
            ...(rule !== undefined && { options: fromBinary(MethodOptionsSchema, optionsWith(rule)) }),
          }),
        ),
      }),
    ],
  });
}

function optionsWith(rule: Rule): Uint8Array {
  const options = new BinaryWriter().tag(RULE, WireType.LengthDelimited).fork();
  rule(options);
  return options.join().finish();
}

function setOf(...file: FileDescriptorProto[]): Uint8Array {
  return toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file }));
}

const GREETER = setOf(
  fileWith({
    Hello: scopes('greeter.hello'),
    Shout: scopes('greeter.hello', 'greeter.shout'),
    Sync: all(scopes('greeter.sync'), number(4, 2)),
    About: number(1, 1),
  }),
);

describe('registering a service', () => {
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth();
  });
  afterEach(() => auth.close());

  const register = (descriptorSet: Uint8Array, over: Partial<ServiceRegistration> = {}) =>
    auth.policy.registerService({
      actor: 'olga',
      etag: '',
      dryRun: false,
      requestId: randomUUID(),
      reason: '',
      network: '',
      audience: 'greeter',
      description: 'Greets',
      clientIds: [],
      roles: ['customer'],
      descriptorSet,
      ...over,
    });
  const problemsOf = async (descriptorSet: Uint8Array, over: Partial<ServiceRegistration> = {}) => {
    const { code, violations } = await serviceErrorOf(register(descriptorSet, over));
    expect(code).to.equal('FIELD_INVALID');
    return violations.map(({ field, description }) => `${field}: ${description}`);
  };

  it('reads its scopes from the rules, and gives the roles those of the methods that users may call', async () => {
    const { service, changes } = await register(GREETER, { clientIds: ['greeter-eu'] });
    expect(service).to.deep.equal({
      audience: 'greeter',
      description: 'Greets',
      clientIds: ['greeter-eu'],
      scopes: ['greeter.hello', 'greeter.shout', 'greeter.sync'],
    });
    expect(changes).to.have.length(7);
    const { access } = await logIn(auth, await addUser(auth), { audiences: ['greeter'] });
    const claims = claimsOf(access.token);
    expect(claims.aud).to.deep.equal(['greeter']);
    expect(String(claims['scope']).split(' ')).to.include.members(['greeter.hello', 'greeter.shout']);
    expect(String(claims['scope'])).to.not.include('greeter.sync');
  });

  it('changes nothing when it is repeated, and keeps description and clients that are not given', async () => {
    await register(GREETER, { clientIds: ['greeter-eu'] });
    const { changes, service } = await register(GREETER, { description: '', roles: [] });
    expect(changes).to.deep.equal([]);
    expect(service).to.deep.include({ description: 'Greets', clientIds: ['greeter-eu'] });
  });

  it('takes a scope that the set does not have any more from the service, the roles and live sessions', async () => {
    await register(GREETER);
    const { access } = await logIn(auth, await addUser(auth));
    const { users, changes } = await register(setOf(fileWith({ Hello: scopes('greeter.hello') })));
    expect(users).to.equal(1n);
    expect(changes.map(({ role, scope }) => [role, scope])).to.deep.equal([
      [undefined, 'greeter.shout'],
      [undefined, 'greeter.sync'],
      ['customer', 'greeter.shout'],
    ]);
    expect(await auth.exchange.introspect(access.token)).to.equal(undefined);
  });

  it('reads the same rules from the project’s own image as another reader does', async () => {
    const own = methodsOf('image', IMAGE);
    expect(own.filter(({ rule }) => rule === undefined)).to.deep.equal([]);
    const ofPayment = own.filter(({ path }) => path.startsWith('/payment.'));
    const required = new Set(ofPayment.flatMap(({ rule }) => rule?.scopes ?? []));
    expect([...required].sort()).to.deep.equal([
      'inventory.reserve',
      'payment.manage',
      'payment.pay',
      'payment.read',
    ]);
    // The rules of payment also require a scope of inventory, which stays that of inventory.
    const payment = fromBinary(FileDescriptorSetSchema, IMAGE).file.filter(
      ({ package: of }) => of === 'payment.v1',
    );
    const { changes } = await register(setOf(...payment), {
      audience: 'payment',
      description: '',
      roles: [],
    });
    expect(changes).to.deep.equal([]);
  });

  it('knows every field of an access rule that the schema has', () => {
    const rule = registry.getMessage('portcullis.access.v1.Rule');
    expect(rule?.fields.map(({ number: field }) => field)).to.deep.equal([1, 2, 3, 4, 5, 6, 7]);
    for (const name of ['Caller', 'OnStale']) {
      const values = registry.getEnum(`portcullis.access.v1.${name}`)?.values.map((value) => value.number);
      expect(values, name).to.deep.equal([0, 1, 2]);
    }
  });

  it('names every method without a rule, or with one that it does not understand', async () => {
    const set = setOf(
      fileWith({
        None: undefined,
        Newer: all(scopes('greeter.hello'), number(8, 1)),
        NewCaller: all(scopes('greeter.hello'), number(4, 3)),
        NewStale: all(scopes('greeter.hello'), number(6, 3)),
        Both: all(number(1, 1), scopes('greeter.hello')),
        Good: scopes('greeter.hello'),
      }),
    );
    const path = '/greeter.v1.Greeter';
    const value = (name: string) => `has a rule of a newer version: its ${name} is not known`;
    expect(await problemsOf(set)).to.deep.equal([
      `descriptor_set: ${path}/None declares no access rule`,
      `descriptor_set: ${path}/Newer has a rule of a newer version: field 8 is not known`,
      `descriptor_set: ${path}/NewCaller ${value('caller')}`,
      `descriptor_set: ${path}/NewStale ${value('on_stale')}`,
      `descriptor_set: ${path}/Both is public and has other conditions: declare one or the other`,
    ]);
    expect((await auth.policy.get()).etag).to.not.equal('');
  });

  it('names scopes of other services, words that are no scopes, and unknown roles', async () => {
    const set = setOf(
      fileWith({
        Foreign: scopes('inventory.read'),
        Reserved: scopes('auth.revoke'),
        Invented: scopes('greeter.hello', 'payment.everything'),
        Upper: scopes('greeter.Hello'),
        Role: all(scopes('greeter.hello'), roles('visitor')),
      }),
    );
    const only = 'requires only scopes of other services';
    expect(
      (await problemsOf(set)).map((problem) => problem.replace('descriptor_set: /greeter.v1.Greeter/', '')),
    ).to.deep.equal([
      `Foreign ${only}: inventory.read belongs to inventory`,
      `Reserved ${only}: auth.revoke belongs to auth`,
      'Invented requires "payment.everything", which payment does not have',
      'Upper requires "greeter.Hello", which cannot be a scope',
      'Role requires role "visitor", which the policy does not have',
    ]);
  });

  it('rejects a set without a service, or without a scope of its own', async () => {
    expect(await problemsOf(new Uint8Array())).to.deep.equal(['descriptor_set: has no service']);
    const standard = fileWith({ Check: undefined }, 'grpc.health.v1');
    expect(await problemsOf(setOf(standard))).to.deep.equal(['descriptor_set: has no service']);
    const open = setOf(fileWith({ About: number(1, 1), Any: all() }));
    expect(await problemsOf(open)).to.deep.equal([
      'descriptor_set: has no method that requires a scope of the service: no user could get a token for it',
    ]);
  });

  it('rejects what is no descriptor set, whatever it is', async () => {
    const cut = GREETER.slice(0, -3);
    const huge = new Uint8Array(DESCRIPTOR_SET_BYTES_MAX + 1);
    const group = new BinaryWriter().tag(1, WireType.StartGroup).finish();
    const text = new TextEncoder().encode('syntax = "proto3";');
    const endless = new Uint8Array(32).fill(0xff);
    for (const set of [cut, huge, group, text, endless]) {
      expect(await violatedFieldsOf(register(set))).to.deep.equal(['descriptor_set']);
    }
    const many = Object.fromEntries(
      Array.from({ length: METHODS_MAX + 1 }, (_, at) => [`M${at}`, scopes('greeter.hello')]),
    );
    expect(await violatedFieldsOf(register(setOf(fileWith(many))))).to.deep.equal(['descriptor_set']);
  });

  it('rejects reserved and invalid names, and unknown roles', async () => {
    for (const audience of ['auth', 'auth.more', '', 'Greeter', 'x'.repeat(101)]) {
      expect(await violatedFieldsOf(register(GREETER, { audience })), audience).to.deep.equal(['audience']);
    }
    expect(await violatedFieldsOf(register(GREETER, { roles: ['customer', 'visitor'] }))).to.deep.equal([
      'roles[1]',
    ]);
    expect(await violatedFieldsOf(register(GREETER, { clientIds: ['Bad'] }))).to.deep.equal([
      `policy.services[${DEMO_POLICY.services.length}].client_ids[0]`,
    ]);
  });

  it('lets only the clients that serve the audience exchange its tokens', async () => {
    await register(GREETER, { clientIds: ['greeter-eu'] });
    const user = await addUser(auth);
    const { access } = await logIn(auth, user, { audiences: ['greeter'] });
    const exchangeAs = async (clientId: string) => {
      const client = await addClient(auth, { clientId, exchangeAudiences: ['inventory'] });
      return auth.exchange.exchange({
        callerToken: await serviceToken(auth, client),
        subjectToken: access.token,
        audience: 'inventory',
        scopes: ['inventory.read'],
      });
    };
    const { token } = await exchangeAs('greeter-eu');
    expect(claimsOf(token)).to.deep.include({
      aud: ['inventory'],
      scope: 'inventory.read',
      client_id: 'greeter-eu',
    });
    for (const clientId of ['greeter', 'greeter-us', 'payment']) {
      expect((await serviceErrorOf(exchangeAs(clientId))).code, clientId).to.equal('SUBJECT_TOKEN_INVALID');
    }
  });
});
