/** The files that docs/gate.md shows. Those of the proxies run in `npm run interop`. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { decodeJwt } from 'jose';
import { GATE_FLAGS } from '../../gate/src/flags.js';
import { createIdentity, IDENTITY_HEADERS, SIGNED_HEADER } from '../../gate/src/identity.js';
import { readRuleTable } from '../../gate/src/rules.js';
import { readSettings, SettingsError } from '../../gate/src/settings.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';

const example = (name: string): string => join(PROJECT_FOLDER, 'docs', 'gate', name);
const read = (path: string): Promise<string> => readFile(path, 'utf8');

describe('docs/gate', () => {
  it('has settings of which nothing is wrong but that their files are elsewhere', () => {
    const faults = faultsOf(example('gate.yaml'));
    expect(faults).to.not.be.empty;
    for (const fault of faults) expect(fault).to.match(/cannot be read|names no private key/);
  });

  it('has rules that can be used', () => {
    const { methods } = readRuleTable({
      descriptors: undefined,
      file: example('rules.yaml'),
      publicMethods: [],
      health: 'closed',
      reflection: 'closed',
    });
    expect(methods.get('/greeter.v1.GreeterService/SetGreeting')?.rule).to.deep.include({
      scopes: ['greeter.read', 'greeter.write'],
      roles: ['editor', 'admin'],
      maxAuthAgeSeconds: 600,
    });
  });

  it('lets nginx replace every header of an identity', async () => {
    const settings = await read(example('nginx.conf'));
    for (const name of IDENTITY_HEADERS) expect(settings, name).to.include(`grpc_set_header ${name} `);
  });

  it('has every header of an identity beside its member of the signed one', async () => {
    const page = await read(join(PROJECT_FOLDER, 'docs', 'gate.md'));
    const rows = [...page.matchAll(/^\| (?:`(x-portcullis-[a-z-]+)`)? *\| (?:((?:`\w+`(?:, )?)+))? *\|/gm)];
    const headers = rows.flatMap(([, header]) => (header === undefined ? [] : [header]));
    expect([...headers, SIGNED_HEADER].sort()).to.deep.equal([...IDENTITY_HEADERS].sort());
    const caller = {
      issuer: 'https://issuer.test',
      id: 'alice',
      subject: 'alice',
      clientId: 'direct',
      tokenId: 'token',
      sessionId: 'session',
      kind: 'USER' as const,
      scopes: new Set(['a']),
      roles: new Set(['b']),
      audiences: ['greeter'],
      actors: ['shop'],
      authTimeSeconds: 0,
      expiresAtSeconds: 4_000_000_000,
    };
    const identity = createIdentity({ mode: 'signed', token: 'strip', issuer: 'gate', audience: 'greeter' });
    const [, token = ''] = identity.headersOf(caller)[0] ?? [];
    const members = rows.flatMap(([, , named = '']) => named.match(/\w+/g) ?? []);
    expect(members.sort()).to.deep.equal(Object.keys(decodeJwt(token)).sort());
  });

  it('names only options that exist', async () => {
    const names = new Set<string>([...GATE_FLAGS.map(({ name }) => name), 'config', 'help', 'only', 'env']);
    const page = await read(join(PROJECT_FOLDER, 'docs', 'gate.md'));
    for (const [, name = ''] of page.matchAll(/`--([a-z-]+)/g)) expect(names.has(name), name).to.equal(true);
  });
});

function faultsOf(file: string): readonly string[] {
  try {
    readSettings({}, file);
    return [];
  } catch (error) {
    if (error instanceof SettingsError) return error.faults;
    throw error;
  }
}
