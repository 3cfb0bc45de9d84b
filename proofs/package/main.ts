/**
 * `npm run package`: the packages. Packs the library, checks it, runs the examples from the tarball, and runs the system
 * from its package.
 */

import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Command } from 'commander';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { createProgress, formatNumber, tableText, writeFigures } from '../shared/reporting.js';
import {
  followPage,
  followTutorial,
  type Packages,
  type PageOptions,
  type TutorialFigures,
} from './pages.js';
import { exampleNames, fetchNode, install, type NodeVersion, type Project, test } from './projects.js';
import { trySystem } from './system.js';
import {
  packCommandLine,
  packElsewhere,
  packGate,
  packHere,
  packSystem,
  publintFaults,
  type Tarball,
  typeFaults,
} from './tarball.js';

/** The major versions of Node that the package supports. */
const NODES = [20, 22, 24, 26];

interface Options {
  readonly nodes: readonly number[];
  readonly only: readonly string[];
  readonly out?: string;
  readonly json?: string;
}

/** The name of the tutorial among the examples. */
const TUTORIAL = 'tutorial';
const TUTORIAL_PAGE = join(PROJECT_FOLDER, 'docs', 'tutorial.md');

/** The name of the system's package among the examples. */
const SYSTEM = 'system';

/** Examples whose README is followed, too. */
const WITH_PAGE = ['mesh'];

/** What the tutorial may take. */
const TUTORIAL_SECONDS_MAX = 300;
const TUTORIAL_COMMANDS_MAX = 6;
const GUARD_LINES_MAX = 15;

const numbers = (text: string): number[] => text.split(',').map(Number);
const words = (text: string): string[] => text.split(',');

const options = new Command('npm run package --')
  .description(
    'Packs the packages, checks the library, and runs the examples and the system from them outside of the repository.',
  )
  .option('--nodes <majors>', 'Nodes to run the examples with, separated by commas', numbers, NODES)
  .option(
    '--only <names>',
    'examples to run, tutorial and system, separated by commas; default: all',
    words,
    [],
  )
  .option(
    '--out <folder>',
    'only write the tarballs of the library, the gate, the command line and the system to a folder',
  )
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
  if (options.out === undefined) await checkPackage();
  else await writeTarballs(options.out);
} finally {
  progress.end();
  await rm(folder, { recursive: true, force: true });
}

async function writeTarballs(out: string): Promise<void> {
  await mkdir(out, { recursive: true });
  for (const pack of [packHere, packGate, packCommandLine, packSystem]) {
    const { file } = await pack(folder);
    await cp(file, join(out, basename(file)));
    write(join(out, basename(file)));
  }
}

async function checkPackage(): Promise<void> {
  const { tarball, checks, tutorial } = await checkAll();
  progress.end();
  print(tarball, checks);
  if (tutorial !== undefined) {
    const { seconds, commands, guardLines } = tutorial;
    write(
      `\nThe tutorial took ${formatNumber(seconds)} s, ${commands} commands until the service ran, and ${guardLines} lines of guard.`,
    );
  }
  await writeFigures(options.json, {
    package: { ...tarball, file: undefined },
    tutorial,
    checks: Object.fromEntries(checks.map(({ name, faults }) => [name, faults])),
  });
  process.exitCode = checks.every(({ faults }) => faults.length === 0) ? 0 : 1;
}

interface Checked {
  readonly tarball: Tarball;
  readonly checks: readonly Check[];
  readonly tutorial: TutorialFigures | undefined;
}

async function checkAll(): Promise<Checked> {
  const withTutorial = options.only.length === 0 || options.only.includes(TUTORIAL);
  const names = (await exampleNames()).filter(
    (name) => options.only.length === 0 || options.only.includes(name),
  );
  const withSystem = options.only.length === 0 || options.only.includes(SYSTEM);
  const pages = names.filter((name) => WITH_PAGE.includes(name));
  const of =
    3 +
    names.length +
    options.nodes.length * (1 + names.length) +
    1 +
    pages.length +
    Number(withTutorial) +
    Number(withSystem);
  let done = 0;
  const step = async <Result>(text: string, work: () => Promise<Result>): Promise<Result> => {
    progress.show(done, of, text);
    const result = await work();
    done += 1;
    return result;
  };
  const show = (name: string) => (text: string) => progress.show(done, of, `${name}: ${text}`);
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
  if (pages.length === 0 && !withTutorial && !withSystem) return { tarball, checks, tutorial: undefined };
  const packages = await step('packing the command line', () => packagesWith(tarball));
  if (withSystem) checks.push(await step('the system', () => checkSystem(packages, show(SYSTEM))));
  const optionsOf = (name: string) => pageOptions(name, packages, show(name));
  for (const name of pages) {
    const project = join(folder, name);
    const { faults } = await step(`${name}: following its page`, () =>
      outcomeOf(() => followPage({ ...optionsOf(name), page: join(project, 'README.md'), project })),
    );
    checks.push({ name: `the page of ${name}`, faults });
  }
  if (!withTutorial) return { tarball, checks, tutorial: undefined };
  const project = join(folder, TUTORIAL, 'greeter');
  const followed = await step('following the tutorial', () =>
    outcomeOf(() => followTutorial({ ...optionsOf(TUTORIAL), page: TUTORIAL_PAGE, project })),
  );
  checks.push({ name: 'the tutorial', faults: [...followed.faults, ...excessesOf(followed.result)] });
  return { tarball, checks, tutorial: followed.result };
}

async function packagesWith({ file }: Tarball): Promise<Packages> {
  const gate = await packGate(folder);
  const commandLine = await packCommandLine(folder);
  return { '@portcullis/guard': file, '@portcullis/gate': gate.file, portcullis: commandLine.file };
}

async function checkSystem(packages: Packages, onStep: (text: string) => void): Promise<Check> {
  const { file } = await packSystem(folder);
  const { result = [], faults } = await outcomeOf(() =>
    trySystem({
      packages: { ...packages, '@portcullis/system': file },
      environment: environmentOutside(),
      onStep,
    }),
  );
  return { name: 'the system runs from its package', faults: [...result, ...faults] };
}

/** npm tells its children where the project is that runs them; a page begins outside of any. */
function environmentOutside(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([variable]) => !variable.startsWith('npm_')));
}

/** What all pages need. Each keeps what it leaves in a folder of its own. */
function pageOptions(
  name: string,
  packages: Packages,
  onStep: (text: string) => void,
): Omit<PageOptions, 'page' | 'project'> {
  return {
    folder: join(folder, `${name}-system`),
    packages,
    environment: environmentOutside(),
    onStep,
  };
}

function excessesOf(figures: TutorialFigures | undefined): string[] {
  if (figures === undefined) return [];
  const { seconds, commands, guardLines } = figures;
  return [
    ...(seconds > TUTORIAL_SECONDS_MAX ? [`took ${seconds} s, and should take ${TUTORIAL_SECONDS_MAX}`] : []),
    ...(commands > TUTORIAL_COMMANDS_MAX
      ? [`has ${commands} commands, and should have ${TUTORIAL_COMMANDS_MAX}`]
      : []),
    ...(guardLines > GUARD_LINES_MAX
      ? [`has ${guardLines} lines of guard, and should have ${GUARD_LINES_MAX}`]
      : []),
  ];
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
