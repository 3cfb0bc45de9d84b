/** The files of deploy/ that are no manifests, compared with each other and with what they configure. */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { readRuleTable } from '../../gate/src/rules.js';
import { readSettings, SettingsError } from '../../gate/src/settings.js';
import { readManifests } from '../../proofs/deployment/manifests.js';
import { HEAP_ARGUMENTS } from '../../scripts/system/project.js';
import { VARIABLES as AUTH } from '../../services/auth/config.js';
import {
  ConfigurationError,
  type EnvironmentShape,
  parseEnvironment,
} from '../../services/common/config/env.js';
import { VARIABLES as INVENTORY } from '../../services/inventory/config.js';
import { VARIABLES as PAYMENT } from '../../services/payment/config.js';
import { makeFolder, type TestFolder } from '../support/folders.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';

const DEPLOY = join(PROJECT_FOLDER, 'deploy');
const read = (path: string): string => readFileSync(join(DEPLOY, path), 'utf8');

/** The part of compose.yaml that is checked. */
interface Compose {
  readonly services: Readonly<
    Record<
      string,
      {
        readonly read_only?: boolean;
        readonly cap_drop?: readonly string[];
        readonly environment?: Readonly<Record<string, string>>;
        readonly secrets?: readonly string[];
        readonly ports?: readonly string[];
        readonly stop_grace_period?: string;
        readonly volumes?: readonly string[];
      }
    >
  >;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

const compose = parse(read('compose/compose.yaml'), { merge: true }) as Compose;

describe('deploy/compose', () => {
  const secretsOf = (name: string): readonly string[] => compose.services[name]?.secrets ?? [];

  it('gives each container the secrets that it names, and no others', () => {
    for (const [name, { environment = {}, secrets = [] }] of Object.entries(compose.services)) {
      const declared = Object.keys(compose.secrets);
      for (const secret of secrets) expect(declared, name).to.include(secret);
      for (const value of Object.values(environment)) {
        const [, file] = /^\/run\/secrets\/(.+)$/.exec(value) ?? [];
        if (file !== undefined) expect(secrets, name).to.include(file);
      }
    }
    const used = new Set(Object.values(compose.services).flatMap(({ secrets = [] }) => secrets));
    expect([...used].sort()).to.deep.equal(Object.keys(compose.secrets).sort());
  });

  it('gives no service the owner of its tables, and the key-encryption key to auth alone', () => {
    for (const service of ['auth', 'inventory', 'payment']) {
      const holders = Object.keys(compose.services).filter((name) =>
        secretsOf(name).includes(`${service}-migration-database-url`),
      );
      expect(holders).to.deep.equal([`${service}-migrate`]);
    }
    const holders = Object.keys(compose.services).filter((name) =>
      secretsOf(name).includes('key-encryption-key'),
    );
    expect(holders).to.deep.equal(['auth-1', 'auth-2']);
    expect(Object.values(compose.services).flatMap(({ secrets = [] }) => secrets)).to.not.include('ca.key');
  });

  it('runs every container but PostgreSQL on a read-only file system without capabilities', () => {
    const others = Object.entries(compose.services).filter(([name]) => name !== 'postgres');
    expect(others).to.have.length.above(10);
    for (const [name, { read_only: isReadOnly, cap_drop: dropped }] of others) {
      expect({ isReadOnly, dropped }, name).to.deep.equal({ isReadOnly: true, dropped: ['ALL'] });
    }
  });

  it('publishes ports on loopback only', () => {
    const ports = Object.values(compose.services).flatMap(({ ports: own = [] }) => own);
    expect(ports).to.have.length.above(4);
    for (const port of ports) expect(port).to.match(/^127\.0\.0\.1:/);
  });

  it('sets only variables that the service reads, with values that it accepts', () => {
    for (const [name, variables] of [
      ['auth-1', AUTH],
      ['auth-2', AUTH],
      ['inventory', INVENTORY],
      ['payment', PAYMENT],
    ] as const) {
      // The image sets these.
      const env = {
        PORTCULLIS_LISTEN: '0.0.0.0:50051',
        PORTCULLIS_OPS_LISTEN: '0.0.0.0:51051',
        ...compose.services[name]?.environment,
      };
      for (const fault of faultsOfEnvironment(variables, env)) {
        expect(fault, name).to.match(/names a file that cannot be read \(ENOENT\)/);
      }
    }
  });

  it('scrapes under the names of jobs that the alert rules expect, and loads the rules', () => {
    const settings = parse(read('compose/prometheus.yml')) as {
      readonly rule_files: readonly string[];
      readonly scrape_configs: readonly { readonly job_name: string }[];
    };
    expect(settings.scrape_configs).to.have.lengthOf(4);
    for (const { job_name: name } of settings.scrape_configs) expect(name).to.match(/^portcullis/);
    expect(settings.rule_files).to.deep.equal(['/etc/prometheus/rules/*.rules.yaml']);
    expect(existsSync(join(PROJECT_FOLDER, 'docs/operating/prometheus/portcullis.rules.yaml'))).to.equal(
      true,
    );
    expect(compose.services['prometheus']?.volumes).to.include(
      '../../docs/operating/prometheus:/etc/prometheus/rules:ro',
    );
  });

  it('has settings of a gate of which nothing is wrong but that their files are elsewhere', () => {
    const faults = faultsOfGate(join(DEPLOY, 'compose', 'gate.yaml'));
    expect(faults).to.not.be.empty;
    for (const fault of faults) expect(fault).to.match(/cannot be read|names no private key/);
    expect(methodsIn(join(DEPLOY, 'compose', 'greeter.rules.yaml'))).to.deep.equal([
      '/greeter.v1.GreeterService/SayHello',
      '/greeter.v1.GreeterService/WatchGreetings',
    ]);
  });
});

describe('deploy/kubernetes/greeter.yaml', () => {
  let folder: TestFolder;
  before(async () => {
    folder = await makeFolder();
  });
  after(() => folder.remove());

  it('has settings of a gate and rules that can be used', async () => {
    const { configMaps } = readManifests(read('kubernetes/greeter.yaml'));
    const { writeFile } = await import('node:fs/promises');
    for (const [name, content] of Object.entries(configMaps[0]?.data ?? {})) {
      await writeFile(join(folder.path, name), content);
    }
    for (const fault of faultsOfGate(join(folder.path, 'gate.yaml'))) {
      expect(fault).to.match(/cannot be read|names no private key/);
    }
    expect(methodsIn(join(folder.path, 'rules.yaml'))).to.have.lengthOf(2);
  });
});

describe('deploy/Dockerfile', () => {
  const lines = read('Dockerfile').split('\n');

  it('copies only what is there', () => {
    const copied = lines.flatMap((line) => /^COPY (?!--from)(.+) \S+$/.exec(line)?.[1]?.split(' ') ?? []);
    expect(copied).to.include('package.json');
    for (const path of copied) expect(existsSync(join(PROJECT_FOLDER, path)), path).to.equal(true);
  });

  it('starts node itself, without a shell, as a user with a number', () => {
    const starts = lines.filter((line) => line.startsWith('ENTRYPOINT'));
    expect(starts).to.have.lengthOf(4);
    for (const line of starts) expect(line).to.match(/^ENTRYPOINT \["node", .*\.js"\]$/);
    const flags = JSON.stringify(['--enable-source-maps', ...HEAP_ARGUMENTS])
      .slice(1, -1)
      .replaceAll(',', ', ');
    for (const line of starts) expect(line).to.include(flags);
    expect(lines.filter((line) => line.startsWith('USER'))).to.deep.equal(['USER 65532:65532']);
  });

  it('has a context without secrets and without what was made', () => {
    const ignored = readFileSync(join(PROJECT_FOLDER, '.dockerignore'), 'utf8').split('\n');
    expect(ignored).to.include('*').and.to.include('**/node_modules');
    const admitted = ignored.filter((line) => line.startsWith('!')).map((line) => line.slice(1));
    for (const path of admitted) {
      expect(existsSync(join(PROJECT_FOLDER, path)), path).to.equal(true);
      expect('deploy/compose/secrets'.startsWith(`${path}/`), path).to.equal(false);
    }
  });
});

describe('deploy/systemd', () => {
  it('starts what the build makes, and gives it the time that a stop takes', () => {
    const unit = read('systemd/portcullis@.service');
    const [, program = ''] =
      /^ExecStart=\/usr\/bin\/node .* (dist\/services\/%i\/main\.js)$/m.exec(unit) ?? [];
    for (const service of ['auth', 'inventory', 'payment']) {
      const source = program.replace('dist/', '').replace('%i', service).replace('.js', '.ts');
      expect(existsSync(join(PROJECT_FOLDER, source)), source).to.equal(true);
    }
    expect(unit).to.include(` ${HEAP_ARGUMENTS.join(' ')} `);
    expect(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1])).to.be.at.least(15);
  });
});

describe('the files of deploy', () => {
  it('name pages that exist', () => {
    for (const file of ['Dockerfile', 'compose/compose.yaml', 'systemd/portcullis@.service']) {
      const pages = read(file).match(/docs\/[\w/-]+\.md/g) ?? [];
      expect(pages, file).to.not.be.empty;
      for (const page of pages) expect(existsSync(join(PROJECT_FOLDER, page)), page).to.equal(true);
    }
  });
});

describe('the scripts of deploy', () => {
  for (const script of ['image/keep.sh', 'postgres/create-databases.sh']) {
    it(`can be run: ${script}`, () => {
      expect(statSync(join(DEPLOY, script)).mode & 0o111).to.equal(0o111);
      execFileSync('sh', ['-n', join(DEPLOY, script)]);
    });
  }
});

function faultsOfGate(file: string): readonly string[] {
  try {
    readSettings({}, file);
    return [];
  } catch (error) {
    if (error instanceof SettingsError) return error.faults;
    throw error;
  }
}

function methodsIn(file: string): string[] {
  const { methods } = readRuleTable({
    descriptors: undefined,
    file,
    publicMethods: [],
    health: 'closed',
    reflection: 'closed',
  });
  return [...methods.keys()].sort();
}

function faultsOfEnvironment(variables: EnvironmentShape, env: NodeJS.ProcessEnv): string[] {
  try {
    parseEnvironment(variables, env);
    return [];
  } catch (error) {
    if (error instanceof ConfigurationError)
      return error.faults.map(({ variable, problem }) => `${variable} ${problem}`);
    throw error;
  }
}
