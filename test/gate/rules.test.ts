/** Access rules from descriptor sets, files and flags. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  MethodDescriptorProtoSchema,
  ServiceDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import { createTestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { describeMethod, gateRules } from '../../gate/src/command.js';
import { ruledDescriptorSet } from '../../gate/src/ruled-set.js';
import { RulesError, type RuleTable, readRuleTable } from '../../gate/src/rules.js';
import type { RulesSettings } from '../../gate/src/settings.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';

const IMAGE = join(PROJECT_FOLDER, 'proto', 'gen', 'image.binpb');
const CLOSED: RulesSettings = {
  descriptors: undefined,
  file: undefined,
  publicMethods: [],
  health: 'closed',
  reflection: 'closed',
};

describe('readRuleTable', () => {
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  async function file(name: string, content: string | Uint8Array): Promise<string> {
    const path = join(folder.path, name);
    await writeFile(path, content);
    return path;
  }

  it('reads every rule and kind of a descriptor set', () => {
    const { methods } = readRuleTable({ ...CLOSED, descriptors: IMAGE });
    const watch = methods.get('/inventory.v1.InventoryService/WatchStock');
    expect(watch?.kind).to.deep.equal({ requestStream: false, responseStream: true });
    expect(watch?.rule.scopes).to.deep.equal(['inventory.read']);
    expect(methods.get('/auth.v1.AuthService/Login')?.rule.isPublic).to.equal(true);
    expect([...methods.keys()].some((path) => path.startsWith('/grpc.'))).to.equal(false);
  });

  it('names every method without a rule', async () => {
    const descriptors = await file('bare.binpb', bareSet(['SayHello', 'SayBye']));
    expect(faultsOf({ ...CLOSED, descriptors }).slice(0, 2)).to.deep.equal([
      '/bare.v1.BareService/SayHello declares no access rule',
      '/bare.v1.BareService/SayBye declares no access rule',
    ]);
  });

  it('takes the rules of methods whose schema has none from a file, and keeps their kinds', async () => {
    const descriptors = await file('bare.binpb', bareSet(['SayHello', 'SayBye']));
    const rules = await file(
      'rules.yaml',
      'services:\n  bare.v1.BareService:\n    SayHello: {scopes: [bare.hello]}\n    SayBye: public\n',
    );
    const { methods } = readRuleTable({ ...CLOSED, descriptors, file: rules });
    const hello = methods.get('/bare.v1.BareService/SayHello');
    expect(hello?.rule.scopes).to.deep.equal(['bare.hello']);
    expect(hello?.kind).to.deep.equal({ requestStream: false, responseStream: false });
    expect(methods.get('/bare.v1.BareService/SayBye')?.rule.isPublic).to.equal(true);
  });

  it('gives an engine the kinds of methods whose rule is in a file or a flag', async () => {
    const descriptors = await file('bare.binpb', bareSet(['SayHello', 'SayBye']));
    const rules = await file('public.yaml', 'services: {bare.v1.BareService: {SayHello: public}}');
    const publicMethods = ['/bare.v1.BareService/SayBye'];
    const kit = await createTestKit({ audience: 'bare' });
    try {
      const engine = await kit.createEngine({ audience: 'bare' });
      engine.replaceRules(readRuleTable({ ...CLOSED, descriptors, file: rules, publicMethods }).parts);
      for (const path of ['/bare.v1.BareService/SayHello', '/bare.v1.BareService/SayBye']) {
        const decision = await engine.admit(path, [], {
          peer: '127.0.0.1:4711',
          address: '127.0.0.1',
          isPrivate: true,
          certificateThumbprint: undefined,
          retireConnection: () => {},
        });
        if (decision.kind === 'refused') throw new Error(`${path} was refused: ${decision.status.reason}`);
        const kind = { requestStream: false, responseStream: false };
        expect(decision.call.method, path).to.deep.equal(kind);
        decision.call.unlink();
      }
    } finally {
      await kit.close();
    }
  });

  it('lets a rule of the file replace that of the schema', async () => {
    const rules = await file('one.json', '{"services":{"auth.v1.AuthService":{"Login":{"scopes":"x.y"}}}}');
    const { methods, parts } = readRuleTable({ ...CLOSED, descriptors: IMAGE, file: rules });
    expect(methods.get('/auth.v1.AuthService/Login')?.rule.scopes).to.deep.equal(['x.y']);
    const owners = parts.filter(({ paths }) => paths.includes('/auth.v1.AuthService/Login'));
    expect(owners).to.have.length(1);
  });

  it('does not open a method by a flag when the schema or the file demands a caller', async () => {
    const publicMethods = ['/inventory.v1.InventoryService/WatchStock', '/auth.v1.AuthService/Login'];
    expect(faultsOf({ ...CLOSED, descriptors: IMAGE, publicMethods })).to.deep.equal([
      'public: /inventory.v1.InventoryService/WatchStock has another rule in the descriptor set: name it no longer, or change that rule',
    ]);
    const rules = await file(
      'stricter.yaml',
      'services:\n  auth.v1.AuthService: {Login: {scopes: x.y}}\n  inventory.v1.InventoryService: {WatchStock: public}\n',
    );
    expect(faultsOf({ ...CLOSED, descriptors: IMAGE, file: rules, publicMethods })).to.deep.equal([
      'public: /auth.v1.AuthService/Login has another rule in the file of rules: name it no longer, or change that rule',
    ]);
  });

  it('rejects a file with misspelt conditions, names that are none, and no YAML', async () => {
    for (const [name, content] of [
      ['misspelt.yaml', 'services: {a.v1.A: {B: {scope: x}}}'],
      ['empty.yaml', 'services: {a.v1.A: {B: {scopes: []}}}'],
      ['null.yaml', 'services: {a.v1.A: {B: }}'],
      ['wildcard.yaml', 'services: {a.v1.A: {"*": public}}'],
      ['slash.yaml', 'services: {a/v1: {B: public}}'],
      ['more.yaml', 'services: {}\nrules: {}'],
      ['broken.yaml', 'services: {'],
      ['text.yaml', 'hello'],
    ] as const) {
      const rules = await file(name, content);
      expect(faultsOf({ ...CLOSED, file: rules }), name).to.not.be.empty;
    }
    expect(faultsOf({ ...CLOSED, file: join(folder.path, 'missing.yaml') })[0]).to.include('ENOENT');
  });

  it('names the method and the condition that were probably meant', async () => {
    const descriptors = await file('bare.binpb', bareSet(['SayHello', 'SayBye']));
    const rules = await file(
      'misspelt.yaml',
      [
        'services:',
        '  bare.v1.BareService:',
        '    SayHelo: {scope: x, role: y}',
        '    SayBye: {caller: USERS, maxAuthAge: 1}',
        '  bare.v1.BearService: {SayBye: public}',
        '  grpc.health.v1.Health: {Chek: public}',
      ].join('\n'),
    );
    expect(faultsOf({ ...CLOSED, descriptors, file: rules })).to.have.members([
      'rules: bare.v1.BareService/SayHelo is no method of the service: did you mean SayHello?',
      'rules: bare.v1.BareService/SayHelo: scope is no condition: did you mean scopes?',
      'rules: bare.v1.BareService/SayHelo: role is no condition: did you mean roles?',
      'rules: bare.v1.BareService/SayBye: caller must be USER or SERVICE: did you mean USER?',
      'rules: bare.v1.BareService/SayBye: maxAuthAge is no condition: did you mean maxAuthAgeSeconds?',
      'rules: bare.v1.BearService is no service of the descriptor set: did you mean bare.v1.BareService?',
      'rules: grpc.health.v1.Health/Chek is no method of the service: did you mean Check?',
    ]);
    const others = await file(
      'others.yaml',
      'services: {bare.v1.BareService: {SayHello: {}}, grpc.channelz.v1.Channelz: {GetServers: {}}}',
    );
    expect(
      faultsOf({ ...CLOSED, descriptors, file: others, publicMethods: ['/bare.v1.BareService/SayBey'] }),
    ).to.deep.equal([
      'public: bare.v1.BareService/SayBey is no method of the service: did you mean SayBye?',
      '/bare.v1.BareService/SayBye declares no access rule',
      'Declare option (portcullis.access.v1.rule) in the .proto and compile the descriptor set again, or add the methods to a file of rules',
    ]);
  });

  it('says in plain words what a file of rules must be', async () => {
    for (const [content, fault] of [
      ['services: {a.v1.A: {B: {scopes: []}}}', 'rules: a.v1.A/B: scopes must not be empty'],
      ['services: {a.v1.A: {B: {scopes: 5}}}', 'rules: a.v1.A/B: scopes must be a word, or a list of words'],
      ['services: {a.v1.A: {B: }}', 'rules: a.v1.A/B must be public, or a table of conditions'],
      ['services: {a.v1.A: {B: pubic}}', 'rules: a.v1.A/B must be public, or a table of conditions'],
      ['services: {a.v1.A: {"*": public}}', 'rules: a.v1.A/* must be the name of a method'],
      ['services: {a/v1: {B: public}}', 'rules: a/v1 must be the full name of a service'],
      ['service: {}', 'is no part of a file of rules: did you mean services?'],
      ['hello', 'rules: the file must be a table, got text'],
      ['services: {', 'a bracket before it is open'],
    ] as const) {
      const rules = await file('faulty.yaml', content);
      const faults = faultsOf({ ...CLOSED, file: rules }).join('\n');
      expect(faults, content).to.include(fault);
      expect(faults, content).to.not.match(/Invalid|Unrecognized|expected (?:string|record)|pattern/);
    }
  });

  it('rejects bytes that are no descriptor set, and one without services', async () => {
    const noise = await file('noise.binpb', 'not a descriptor set');
    expect(faultsOf({ ...CLOSED, descriptors: noise })[0]).to.include('FileDescriptorSet');
    const empty = await file('empty.binpb', new Uint8Array());
    expect(faultsOf({ ...CLOSED, descriptors: empty })[0]).to.include('has no service');
  });

  it('opens health and reflection as the settings say', () => {
    const paths = (settings: Partial<RulesSettings>): string[] =>
      ruleLines(readRuleTable({ ...CLOSED, descriptors: IMAGE, ...settings })).filter((line) =>
        line.includes('/grpc.'),
      );
    expect(paths({})).to.be.empty;
    expect(paths({ health: 'public' })).to.include('/grpc.health.v1.Health/Check public');
    expect(paths({ reflection: 'authenticated' })).to.include(
      '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo any authenticated caller',
    );
  });
});

describe('ruledDescriptorSet', () => {
  it('has every method with the rule of the file, or of the descriptor set', async () => {
    const folder = await makeTemporaryFolder();
    try {
      const rules = join(folder.path, 'rules.yaml');
      await writeFile(
        rules,
        [
          'services:',
          '  auth.v1.AuthService: {Login: {scopes: [x.y, x.z], roles: r, caller: USER, maxAuthAgeSeconds: 1.5}}',
          '  inventory.v1.InventoryService: {WatchStock: {caller: SERVICE, allowStale: true, maxRequestBytes: 9}}',
        ].join('\n'),
      );
      const merged = join(folder.path, 'merged.binpb');
      await writeFile(merged, ruledDescriptorSet({ rules, descriptors: IMAGE }));
      const wanted = readRuleTable({ ...CLOSED, descriptors: IMAGE, file: rules });
      const found = readRuleTable({ ...CLOSED, descriptors: merged });
      const plain = ({ methods }: RuleTable) =>
        Object.fromEntries([...methods].map(([path, { rule, kind }]) => [path, { rule, kind }]));
      expect(plain(found)).to.deep.equal(plain(wanted));
      expect(found.methods.size).to.be.greaterThan(20);
    } finally {
      await folder.remove();
    }
  });

  it('is made of a file of rules alone, too, and of no file that lacks a method', async () => {
    const folder = await makeTemporaryFolder();
    try {
      const [rules, bare] = [join(folder.path, 'rules.yaml'), join(folder.path, 'bare.binpb')];
      await writeFile(
        rules,
        'services: {bare.v1.BareService: {SayHello: {scopes: bare.hello}}, Plain: {Do: public}}',
      );
      await writeFile(bare, ruledDescriptorSet({ rules }));
      const { methods } = readRuleTable({ ...CLOSED, descriptors: bare });
      expect([...methods.keys()]).to.have.members(['/bare.v1.BareService/SayHello', '/Plain/Do']);
      await writeFile(bare, bareSet(['SayHello', 'SayBye']));
      expect(() => ruledDescriptorSet({ rules, descriptors: bare })).to.throw(
        RulesError,
        '/bare.v1.BareService/SayBye declares no access rule',
      );
    } finally {
      await folder.remove();
    }
  });
});

describe('gateRules', () => {
  it('lists methods in order, with kind, rule and source', () => {
    const rows = gateRules({ file: IMAGE }).map(describeMethod);
    expect(rows.map(([path]) => path)).to.deep.equal(rows.map(([path]) => path).sort());
    expect(rows).to.deep.include([
      '/inventory.v1.InventoryService/WatchStock',
      'server stream',
      'scopes inventory.read',
      'descriptors',
    ]);
  });
});

function ruleLines(table: RuleTable): string[] {
  return [...table.methods.values()].map((method) => `${method.path} ${describeMethod(method)[2]}`);
}

function faultsOf(settings: RulesSettings): readonly string[] {
  try {
    readRuleTable(settings);
    return [];
  } catch (error) {
    if (error instanceof RulesError) return error.faults;
    throw error;
  }
}

/** A descriptor set whose methods have no options. */
function bareSet(methods: readonly string[]): Uint8Array {
  const service = create(ServiceDescriptorProtoSchema, {
    name: 'BareService',
    method: methods.map((name) => create(MethodDescriptorProtoSchema, { name })),
  });
  const file = create(FileDescriptorProtoSchema, {
    name: 'bare.proto',
    package: 'bare.v1',
    service: [service],
  });
  return toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [file] }));
}
