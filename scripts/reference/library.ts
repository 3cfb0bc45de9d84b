/** The reference of the library: what each of its imports exports, with the first paragraph of its comment. */

import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** The import whose content changes without notice. */
const INTERNAL = './internal';

/** The condition under which package.json names sources. */
const SOURCE = 'portcullis-source';

/** `export { a, type B } from './file.js'`, and the same with `export type`. */
const RE_EXPORT = /^export (?:type )?\{([^}]+)\} from '([^']+)';/gm;

/** `export type { A }`, of what the file itself declares. */
const LOCAL_EXPORT = /^export (?:type )?\{([^}]+)\};/gm;

/** A declaration, with the comment before it. */
const DECLARATION =
  /(?:^\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n)?^(export )?(?:abstract |async )*(const|function|class|interface|type) (\w+)/gm;

/** One exported name. */
interface Export {
  readonly name: string;
  readonly kind: string;
  readonly comment: string;
}

/**
 * The page.
 *
 * @param library - the folder of the package
 * @throws Error when an exported name has no comment
 */
export async function libraryPage(library: string): Promise<string> {
  const { name, exports } = JSON.parse(await readFile(join(library, 'package.json'), 'utf8')) as {
    name: string;
    exports: Record<string, string | Record<string, string>>;
  };
  const doors = Object.entries(exports).flatMap(([path, target]) =>
    typeof target === 'string' || path === INTERNAL || path.includes('*')
      ? []
      : [{ path, source: target[SOURCE] ?? '' }],
  );
  const sections = await Promise.all(
    doors.map(async ({ path, source }) => {
      const found = await exportsOf(join(library, source));
      return section(`${name}${path.slice(1)}`, byName(found));
    }),
  );
  return `${[
    '# The library',
    '_Generated from the sources by `npm run generate`. Change the comments there._',
    `What each import of [\`${name}\`](../../interceptors/README.md) exports. Editors show the full comments and the types.`,
    ...sections,
    `\`${name}/proto/*\` are the \`.proto\` files and the code generated from them ([API](api/README.md)). ` +
      `\`${name}/internal\` is not public.`,
  ].join('\n\n')}\n`;
}

function section(title: string, exports: readonly Export[]): string {
  const rows = exports.map(
    ({ name, kind, comment }) => `| \`${name}\` | ${kind} | ${meaningOf(comment, name)} |`,
  );
  return [`## ${title}`, '', '| name | kind | meaning |', '| --- | --- | --- |', ...rows].join('\n');
}

async function exportsOf(file: string): Promise<Export[]> {
  const text = await readFile(file, 'utf8');
  const local = new Set([...text.matchAll(LOCAL_EXPORT)].flatMap(([, names = '']) => namesIn(names)));
  const own = [...text.matchAll(DECLARATION)].flatMap(([, comment = '', exported, kind = '', name = '']) =>
    exported === undefined && !local.has(name)
      ? []
      : [{ name, kind: kind === 'const' ? 'constant' : kind, comment }],
  );
  const reExported = [...text.matchAll(RE_EXPORT)].map(async ([, names = '', target = '']) => {
    const known = await exportsOf(join(dirname(file), target.replace(/\.js$/, '.ts')));
    return namesIn(names).map((name) => {
      const found = known.find((candidate) => candidate.name === name);
      if (found === undefined) throw new Error(`${file} exports ${name}, which ${target} does not declare`);
      return found;
    });
  });
  return [...own, ...(await Promise.all(reExported)).flat()];
}

function namesIn(list: string): string[] {
  return list
    .split(',')
    .map((name) => name.trim().replace(/^type /, ''))
    .filter((name) => name !== '');
}

/** The first paragraph of a comment, in one line. */
function meaningOf(comment: string, name: string): string {
  const [text = ''] = comment
    .replace(/^ *\* ?/gm, '')
    .trim()
    .split(/\n\s*\n|(?:^|\n)@/);
  if (text === '') throw new Error(`the exported ${name} has no comment`);
  return text
    .replace(/\{@link ([^}]+)\}/g, '`$1`')
    .replace(/\s+/g, ' ')
    .replaceAll('|', '\\|');
}

function byName(exports: readonly Export[]): Export[] {
  return [...exports].sort((a, b) => a.name.localeCompare(b.name, 'en'));
}
