/** Proves that the lint configuration catches what it is there to catch, on a small tree that breaks every rule once. */
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const TREE = fileURLToPath(new URL('tree', import.meta.url));
const BIOME = join(ROOT, 'node_modules', '.bin', 'biome');
const CONFIGURATION = [
  'biome.json',
  '.biome',
  '.gitignore',
  'package.json',
  'interceptors/package.json',
  'gate/package.json',
];
const SOURCE_FOLDERS = ['interceptors/src', 'gate/src', 'services', 'scripts', 'proofs', 'test'];

/** The diagnostics of biome at one position. */
interface Finding {
  /** `path:line rule`, as in `services/auth/store.ts:8 noRestrictedImports`. */
  readonly place: string;
  readonly rule: string;
  readonly path: string;
  readonly message: string;
}

describe('the lint configuration', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-borders-'));
    await Promise.all(
      CONFIGURATION.map((name) => cp(join(ROOT, name), join(folder, name), { recursive: true })),
    );
    await cp(TREE, folder, { recursive: true });
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('reports every line that is marked as refused, and no other', async () => {
    // The tree's files import each other at will, and the cycles that this makes are not its subject.
    const { findings } = await lint(folder, '--skip=suspicious/noImportCycles');
    expect(findings.map(({ place }) => place).sort()).to.deep.equal((await markedLines(folder)).sort());
  });

  it('names the room in every message about a border', async () => {
    const { findings } = await lint(folder);
    const crossings = findings.filter(({ rule }) => rule === 'noRestrictedImports');
    expect(crossings).to.not.be.empty;
    for (const { path, place, message } of crossings) {
      const room = /^\/\/ room: (.+)$/m.exec(await readFile(join(folder, path), 'utf8'))?.[1];
      expect(message, place).to.match(new RegExp(`^${room}`));
    }
  });

  it('accepts the same tree without the refused lines', async () => {
    for (const path of await sourcesBelow(folder)) {
      await rewriteWithoutRefused(join(folder, path));
    }
    expect(await lint(folder)).to.deep.equal({ exitCode: 0, findings: [] });
  });

  it('finds a circle of type-only imports', async () => {
    const rooms = join(folder, 'services', 'shipping');
    await writeFile(
      join(rooms, 'parcels.ts'),
      "import type { Van } from './vans.js';\nexport interface Parcel {\n  readonly van: Van;\n}\n",
    );
    await writeFile(
      join(rooms, 'vans.ts'),
      "import type { Parcel } from './parcels.js';\nexport interface Van {\n  readonly parcels: readonly Parcel[];\n}\n",
    );
    const { findings } = await lint(folder, '--only=suspicious/noImportCycles');
    const inCircles = findings
      .map(({ path }) => path)
      .filter((path) => path.startsWith('services/shipping/'));
    expect(inCircles.sort()).to.deep.equal(['services/shipping/parcels.ts', 'services/shipping/vans.ts']);
  });

  it('assigns every source file to exactly one room, so that no override replaces another', async () => {
    const rooms = await roomsOf(join(ROOT, 'biome.json'));
    const paths = [...(await sourcesBelow(ROOT)), ...(await sourcesBelow(TREE))];
    expect(paths).to.include('interceptors/src/errors.ts');
    for (const path of paths) {
      const owners = rooms.filter((includes) => isIncluded(path, includes));
      expect(owners, path).to.have.length(1);
    }
  });
});

/** Lints the folder with the configuration that lies in it. */
async function lint(
  folder: string,
  ...options: readonly string[]
): Promise<{ exitCode: number; findings: Finding[] }> {
  const args = ['lint', '--error-on-warnings', '--max-diagnostics=none', '--reporter=json', ...options];
  const { exitCode, output } = await new Promise<{ exitCode: number; output: string }>((resolve) => {
    execFile(BIOME, args, { cwd: folder }, (error, stdout) => {
      resolve({ exitCode: typeof error?.code === 'number' ? error.code : 0, output: stdout });
    });
  });
  const report = JSON.parse(output) as Report;
  const findings = report.diagnostics.map(({ category, message, location }) => {
    const rule = category.split('/').at(-1) ?? category;
    // Faults in a file's name are reported at line 0.
    const line = Math.max(location.start.line, 1);
    return { place: `${location.path}:${line} ${rule}`, rule, path: location.path, message };
  });
  return { exitCode, findings };
}

/** The part of biome's JSON report that is read here. */
interface Report {
  readonly diagnostics: readonly {
    readonly category: string;
    readonly message: string;
    readonly location: { readonly path: string; readonly start: { readonly line: number } };
  }[];
}

async function markedLines(folder: string): Promise<string[]> {
  const marked: string[] = [];
  for (const path of await sourcesBelow(folder)) {
    const lines = (await readFile(join(folder, path), 'utf8')).split('\n');
    for (const [index, line] of lines.entries()) {
      const rules = /refused: ([\w ]+)$/.exec(line)?.[1]?.split(' ') ?? [];
      marked.push(...rules.map((rule) => `${path}:${index + 1} ${rule}`));
    }
  }
  return marked;
}

/** A file whose first line is refused is refused for its name: it goes away as a whole. */
async function rewriteWithoutRefused(file: string): Promise<void> {
  const lines = (await readFile(file, 'utf8')).split('\n');
  if (lines[0]?.includes('refused: ')) {
    await rm(file);
  } else {
    await writeFile(file, lines.filter((line) => !line.includes('// refused: ')).join('\n'));
  }
}

/** The paths of all TypeScript files in the source folders of a tree, the fixtures of this test left out. */
async function sourcesBelow(root: string): Promise<string[]> {
  const found = await Promise.all(
    SOURCE_FOLDERS.map(async (name) => {
      const entries = await readdir(join(root, name), { recursive: true, withFileTypes: true });
      return entries
        .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
        .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
        .filter((path) => !path.startsWith('test/borders/tree/'));
    }),
  );
  return found.flat();
}

async function roomsOf(configuration: string): Promise<string[][]> {
  const { overrides } = JSON.parse(await readFile(configuration, 'utf8')) as {
    overrides: { includes: string[] }[];
  };
  return overrides.map(({ includes }) => includes);
}

function isIncluded(path: string, includes: readonly string[]): boolean {
  const excluded = includes.filter((glob) => glob.startsWith('!')).map((glob) => glob.slice(1));
  const included = includes.filter((glob) => !glob.startsWith('!'));
  return included.some((glob) => matches(path, glob)) && !excluded.some((glob) => matches(path, glob));
}

/** Understands the two wildcards that the configuration uses: `**` crosses folders, `*` does not. */
function matches(path: string, glob: string): boolean {
  const pattern = glob
    .split('**')
    .map((part) => part.split('*').map(escapeRegExp).join('[^/]*'))
    .join('.*');
  return new RegExp(`^${pattern}$`).test(path);
}

function escapeRegExp(text: string): string {
  return text.replace(/[.+?^${}()|[\]\\]/g, '\\$&');
}
