/**
 * `npm run deployment`: the files of deploy/, used as an operator uses them. The chart is rendered and validated, the images
 * are built and run, and the guide for one host is followed command by command.
 */

import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { Board } from '../shared/board.js';
import { stopSignal } from '../shared/command-line.js';
import type { Peer } from '../shared/programs.js';
import { createProgress, formatNumber, tableText, writeFigures } from '../shared/reporting.js';
import { checkChart, validate } from './chart.js';
import { followGuide } from './guide.js';
import { buildImages, checkContents, checkFirstProcess, checkWithoutSettings, TARGETS } from './images.js';
import { openPodman } from './podman.js';
import { containers, helm, kubeconform } from './tools.js';

const PARTS = ['chart', 'images', 'guide'] as const;
type Part = (typeof PARTS)[number];

interface Options {
  readonly only: readonly Part[];
  readonly write?: true;
  readonly allowMissing?: true;
  readonly json?: string;
}

const partsIn = (text: string): Part[] =>
  text.split(',').map((word) => {
    const part = PARTS.find((name) => name === word.trim());
    if (part === undefined) throw new Error(`expected some of ${PARTS.join(', ')}`);
    return part;
  });

const options = new Command('npm run deployment --')
  .description(
    'Renders and validates the chart, builds and runs the images, and follows the guide for one host.',
  )
  .option('--only <names>', `parts to run, separated by commas: ${PARTS.join(', ')}; default: all`, partsIn, [
    ...PARTS,
  ])
  .option('--write', 'write the plain manifests that the chart renders')
  .option('--allow-missing', 'do not fail because a program cannot be had')
  .option('--json <file>', 'write the results to this file')
  .addHelpText('after', '\nExit code: 0 when everything held and every program was had, 1 otherwise.')
  .parse()
  .opts<Options>();

const stopping = stopSignal();
const progress = createProgress(process.stdout);
const board = new Board();
const peers: Peer<unknown>[] = [];
const sizes: Record<string, number> = {};
let hasStandIns = false;

process.exitCode = (await run()) ? 0 : 1;

async function run(): Promise<boolean> {
  const folder = await makeTemporaryFolder();
  try {
    if (options.only.includes('chart')) await part('chart', () => chart(folder.path));
    if (options.only.includes('images') || options.only.includes('guide')) {
      await part('containers', () => runContainers(folder.path));
    }
  } finally {
    progress.end();
    await folder.remove();
  }
  report();
  await writeFigures(options.json, { peers, hasStandIns, sizes, checks: board.checks });
  const isComplete = options.allowMissing === true || peers.every(({ had }) => had);
  return isComplete && board.faults.length === 0;
}

async function chart(folder: string): Promise<void> {
  const renderer = await peer('fetching helm', helm);
  if (!renderer.had) return;
  show('rendering the chart');
  const rendered = await checkChart(renderer.value, board, options.write === true);
  const validator = await peer('fetching kubeconform', kubeconform);
  if (validator.had) await validate(validator.value, rendered, { folder, board });
}

async function runContainers(folder: string): Promise<void> {
  const had = await peer('looking for podman', containers);
  if (!had.had) return;
  show('preparing the images of others');
  const podman = await openPodman(had.value.podman, folder);
  ({ hasStandIns } = podman);
  if (options.only.includes('images')) {
    show('building the images');
    await buildImages(podman);
    for (const target of TARGETS) {
      show(`looking into ${target}`);
      sizes[target] = await checkContents(podman, target, board);
      await checkWithoutSettings(podman, target, board);
    }
    show('running inventory as a first process');
    const { privateKey } = generateKeyPairSync('ed25519');
    const key = privateKey.export({ format: 'pem', type: 'pkcs8' });
    await writeFile(join(folder, 'key.pem'), key, { mode: 0o644 });
    await checkFirstProcess(podman, folder, board);
  }
  if (options.only.includes('guide')) {
    await followGuide({ podman, programs: had.value, folder, board, onStep: show });
  }
}

async function peer<Value>(doing: string, get: () => Promise<Peer<Value>>): Promise<Peer<Value>> {
  show(doing);
  const had = await get();
  peers.push(had);
  return had;
}

async function part(name: string, work: () => Promise<void>): Promise<void> {
  await work().catch((error: unknown) => board.failed(name, error));
}

function show(text: string): void {
  stopping.throwIfAborted();
  progress.show(0, 0, text);
}

function report(): void {
  console.log(
    tableText([
      ['program', 'version'],
      ...peers.map((one) => [one.name, one.had ? one.version : `not had: ${one.why}`]),
    ]),
  );
  if (hasStandIns) {
    console.log(
      '\nNo registry of images was reached: the images of others are stand-ins, made from packages of Debian and npm.',
    );
  }
  const rows = Object.entries(sizes).map(([name, bytes]) => [name, `${formatNumber(bytes / 1024 ** 2)} MiB`]);
  if (rows.length > 0) console.log(`\n${tableText([['image', 'size'], ...rows])}`);
  const { faults } = board;
  for (const { peer: name, name: check, fault } of faults) console.log(`\n${name}: ${check}\n  ${fault}`);
  console.log(`\n${board.checks.length - faults.length} of ${board.checks.length} checks held.`);
}
