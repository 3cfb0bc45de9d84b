/**
 * `npm run deployment`: the files of deploy/, used as an operator uses them. The chart is rendered and validated, the images
 * are built and run, and the guide for one host is followed command by command, as is the page on back-ups.
 */

import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { integerBetween } from '../shared/command-line.js';
import { formatNumber, tableText, writeFigures } from '../shared/reporting.js';
import { namesAmong, Trial } from '../shared/trial.js';
import { checkChart, validate } from './chart.js';
import { followGuide } from './guide.js';
import { buildImages, checkContents, checkFirstProcess, checkWithoutSettings, TARGETS } from './images.js';
import { ALL_BASES, type Podman } from './podman.js';
import { containers, helm, kubeconform, podmanCompose } from './tools.js';

const PARTS = ['chart', 'images', 'guide'] as const;
type Part = (typeof PARTS)[number];

interface Options {
  readonly only: readonly Part[];
  readonly short?: true;
  readonly minutes?: number;
  readonly write?: true;
  readonly allowMissing?: true;
  readonly json?: string;
}

const options = new Command('npm run deployment --')
  .description(
    'Renders and validates the chart, builds and runs the images, and follows the guide for one host and the page on back-ups.',
  )
  .option(
    '--only <names>',
    `parts to run, separated by commas: ${PARTS.join(', ')}; default: all`,
    namesAmong(PARTS),
    [...PARTS],
  )
  .option('--short', 'the chart and the image of inventory only')
  .option(
    '--minutes <number>',
    'leave out the images that are not built and checked by then',
    integerBetween(1, 60),
  )
  .option('--write', 'write the plain manifests that the chart renders')
  .option('--allow-missing', 'do not fail because a program cannot be had')
  .option('--json <file>', 'write the results to this file')
  .addHelpText(
    'after',
    `
Needs Go and Python for the chart; podman, runc and, where no registry of images is reached, debootstrap for the rest, as
root: apt-get install podman runc debootstrap. Containers use the ports of deploy/compose/compose.yaml.

Exit code: 0 when everything held and every program was had, 1 otherwise.`,
  )
  .parse()
  .opts<Options>();

const deadline = options.minutes === undefined ? undefined : AbortSignal.timeout(options.minutes * 60_000);
const isShort = options.short === true;
const trial = new Trial();
const { board } = trial;
const sizes: Record<string, number> = {};
let hasStandIns = false;

process.exitCode = (await run()) ? 0 : 1;

async function run(): Promise<boolean> {
  const folder = await makeTemporaryFolder();
  try {
    if (options.only.includes('chart')) await trial.part('chart', () => chart(folder.path));
    if (options.only.some((name) => name !== 'chart')) {
      await trial.part('containers', () => runContainers(folder.path));
    }
  } finally {
    trial.end();
    await folder.remove();
  }
  report();
  await writeFigures(options.json, { peers: trial.peers, hasStandIns, sizes, checks: board.checks });
  return trial.holds(options.allowMissing === true);
}

async function chart(folder: string): Promise<void> {
  const renderer = await trial.peer('fetching helm', helm);
  if (!renderer.had) return;
  trial.show('rendering the chart');
  const rendered = await checkChart(renderer.value, board, options.write === true);
  const validator = await trial.peer('fetching kubeconform', kubeconform);
  if (validator.had) await validate(validator.value, rendered, { folder, board });
}

async function runContainers(folder: string): Promise<void> {
  const needsServers = options.only.includes('guide') && !isShort;
  const bases = needsServers ? ALL_BASES : (['NODE_IMAGE'] as const);
  const had = await trial.peer('preparing podman and the images of others', () =>
    containers({ folder, bases, ...(deadline !== undefined && { signal: deadline }) }),
  );
  if (!had.had) return;
  const podman = had.value;
  ({ hasStandIns } = podman);
  try {
    if (options.only.includes('images')) await images(podman, folder);
  } catch (error) {
    if (deadline?.aborted !== true) throw error;
    trial.peers.push({ name: 'containers', had: false, why: `${options.minutes} minutes are over` });
  }
  if (!needsServers) return;
  const compose = await trial.peer('fetching podman-compose', podmanCompose);
  if (!compose.had) return;
  const onStep = (text: string): void => trial.show(text);
  await followGuide({ podman, compose: compose.value, folder, board, onStep });
}

async function images(podman: Podman, folder: string): Promise<void> {
  const targets = isShort ? (['inventory'] as const) : TARGETS;
  trial.show('building the images');
  await buildImages(podman, targets);
  for (const target of targets) {
    trial.show(`looking into ${target}`);
    sizes[target] = await checkContents(podman, target, board);
    await checkWithoutSettings(podman, target, board);
  }
  trial.show('running inventory as a first process');
  const { privateKey } = generateKeyPairSync('ed25519');
  const key = privateKey.export({ format: 'pem', type: 'pkcs8' });
  await writeFile(join(folder, 'key.pem'), key, { mode: 0o644 });
  await checkFirstProcess(podman, folder, board);
}

function report(): void {
  console.log(
    tableText([
      ['program', 'version'],
      ...trial.peers.map((one) => [one.name, one.had ? one.version : `not had: ${one.why}`]),
    ]),
  );
  if (hasStandIns) {
    console.log(
      '\nNo registry of images was reached. The images of others are stand-ins, made from packages of Debian and npm; those that deploy/ names did not run.',
    );
  }
  console.log(
    '\nNot run: manifests on a cluster, the unit of systemd, and health checks as Docker schedules them.',
  );
  const rows = Object.entries(sizes).map(([name, bytes]) => [name, `${formatNumber(bytes / 1024 ** 2)} MiB`]);
  if (rows.length > 0) console.log(`\n${tableText([['image', 'size'], ...rows])}`);
  trial.printFaults();
}
