/** The page about what the library exports. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';

import { libraryPage } from '../../../scripts/reference/library.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const LIBRARY = join(ROOT, 'interceptors');

describe('the reference of the library', () => {
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-library-'));
  });

  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('is up to date', async () => {
    const committed = await readFile(join(ROOT, 'docs', 'reference', 'library.md'), 'utf8');
    expect(committed).to.equal(await libraryPage(LIBRARY));
  });

  it('has every value that an import has when it runs', async () => {
    const page = await libraryPage(LIBRARY);
    const sections = page.split(/^## /m).slice(1);
    expect(sections).to.have.length.above(5);
    for (const section of sections) {
      const [name = ''] = section.split('\n');
      const described = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, export_ = '']) => export_);
      const actual: object = await import(name);
      expect(described, name).to.include.members(Object.keys(actual));
    }
  });

  it('names kind and meaning of what is declared or exported again, and not of what is internal', async () => {
    const page = await libraryPage(
      await libraryWith({
        'src/index.ts':
          "export { type Late, late } from './inner/late.js';\n/** Own. */\nexport const own = 1;\n",
        'src/inner/late.ts':
          '/**\n * Runs later | never, as {@link Late} says.\n *\n * @throws Error always\n */\nexport function late(): void {}\n' +
          '/** When. */\ninterface Late {}\nexport type { Late };\nexport const hidden = 1;\n',
      }),
    );
    expect(page).to.include(
      '## library\n\n| name | kind | meaning |\n| --- | --- | --- |\n' +
        '| `late` | function | Runs later \\| never, as `Late` says. |\n' +
        '| `Late` | interface | When. |\n| `own` | constant | Own. |\n',
    );
    expect(page).to.not.include('hidden');
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
