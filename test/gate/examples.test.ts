/** The files that docs/gate.md shows. Those of the proxies run in `npm run interop`. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { GATE_FLAGS } from '../../gate/src/flags.js';
import { IDENTITY_HEADERS } from '../../gate/src/identity.js';
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
