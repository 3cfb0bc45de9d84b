/**
 * `npm run package`: the packages. Packs the library, checks it, runs the examples from the tarball, and runs the system
 * from its package.
 */

import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Command } from 'commander';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { createProgress, formatNumber, tableText, writeFigures } from '../shared/reporting.js';
import { followPage, type Packages, type PageFigures, type PageOptions } from './pages.js';
import { exampleNames, fetchNode, install, type NodeVersion, type Project, test } from './projects.js';
import { trySystem } from './system.js';
import {
  packCommandLine,
  packElsewhere,
  packGate,
  packHere,
  packSystem,
  publintFaults,
  sizeFaults,
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
const WITH_PAGE = ['mesh', 'nestjs', 'nice-grpc'];

/**
 * Examples that each Node installs, generates and compiles in an empty folder. Of the others, the first Node does that,
 * because it takes minutes.
 */
const INSTALLED_BY_EACH_NODE = ['greeter'];

/** What a page may take. */
const PAGE_SECONDS_MAX = 300;
const GUARD_LINES_MAX = 15;

/** Until a service runs. */
const COMMANDS_MAX = 6;

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
  const { tarball, checks, pages } = await checkAll();
  progress.end();
  print(tarball, checks);
  for (const [name, { seconds, commands, guardLines }] of pages) {
    write(
      `\n${name}: ${formatNumber(seconds)} s, ${commands} commands until a service ran, ${guardLines} lines for a guard`,
    );
  }
  await writeFigures(options.json, {
    package: { ...tarball, file: undefined },
    pages: Object.fromEntries(pages),
    checks: Object.fromEntries(checks.map(({ name, faults }) => [name, faults])),
  });
  process.exitCode = checks.every(({ faults }) => faults.length === 0) ? 0 : 1;
}

/** Shows what is done while it is done. */
type RunStep = <Result>(text: string, work: () => Promise<Result>) => Promise<Result>;

interface Checked {
  readonly tarball: Tarball;
  readonly checks: readonly Check[];
  /** What the pages took that could be followed, by their names. */
  readonly pages: ReadonlyMap<string, PageFigures>;
}

async function checkAll(): Promise<Checked> {
  const withTutorial = options.only.length === 0 || options.only.includes(TUTORIAL);
  const names = (await exampleNames()).filter(
    (name) => options.only.length === 0 || options.only.includes(name),
  );
  const withSystem = options.only.length === 0 || options.only.includes(SYSTEM);
  const pages = names.filter((name) => WITH_PAGE.includes(name));
  const installations = names.map((name) =>
    INSTALLED_BY_EACH_NODE.includes(name) ? options.nodes.length : 1,
  );
  const of =
    3 +
    installations.reduce((sum, count) => sum + count, 0) +
    options.nodes.length * (1 + names.length) +
    1 +
    pages.length +
    Number(withTutorial) +
    Number(withSystem);
  let done = 0;
  const step: RunStep = async (text, work) => {
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
    { name: 'the README states the sizes', faults: await sizeFaults(tarball) },
    { name: 'types resolve', faults: await step('arethetypeswrong', () => typeFaults(tarball)) },
  ];
  const nodes: NodeVersion[] = [];
  for (const major of options.nodes) {
    nodes.push(await step(`fetching Node ${major}`, () => fetchNode(major, folder)));
  }
  for (const name of names) checks.push(...(await checkExample(name, nodes, { tarball, step })));
  const figures = new Map<string, PageFigures>();
  if (pages.length === 0 && !withTutorial && !withSystem) return { tarball, checks, pages: figures };
  const packages = await step('packing the command line', () => packagesWith(tarball));
  if (withSystem) checks.push(await step('the system', () => checkSystem(packages, show(SYSTEM))));
  const follow = async (name: string, page: string, project: string): Promise<PageFigures | undefined> => {
    const { result, faults } = await step(`${name}: following its page`, () =>
      outcomeOf(() => followPage({ ...pageOptions(name, packages, show(name)), page, project })),
    );
    checks.push({ name: `${name}: the page`, faults: [...faults, ...excessesOf(result)] });
    if (result !== undefined) figures.set(name, result);
    return result;
  };
  for (const name of pages) await follow(name, join(projectFolder(name), 'README.md'), projectFolder(name));
  if (withTutorial) {
    const result = await follow(TUTORIAL, TUTORIAL_PAGE, join(folder, TUTORIAL, 'greeter'));
    checks.push({ name: 'the tutorial states its commands', faults: await countFaults(result) });
  }
  return { tarball, checks, pages: figures };
}

/** Installs an example and runs its tests, with every Node. */
async function checkExample(
  name: string,
  nodes: readonly NodeVersion[],
  { tarball, step }: { readonly tarball: Tarball; readonly step: RunStep },
): Promise<Check[]> {
  const checks: Check[] = [];
  let project: Project | undefined;
  for (const node of nodes) {
    const { version } = node;
    if (project === undefined || INSTALLED_BY_EACH_NODE.includes(name)) {
      const copy = node === nodes[0] ? projectFolder(name) : `${projectFolder(name)}-${version}`;
      const { result, faults } = await step(`${name}: installing with Node ${version}`, () =>
        outcomeOf(() =>
          install(name, { tarball: tarball.file, folder: copy, node, environment: process.env }),
        ),
      );
      checks.push({ name: `${name} installs and compiles with Node ${version}`, faults });
      project = result;
    }
    if (project === undefined) continue;
    const installed = project;
    checks.push(await step(`${name}: testing with Node ${version}`, () => testWith(installed, node)));
  }
  return checks;
}

/** Where the copy of an example is made. */
function projectFolder(name: string): string {
  return join(folder, name);
}

/** What the tutorial says about the number of its commands, and is not so. */
async function countFaults(figures: PageFigures | undefined): Promise<string[]> {
  if (figures === undefined) return [];
  const stated = `${figures.commands} commands until the service runs`;
  return (await readFile(TUTORIAL_PAGE, 'utf8')).includes(stated) ? [] : [`does not state "${stated}"`];
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

function excessesOf(figures: PageFigures | undefined): string[] {
  if (figures === undefined) return [];
  const { seconds, commands, guardLines } = figures;
  return [
    ...(seconds > PAGE_SECONDS_MAX ? [`took ${seconds} s, and should take ${PAGE_SECONDS_MAX}`] : []),
    ...(commands > COMMANDS_MAX ? [`has ${commands} commands, and should have ${COMMANDS_MAX}`] : []),
    ...(guardLines > GUARD_LINES_MAX
      ? [`has ${guardLines} lines for a guard, and should have ${GUARD_LINES_MAX}`]
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
