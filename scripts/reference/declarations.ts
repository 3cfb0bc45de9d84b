/** Reads declaration files as the compiler writes them: one statement after the other, members indented by four spaces. */

/** What a statement declares. */
export interface Declaration {
  readonly name: string;
  readonly kind: 'const' | 'function' | 'class' | 'interface' | 'type';
  /** The comment, without its marks; empty when there is none. */
  readonly comment: string;
  /** The statement, without `export` and `declare`. */
  readonly code: string;
  /** The names after `extends` of an interface or a class. */
  readonly bases: readonly string[];
  /** The members that have a comment. */
  readonly members: readonly Member[];
}

/** A member of a declaration, or of an object type within it. */
interface Member {
  /** The names that lead to it, joined by dots. */
  readonly path: string;
  readonly comment: string;
}

/** A name that a file exports or imports, and the file that declares it; undefined: the file itself. */
export interface ListedName {
  readonly name: string;
  readonly from: string | undefined;
}

const STATEMENT =
  /^(?:export )?(?:declare )?(?:abstract )?(const|function|class|interface|type) (\w+)[\s\S]*/;

/** `export { a, type B } from './file.js'`, and `export type { A }`, of what the file itself declares. */
const EXPORT_LIST = /^export (?:type )?\{([^}]*)\}(?: from '([^']+)')?;/gm;

/** `import { a, type B } from './file.js'`, of the files of the library itself. */
const IMPORT_LIST = /^import (?:type )?\{([^}]*)\} from '(\.[^']+)';/gm;

const EXPORTED = /^export (?:declare )?(?:abstract )?(?:const|function|class|interface|type) (\w+)/gm;

const COMMENT = /^ *\/\*\*[\s\S]*?\*\/\n/gm;

/** A member's name: of a property, of a method, or of a symbol such as `[Symbol.asyncDispose]`. */
const MEMBER = /^(?:(?:readonly|static|abstract|get|set) )*([\w$]+|\[[\w.]+\])\??(?=[:(<])/;

/** The names that a file exports, in the order of its text. */
export function exportsIn(text: string): ListedName[] {
  const own = [...text.matchAll(EXPORTED)].map(([, name = '']) => ({ name, from: undefined }));
  return [...new Map([...own, ...listedIn(text, EXPORT_LIST)].map((one) => [one.name, one])).values()];
}

/** The names that a file imports from files of the library. */
export function importsIn(text: string): ListedName[] {
  return listedIn(text, IMPORT_LIST);
}

function listedIn(text: string, list: RegExp): ListedName[] {
  return [...text.matchAll(list)].flatMap(([, names = '', from]) =>
    names
      .split(',')
      .map((name) => name.trim().replace(/^type /, ''))
      .filter((name) => name !== '')
      .map((name) => ({ name, from })),
  );
}

/** The declarations of a file, by name. Overloads of a function are one declaration. */
export function parseDeclarations(text: string): Map<string, Declaration> {
  const declarations = new Map<string, Declaration>();
  for (const { comment, statement } of statementsIn(text)) {
    const [, kind, name = ''] = STATEMENT.exec(statement) ?? [];
    if (kind === undefined) continue;
    const code = statement.replace(/^export /, '').replace(/^declare /, '');
    const known = declarations.get(name);
    declarations.set(name, {
      name,
      kind: kind as Declaration['kind'],
      comment: known?.comment || comment,
      code: known === undefined ? code : `${known.code}\n${code}`,
      bases: basesOf(code, kind),
      members: membersOf(code),
    });
  }
  return declarations;
}

function basesOf(code: string, kind: string): string[] {
  const [line = ''] = code.split('\n');
  if (kind !== 'interface' && kind !== 'class') return [];
  const [, list = ''] = /^(?:abstract )?\w+ \w+(?:<.*>)? extends (.*) \{\}?$/.exec(line) ?? [];
  return [...list.matchAll(/\b[A-Z]\w*/g)].map(([name]) => name);
}

/** Code without its comments, and without the members that only the compiler needs. */
export function withoutComments(code: string): string {
  return code.replace(COMMENT, '').replace(/^ *(?:private [^\n]*|#private);\n/gm, '');
}

function* statementsIn(text: string): Generator<{ readonly comment: string; readonly statement: string }> {
  let comment = '';
  let lines: string[] = [];
  let isComment = false;
  for (const line of text.split('\n')) {
    if (lines.length === 0 && (isComment || line.startsWith('/**'))) {
      comment = isComment ? `${comment}\n${line}` : line;
      isComment = !line.endsWith('*/');
      continue;
    }
    if (lines.length === 0 && line.trim() === '') continue;
    lines.push(line);
    // A statement ends at the margin: with a semicolon, or with the bracket that closes a body.
    if (line !== '}' && !/^\S.*;$/.test(line)) continue;
    yield { comment: unmarked(comment), statement: lines.join('\n') };
    comment = '';
    lines = [];
  }
}

function membersOf(code: string): Member[] {
  const members: Member[] = [];
  const path: string[] = [];
  let comment = '';
  let isComment = false;
  for (const line of code.split('\n').slice(1)) {
    const text = line.trim();
    if (isComment || text.startsWith('/**')) {
      comment = isComment ? `${comment}\n${line}` : line;
      isComment = !text.endsWith('*/');
      continue;
    }
    const [, name] = MEMBER.exec(text) ?? [];
    if (name !== undefined) {
      const level = (line.length - line.trimStart().length) / 4 - 1;
      path.splice(level, path.length, name);
      if (comment !== '') members.push({ path: path.join('.'), comment: unmarked(comment) });
    }
    comment = '';
  }
  return members;
}

function unmarked(comment: string): string {
  return comment
    .replace(/^\s*\/\*\*/, '')
    .replace(/\*\/$/, '')
    .replace(/^ *\* ?/gm, '')
    .trim();
}
