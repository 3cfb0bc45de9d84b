/**
 * The reference of the library: what each of its imports exports, with its declaration, and what the comments say of it and
 * of its members. The compiler writes the declarations; this file puts them in order.
 */

import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  type Declaration,
  exportsIn,
  importsIn,
  parseDeclarations,
  withoutComments,
} from './declarations.js';
import { blockOf, type Comment, cellOf, type LinkTo, parseComment } from './doc-comments.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const MODULES = join(ROOT, 'node_modules');
const COMPILER = join(MODULES, 'typescript', 'bin', 'tsc');
const FORMATTER = join(MODULES, '@biomejs', 'biome', 'bin', 'biome');

/** The import whose content changes without notice. */
const INTERNAL = './internal';

/** The condition under which package.json names sources. */
const SOURCE = 'portcullis-source';

const COMPILER_OPTIONS = [
  '--ignoreConfig',
  '--noCheck',
  '--declaration',
  '--emitDeclarationOnly',
  '--strict',
  '--exactOptionalPropertyTypes',
  ...['--target', 'es2023', '--module', 'nodenext', '--types', 'node'],
];
/** As in biome.json, which a copy of the project need not have. */
const FORMATTER_OPTIONS = [
  '--indent-style=space',
  '--indent-width=2',
  '--line-width=110',
  '--javascript-formatter-quote-style=single',
];

/** Between two declarations while they are formatted. */
const SEPARATOR = '// ---\n';

/** One import of the package. */
interface Door {
  readonly title: string;
  readonly exports: readonly Export[];
}

/** One exported name. */
interface Export {
  readonly declaration: Declaration;
  /** What it names, directly or not, and no import exports. */
  readonly helpers: readonly Declaration[];
}

/** An export with its place in the page. */
interface Entry extends Export {
  readonly comment: Comment;
  readonly anchor: string;
}

/**
 * The page.
 *
 * @param library - the folder of the package
 * @throws Error when the sources do not compile, or an exported name has no comment
 */
export async function libraryPage(library: string): Promise<string> {
  const { name, exports } = JSON.parse(await readFile(join(library, 'package.json'), 'utf8')) as {
    name: string;
    exports: Record<string, string | Record<string, string>>;
  };
  const paths = Object.entries(exports).flatMap(([path, target]) =>
    typeof target === 'string' || path === INTERNAL || path.includes('*')
      ? []
      : [{ title: `${name}${path.slice(1)}`, source: target[SOURCE] ?? '' }],
  );
  const folder = await mkdtemp(join(tmpdir(), 'portcullis-declarations-'));
  let doors: Door[];
  try {
    await compile(
      library,
      folder,
      paths.map(({ source }) => source),
    );
    doors = doorsIn(folder, paths);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return `${[
    '# The library',
    '_Generated from the sources by `npm run generate`. Change the comments there._',
    `What each import of [\`${name}\`](../../interceptors/README.md) exports: its declaration, and what its members mean.`,
    ...(await sectionsOf(doors)),
    `\`${name}/proto/*\` are the \`.proto\` files and the code generated from them ([API](api/README.md)). ` +
      `\`${name}/internal\` is not public.`,
  ].join('\n\n')}\n`;
}

/** Writes the declarations of the sources and of all that they import. @throws Error with what the compiler said */
async function compile(library: string, folder: string, sources: readonly string[]): Promise<void> {
  const places = ['--typeRoots', join(MODULES, '@types'), '--rootDir', library, '--outDir', folder];
  const files = sources.map((source) => join(library, source));
  try {
    await promisify(execFile)(process.execPath, [COMPILER, ...COMPILER_OPTIONS, ...places, ...files]);
  } catch (error) {
    const { stdout = '' } = error as { stdout?: string };
    throw new Error(`the library does not compile\n${stdout}`.trimEnd(), { cause: error });
  }
}

function doorsIn(
  folder: string,
  paths: readonly { readonly title: string; readonly source: string }[],
): Door[] {
  const files = new DeclarationFiles();
  const found = paths.map(({ title, source }) => ({
    title,
    exported: files.exportsOf(join(folder, declarationFileOf(source))),
  }));
  const shown = new Set(found.flatMap(({ exported }) => exported));
  return found.map(({ title, exported }) => ({
    title,
    exports: exported
      .map((declaration) => ({ declaration, helpers: helpersOf(declaration, files, shown) }))
      .sort((a, b) => a.declaration.name.localeCompare(b.declaration.name, 'en')),
  }));
}

function declarationFileOf(source: string): string {
  return source.replace(/\.[jt]s$/, '.d.ts');
}

/** The files that the compiler wrote, each read once. */
class DeclarationFiles {
  readonly #files = new Map<string, { text: string; declarations: ReadonlyMap<string, Declaration> }>();
  readonly #fileOf = new Map<Declaration, string>();

  /** @throws Error when a name is not declared where the file says */
  exportsOf(file: string): Declaration[] {
    return exportsIn(this.#read(file).text).map(({ name, from }) => {
      const target = from === undefined ? file : join(dirname(file), declarationFileOf(from));
      const declaration = this.#read(target).declarations.get(name);
      if (declaration === undefined)
        throw new Error(`${file} exports ${name}, which ${target} does not declare`);
      return declaration;
    });
  }

  /** What the name means where the declaration stands; undefined when it is none of the library, or generated. */
  lookUp(name: string, declaration: Declaration): Declaration | undefined {
    const file = this.#fileOf.get(declaration) ?? '';
    const { text, declarations } = this.#read(file);
    const own = declarations.get(name);
    if (own !== undefined) return own;
    const { from } = importsIn(text).find((imported) => imported.name === name) ?? {};
    if (from?.includes('/gen/') !== false) return undefined;
    const imported = this.#read(join(dirname(file), declarationFileOf(from))).declarations.get(name);
    return imported?.kind === 'class' ? undefined : imported;
  }

  #read(file: string): { text: string; declarations: ReadonlyMap<string, Declaration> } {
    const known = this.#files.get(file);
    if (known !== undefined) return known;
    const text = readFileSync(file, 'utf8');
    const read = { text, declarations: parseDeclarations(text) };
    this.#files.set(file, read);
    for (const declaration of read.declarations.values()) this.#fileOf.set(declaration, file);
    return read;
  }
}

/** The declarations that this one names, and those that they name, unless they have a heading. */
function helpersOf(
  declaration: Declaration,
  files: DeclarationFiles,
  shown: ReadonlySet<Declaration>,
): Declaration[] {
  const helpers = new Set<Declaration>();
  const pending = [declaration];
  for (let current = pending.pop(); current !== undefined; current = pending.pop()) {
    const code = withoutComments(current.code).replace(/'[^'\n]*'|"[^"\n]*"/g, '');
    for (const [word] of code.matchAll(/\b[A-Za-z_]\w*\b(?!\??[:(])/g)) {
      const named = files.lookUp(word, current);
      if (named === undefined || named === declaration || shown.has(named) || helpers.has(named)) continue;
      helpers.add(named);
      pending.push(named);
    }
  }
  return [...helpers];
}

async function sectionsOf(doors: readonly Door[]): Promise<string[]> {
  const anchors = new Map<string, number>();
  const anchorFor = (heading: string): string => {
    const base = heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-');
    const count = anchors.get(base) ?? 0;
    anchors.set(base, count + 1);
    return count === 0 ? base : `${base}-${count}`;
  };
  anchorFor('The library');
  const placed = new Map<Declaration, Entry>();
  const sections = doors.map(({ title, exports }) => {
    anchorFor(title);
    const own: Entry[] = [];
    const repeated: Entry[] = [];
    for (const one of exports) {
      const { name, comment } = one.declaration;
      const known = placed.get(one.declaration);
      if (known !== undefined) {
        repeated.push(known);
        continue;
      }
      if (comment === '') throw new Error(`the exported ${name} has no comment`);
      const entry = { ...one, comment: parseComment(comment), anchor: anchorFor(name) };
      placed.set(one.declaration, entry);
      own.push(entry);
    }
    return { title, own, repeated };
  });
  const byName = new Map([...placed.values()].map((entry) => [entry.declaration.name, entry.anchor]));
  const linkTo: LinkTo = (name) => byName.get(name);
  const all = [...placed.values()];
  const codes = await formatted(all.map(codeOf));
  const codeByEntry = new Map(all.map((entry, index) => [entry, codes[index] ?? '']));
  return sections.flatMap(({ title, own, repeated }) => [
    `## ${title}`,
    overview(own, repeated),
    ...own.map((entry) => entryText(entry, codeByEntry.get(entry) ?? '', linkTo)),
  ]);
}

function overview(own: readonly Entry[], repeated: readonly Entry[]): string {
  const rows = [
    ['Functions', own.filter(({ declaration }) => declaration.kind === 'function')],
    ['Classes', own.filter(({ declaration }) => declaration.kind === 'class')],
    ['Types', own.filter(({ declaration }) => ['interface', 'type'].includes(declaration.kind))],
    ['Constants', own.filter(({ declaration }) => declaration.kind === 'const')],
    ['Described above', repeated],
  ] as const;
  return rows
    .filter(([, entries]) => entries.length > 0)
    .map(
      ([title, entries]) =>
        `- ${title}: ${entries.map(({ anchor, declaration: { name } }) => `[\`${name}\`](#${anchor})`).join(', ')}`,
    )
    .join('\n');
}

function entryText({ declaration, helpers, comment }: Entry, code: string, linkTo: LinkTo): string {
  const members = [
    ...declaration.members,
    ...helpers.flatMap(({ name, members }) =>
      members.map((member) => ({ ...member, path: `${name}.${member.path}` })),
    ),
  ];
  const rows = members.map((member) => {
    const { meaning, byDefault } = cellOf(parseComment(member.comment), linkTo);
    return { name: member.path, byDefault, meaning };
  });
  const bases = declaration.bases
    .map((base) => linkTo(base))
    .flatMap((anchor, index) =>
      anchor === undefined ? [] : [`[\`${declaration.bases[index]}\`](#${anchor})`],
    );
  const hasDefaults = rows.some(({ byDefault }) => byDefault !== '');
  const table = rows.map(({ name, byDefault, meaning }) =>
    hasDefaults ? `| \`${name}\` | ${byDefault} | ${meaning} |` : `| \`${name}\` | ${meaning} |`,
  );
  const head = hasDefaults
    ? ['| member | default | meaning |', '| --- | --- | --- |']
    : ['| member | meaning |', '| --- | --- |'];
  return [
    `### ${declaration.name}`,
    '',
    '```ts',
    code,
    '```',
    '',
    blockOf(comment, linkTo),
    ...(bases.length === 0 ? [] : ['', `It also has the members of ${bases.join(' and ')}.`]),
    ...(table.length === 0 ? [] : ['', ...head, ...table]),
  ].join('\n');
}

function codeOf({ declaration, helpers }: Entry): string {
  return [declaration, ...helpers].map(({ code }) => withoutComments(code)).join('\n\n');
}

/** The pieces of code as the formatter writes them. @throws Error with what the formatter said */
async function formatted(codes: readonly string[]): Promise<string[]> {
  if (codes.length === 0) return [];
  const words = [FORMATTER, 'format', ...FORMATTER_OPTIONS, '--stdin-file-path=library.d.ts'];
  const child = spawn(process.execPath, words, { cwd: ROOT, stdio: ['pipe', 'pipe', 'pipe'] });
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  child.stdin.end(codes.join(`\n${SEPARATOR}`));
  const [code, output, errors] = await Promise.all([exited, textOf(child.stdout), textOf(child.stderr)]);
  if (code !== 0) throw new Error(`the declarations could not be formatted\n${errors}`.trimEnd());
  return output.split(SEPARATOR).map((piece) => piece.trim());
}
