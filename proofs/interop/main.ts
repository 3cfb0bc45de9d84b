/**
 * `npm run interop`: programs of others. Servers in other languages behind the gate, proxies that ask it, the commands of the
 * README, and Prometheus with the rules and dashboards of the documentation. Each program is fetched if this machine lacks it; what cannot be had is named.
 */

import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { tableText, writeFigures } from '../shared/reporting.js';
import { namesAmong, Trial } from '../shared/trial.js';
import { checkBehindGate, type ServerProgram } from './behind-gate.js';
import { checkPythonClient } from './clients.js';
import { Environment } from './environment.js';
import { checkFirstSteps } from './first-steps.js';
import {
  envoy,
  goServer,
  grpcurl,
  haproxy,
  nginx,
  prometheus,
  pythonWithGrpc,
  pythonWithTools,
} from './peers.js';
import { startProgram } from './programs.js';
import { checkPrometheus } from './prometheus.js';
import { checkEnvoy, checkHaproxy, checkNginx } from './proxies.js';

const UPSTREAMS = join(PROJECT_FOLDER, 'proofs', 'interop', 'upstreams');
const FAULTS_SHOWN_MAX = 20;

/** google.rpc.Status with one ErrorInfo, as the server in Python sends it. */
const DETAILS =
  '080a120f726566757365642062792068616e641a3e0a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4572726f72496e666f12120a0742595f48414e441207696e7465726f70';

const PARTS = ['python', 'go', 'envoy', 'nginx', 'haproxy', 'grpcurl', 'first-steps', 'prometheus'] as const;
type Part = (typeof PARTS)[number];

interface Options {
  readonly only: readonly Part[];
  readonly json?: string;
  readonly allowMissing?: true;
}

const options = new Command('npm run interop --')
  .description(
    'Runs real programs of others: servers in Python and Go, Envoy, nginx, haproxy and grpcurl with the gate, and Prometheus.',
  )
  .option(
    '--only <names>',
    `parts to run, separated by commas: ${PARTS.join(', ')}; default: all`,
    namesAmong(PARTS),
    [...PARTS],
  )
  .option('--allow-missing', 'do not fail because a program cannot be had')
  .option('--json <file>', 'write the results to this file')
  .addHelpText('after', '\nExit code: 0 when everything held and every program was had, 1 otherwise.')
  .parse()
  .opts<Options>();

const trial = new Trial();
const { board, stopping } = trial;

process.exitCode = (await run()) ? 0 : 1;

async function run(): Promise<boolean> {
  try {
    if (options.only.some((name) => name !== 'prometheus')) await runWithGate();
    if (options.only.includes('prometheus')) await runPrometheus();
  } finally {
    trial.end();
  }
  report();
  await writeFigures(options.json, { peers: trial.peers, checks: board.checks });
  return trial.holds(options.allowMissing === true);
}

/** It breaks its system, so it has one of its own. */
async function runPrometheus(): Promise<void> {
  const had = await trial.peer('fetching Prometheus', prometheus);
  if (!had.had) return;
  await trial.part(had.name, () => checkPrometheus(had.value.prometheus, board, stopping));
}

async function runWithGate(): Promise<void> {
  const folder = await makeTemporaryFolder();
  let system: System | undefined;
  try {
    trial.show('starting the system');
    system = await startSystem({
      dataDir: join(folder.path, 'data'),
      ports: 'free',
      ephemeral: true,
      signal: stopping,
    });
    const environment = await Environment.open(system, folder.path);
    try {
      await runParts(environment);
    } finally {
      environment.close();
    }
  } finally {
    await system?.stop();
    await folder.remove();
  }
}

async function runParts(environment: Environment): Promise<void> {
  const wants = (part: Part): boolean => options.only.includes(part);
  const needsPython = ['python', 'envoy', 'nginx', 'haproxy'].some((name) =>
    options.only.some((part) => part === name),
  );
  const python = needsPython ? await trial.peer('fetching grpcio', pythonWithGrpc) : undefined;
  const pythonServer: ServerProgram | undefined = python?.had
    ? {
        peer: python.name,
        program: python.value,
        before: [join(UPSTREAMS, 'python', 'server.py')],
        after: [DETAILS],
      }
    : undefined;
  if (wants('python') && python?.had && pythonServer !== undefined) {
    await trial.part(python.name, () => checkBehindGate(pythonServer, environment, board));
    await trial.part(`${python.name} as client`, () =>
      checkPythonClient(python.value, pythonServer, environment, board),
    );
  }
  if (wants('go')) {
    const go = await trial.peer('building the server in Go', goServer);
    if (go.had) {
      const server = { peer: go.name, program: go.value, before: [], after: [] };
      await trial.part(go.name, () => checkBehindGate(server, environment, board));
    }
  }
  if (wants('envoy')) {
    const had = await trial.peer('fetching Envoy', envoy);
    if (had.had && pythonServer !== undefined) {
      await trial.part(had.name, () => checkEnvoy(had.value, pythonServer, environment, board));
    }
  }
  if (wants('nginx')) {
    const had = await trial.peer('fetching nginx', nginx);
    if (had.had && pythonServer !== undefined) {
      await trial.part(had.name, () => checkNginx(had.value, pythonServer, environment, board));
    }
  }
  if (wants('haproxy')) {
    const had = await trial.peer('fetching haproxy', haproxy);
    if (had.had && pythonServer !== undefined) {
      await trial.part(had.name, () => checkHaproxy(had.value, pythonServer, environment, board));
    }
  }
  const client =
    wants('grpcurl') || wants('first-steps') ? await trial.peer('building grpcurl', grpcurl) : undefined;
  if (wants('grpcurl') && client?.had)
    await trial.part(client.name, () => checkReadme(client.value, environment));
  if (wants('first-steps') && client?.had) {
    const tools = await trial.peer('fetching grpcio-tools', pythonWithTools);
    if (tools.had) {
      const programs = { grpcurl: client.value, python: tools.value };
      await trial.part('first steps', () => checkFirstSteps(programs, environment, board));
    }
  }
}

/** The commands of the README, word by word but for passwords and ports. */
async function checkReadme(program: string, { system }: Environment): Promise<void> {
  const readme = await readFile(join(PROJECT_FOLDER, 'README.md'), 'utf8');
  const block = /```sh\n(token\(\)[\s\S]*?)```/.exec(readme)?.[1];
  if (block === undefined) throw new Error('the README has no block with grpcurl');
  const [first, second] = system.inventory;
  const commands = block
    .replace('"password": "…"', `"password": "${system.users.alice.password}"`)
    .replace('"password": "…"', `"password": "${system.users.olga.password}"`)
    .replaceAll('127.0.0.1:50051', system.auth.address)
    .replaceAll('127.0.0.1:50052', first.address)
    .replaceAll('127.0.0.1:50054', second.address);
  const lines = commands.trimEnd().split('\n# The other instance');
  const [accepted = '', refused = ''] = lines;
  const script = `set -e\n${accepted}\necho ALL-ACCEPTED\nset +e\n# The other instance${refused} 2>&1\necho "EXIT $?"\n`;
  const shell = startProgram('bash', ['-c', script], {
    cwd: PROJECT_FOLDER,
    environment: { PATH: `${dirname(program)}:${process.env['PATH'] ?? ''}` },
  });
  await shell.line((line) => line.startsWith('EXIT '));
  const said = shell.lines.join('\n');
  board.holds(
    'grpcurl',
    'every command of the README is accepted',
    said.includes('ALL-ACCEPTED'),
    said.slice(-500),
  );
  const isRefused = said.includes('Unauthenticated') && said.includes('the access token has been revoked');
  board.holds('grpcurl', 'the last one is refused, as the README says', isRefused, said.slice(-500));
  await shell.stop();
}

function report(): void {
  const rows = trial.peers.map((one) => {
    const checks = board.checks.filter(({ peer: name }) => name.startsWith(one.name));
    const wrong = checks.filter(({ fault }) => fault !== '').length;
    return one.had
      ? [one.name, one.version, String(checks.length), String(wrong)]
      : [one.name, `not had: ${one.why}`, '–', '–'];
  });
  console.log(tableText([['program', 'version', 'checks', 'failed'], ...rows]));
  trial.printFaults(FAULTS_SHOWN_MAX);
}
