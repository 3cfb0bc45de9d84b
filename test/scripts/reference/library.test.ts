/** The page about what the library exports. The compiler runs for each page. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';

import { libraryPage } from '../../../scripts/reference/library.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const LIBRARY = join(ROOT, 'interceptors');

describe('the reference of the library', function () {
  this.timeout(120_000);
  let folder: string;
  let page: string;

  before(async () => {
    page = await libraryPage(LIBRARY);
    folder = await mkdtemp(join(tmpdir(), 'portcullis-library-'));
  });

  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('is up to date', async () => {
    const committed = await readFile(join(ROOT, 'docs', 'reference', 'library.md'), 'utf8');
    expect(committed).to.equal(page);
  });

  it('has every value that an import has when it runs', async () => {
    const sections = page.split(/^## /m).slice(1);
    expect(sections).to.have.length.above(5);
    for (const section of sections) {
      const [name = ''] = section.split('\n');
      const listed = section.match(/^- \w[\w ]*: .*$/gm)?.join('\n') ?? '';
      const described = [...listed.matchAll(/\[`(\w+)`\]\(#/g)].map(([, export_ = '']) => export_);
      const actual: object = await import(name);
      expect(described, name).to.include.members(Object.keys(actual));
    }
  });

  it('has a heading and a declaration for every name that it lists', () => {
    const listed = [...page.matchAll(/^- (?:Functions|Classes|Types|Constants): (.*)$/gm)].flatMap(
      ([, names = '']) => [...names.matchAll(/`(\w+)`/g)].map(([, name = '']) => name),
    );
    const headed = [...page.matchAll(/^### (\w+)\n\n```ts\n[^\n]*\b(\w+)/gm)].map(([, name = '']) => name);
    expect(headed).to.have.length.above(100);
    expect(headed.sort()).to.deep.equal(listed.sort());
  });

  it('has the type, the default and the meaning of the members of options', () => {
    const options = page.split('\n### EngineOptions\n')[1]?.split('\n### ')[0] ?? '';
    expect(options).to.include('  readonly plaintext?: Plaintext | undefined;\n');
    expect(options).to.match(
      /^\| `plaintext` \| `loopback` \| Where access tokens may travel in plaintext, [^|]+\|$/m,
    );
    expect(options).to.match(/^\| `auth\.clientKey` \| {2}\| The client's private key: [^|]+\|$/m);
    const guard = page.split('\n### GuardOptions\n')[1]?.split('\n### ')[0] ?? '';
    expect(guard).to.include('It also has the members of [`EngineOptions`](#engineoptions).');
  });

  it('shows what is declared or exported again, with what it stands on, and not what is internal', async () => {
    const small = await libraryPage(
      await libraryWith({
        'src/index.ts':
          "export { type Late, late } from './inner/late.js';\n/** Own. */\nexport const own = 1;\n",
        'src/inner/late.ts':
          '/**\n * Runs later | never, as {@link Late} says.\n *\n * @param when - the hour\n * @throws Error always\n */\n' +
          'export function late(when: Late): void {}\n' +
          '/** When. */\ninterface Late {\n  /** How late | early. Default: 4.5 hours (noon). */\n' +
          '  readonly hours?: Hours;\n  at: {\n    /** The place. */\n    place: string;\n  };\n}\n' +
          'type Hours = number;\nexport type { Late };\nexport const hidden = 1;\n',
      }),
    );
    expect(small).to.include(
      [
        '## library',
        '',
        '- Functions: [`late`](#late)',
        '- Types: [`Late`](#late-1)',
        '- Constants: [`own`](#own)',
        '',
        '### late',
        '',
        '```ts',
        'function late(when: Late): void;',
        '```',
        '',
        'Runs later | never, as [`Late`](#late-1) says.',
        '',
        '- `when`: the hour',
        '',
        'Throws Error always.',
        '',
        '### Late',
        '',
        '```ts',
        'interface Late {',
        '  readonly hours?: Hours;',
        '  at: {',
        '    place: string;',
        '  };',
        '}',
        '',
        'type Hours = number;',
        '```',
        '',
        'When.',
        '',
        '| member | default | meaning |',
        '| --- | --- | --- |',
        '| `hours` | 4.5 hours (noon) | How late \\| early. |',
        '| `at.place` |  | The place. |',
        '',
        '### own',
        '',
        '```ts',
        'const own = 1;',
        '```',
        '',
        'Own.',
        '',
      ].join('\n'),
    );
    expect(small).to.not.include('hidden');
  });

  it('rejects an export without a comment', async () => {
    const library = await libraryWith({ 'src/index.ts': 'export const silent = 1;\n' });
    expect(await libraryPage(library).catch((error: Error) => error.message)).to.equal(
      'the exported silent has no comment',
    );
  });

  /** A package with one import, and with these sources. */
  async function libraryWith(sources: Readonly<Record<string, string>>): Promise<string> {
    const library = await mkdtemp(join(folder, 'library-'));
    const manifest = { name: 'library', exports: { '.': { 'portcullis-source': './src/index.ts' } } };
    const files = { 'package.json': JSON.stringify(manifest), ...sources };
    for (const [name, content] of Object.entries(files)) {
      await mkdir(dirname(join(library, name)), { recursive: true });
      await writeFile(join(library, name), content);
    }
    return library;
  }
});
