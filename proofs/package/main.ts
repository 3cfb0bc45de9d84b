/** `npm run package`: the library as a package. Packs it, checks it, and runs the examples from the tarball. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { createProgress, formatNumber, tableText, writeFigures } from '../shared/reporting.js';
import { exampleNames, fetchNode, install, type NodeVersion, type Project, test } from './projects.js';
import { packElsewhere, packHere, publintFaults, type Tarball, typeFaults } from './tarball.js';

/** The major versions of Node that the package supports. */
const NODES = [20, 22, 24, 26];

interface Options {
  readonly nodes: readonly number[];
  readonly only: readonly string[];
  readonly json?: string;
}

const numbers = (text: string): number[] => text.split(',').map(Number);
const words = (text: string): string[] => text.split(',');

const options = new Command('npm run package --')
  .description(
    'Packs the library, checks the package, and runs the examples from it outside of the repository.',
  )
  .option('--nodes <majors>', 'Nodes to run the examples with, separated by commas', numbers, NODES)
  .option('--only <names>', 'examples to run, separated by commas; default: all', words, [])
  .option('--json <file>', 'where to write the figures')
  .addHelpText('after', '\nExit code: 0 when nothing was found and all tests passed, 1 otherwise.')
  .parse()
  .opts<Options>();

/** One line of the result. */
interface Check {
  readonly name: string;
  readonly faults: readonly string[];
}

const folder = await mkdtemp(join(tmpdir(), 'portcullis-package-'));
const progress = createProgress(process.stdout);
try {
  const { tarball, checks } = await checkAll();
  progress.end();
  print(tarball, checks);
  await writeFigures(options.json, {
    package: { ...tarball, file: undefined },
    checks: Object.fromEntries(checks.map(({ name, faults }) => [name, faults])),
  });
  process.exitCode = checks.every(({ faults }) => faults.length === 0) ? 0 : 1;
} finally {
  progress.end();
  await rm(folder, { recursive: true, force: true });
}

async function checkAll(): Promise<{ tarball: Tarball; checks: Check[] }> {
  const names = (await exampleNames()).filter(
    (name) => options.only.length === 0 || options.only.includes(name),
  );
  const of = 4 + names.length + options.nodes.length * (1 + names.length);
  let done = 0;
  const step = async <Result>(text: string, work: () => Promise<Result>): Promise<Result> => {
    progress.show(done, of, text);
    const result = await work();
    done += 1;
    return result;
  };
  const tarball = await step('packing', () => packHere(folder));
  const again = await step('packing a copy of the sources', () => packElsewhere(folder));
  const checks: Check[] = [
    {
      name: 'the same sources give the same bytes',
      faults: again.sha256 === tarball.sha256 ? [] : [`${tarball.sha256} here, ${again.sha256} elsewhere`],
    },
    { name: 'publint', faults: await step('publint', publintFaults) },
    { name: 'types resolve', faults: await step('arethetypeswrong', () => typeFaults(tarball)) },
  ];
  const nodes: NodeVersion[] = [];
  for (const major of options.nodes) {
    nodes.push(await step(`fetching Node ${major}`, () => fetchNode(major, folder)));
  }
  for (const name of names) {
    const installed = await step(`${name}: installing`, () =>
      outcomeOf(() => install(name, tarball.file, folder)),
    );
    checks.push({ name: `${name} installs and compiles`, faults: installed.faults });
    const { result: project } = installed;
    if (project === undefined) continue;
    for (const node of nodes) {
      checks.push(await step(`${name}: testing with Node ${node.version}`, () => testWith(project, node)));
    }
  }
  return { tarball, checks };
}

async function testWith(project: Project, node: NodeVersion): Promise<Check> {
  const { faults } = await outcomeOf(() => test(project, node, process.env));
  return { name: `${project.name} with Node ${node.version}`, faults };
}

async function outcomeOf<Result>(
  work: () => Promise<Result>,
): Promise<{ result?: Result; faults: readonly string[] }> {
  try {
    return { result: await work(), faults: [] };
  } catch (error) {
    return { faults: [error instanceof Error ? error.message : String(error)] };
  }
}

function print({ bytes, unpackedBytes, files }: Tarball, checks: readonly Check[]): void {
  write(
    `${formatNumber(bytes / 1000)} kB packed, ${formatNumber(unpackedBytes / 1000)} kB unpacked, ${files} files\n`,
  );
  write(
    tableText([
      ['check', ''],
      ...checks.map(({ name, faults }) => [name, faults.length === 0 ? 'holds' : 'FAILED']),
    ]),
  );
  for (const { name, faults } of checks) for (const fault of faults) write(`\n${name}:\n${fault}`);
}

function write(line: string): void {
  process.stdout.write(`${line}\n`);
}
