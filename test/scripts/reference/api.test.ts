/** The pages about the gRPC API, made from the schema of this project. */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';

import { apiPages } from '../../../scripts/reference/api.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const PAGES = join(ROOT, 'docs', 'reference', 'api');
const IMAGE_WITHOUT_COMMENTS = join(ROOT, 'proto', 'gen', 'image.binpb');

/** The schemas with services of this project. */
const SCHEMAS = [
  'proto/auth',
  'proto/inventory',
  'proto/payment',
  'interceptors/proto/portcullis/revocation',
];

describe('the reference of the gRPC API', () => {
  let pages: Map<string, string>;

  before(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'portcullis-api-'));
    try {
      const set = join(folder, 'set.binpb');
      const buf = join(ROOT, 'node_modules', '.bin', 'buf');
      await promisify(execFile)(buf, ['build', '--as-file-descriptor-set', '-o', set], { cwd: ROOT });
      pages = apiPages(await readFile(set));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it('is up to date', async () => {
    expect((await readdir(PAGES)).sort()).to.deep.equal([...pages.keys()].sort());
    for (const [name, page] of pages) expect(await readFile(join(PAGES, name), 'utf8'), name).to.equal(page);
  });

  it('has every method, and who may call it', async () => {
    const declared: string[] = [];
    for (const schema of SCHEMAS) {
      for (const file of await readdir(join(ROOT, schema), { recursive: true })) {
        if (!file.endsWith('.proto')) continue;
        const text = await readFile(join(ROOT, schema, file), 'utf8');
        declared.push(...[...text.matchAll(/^ {2}rpc (\w+)\(/gm)].map(([, name = '']) => name));
      }
    }
    const described = [...pages.values()].flatMap((page) =>
      [...page.matchAll(/^### (\w+)\n\n[^\n]+ → [^\n]+\n\n(?:(?!^#)[\s\S])*?^Callers: /gm)].map(
        ([, name = '']) => name,
      ),
    );
    expect(described.sort()).to.deep.equal(declared.sort());
  });

  it('says in words who may call a method', () => {
    const callers = new Set(
      [...pages.values()].flatMap((page) =>
        [...page.matchAll(/^Callers: (.*)$/gm)].map(([, text = '']) => text),
      ),
    );
    expect([...callers]).to.include.members([
      'anyone, without a token.',
      'services with the scope `auth.sync`.',
      'users with the scopes `payment.pay`, `inventory.reserve`.',
      'users and services with the scope `auth.users.write` and the role `admin`.',
      'users and services with the scope `inventory.read`; also while the revocation list is stale.',
    ]);
  });

  it('rejects a schema without comments', async () => {
    const image = await readFile(IMAGE_WITHOUT_COMMENTS);
    expect(() => apiPages(image)).to.throw(/ has no comment$/);
  });
});
