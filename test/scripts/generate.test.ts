/** `npm run generate` and its check, on a copy of the schema. */
import { execFile } from 'node:child_process';
import { appendFile, cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const COPIED = [
  'package.json',
  'buf.yaml',
  'buf.gen.yaml',
  'cli',
  'docs/reference',
  'gate',
  'interceptors',
  'proto',
  'scripts/generate.ts',
  'scripts/reference',
];
/** Each test runs the generators once or twice, which takes long on a busy machine. */
const TEST_TIMEOUT_MS = 600_000;
const CHANGED = 'proto/gen/portcullis/type/v1/money.ts';
const MISSING = 'proto/gen/google/rpc/status.ts';
const LEFT_OVER = 'proto/gen/google/rpc/code.ts';

describe('npm run generate', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-generate-test-'));
    await Promise.all(COPIED.map((path) => cp(join(ROOT, path), join(folder, path), { recursive: true })));
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  });

  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('prints no error when everything is up to date', async () => {
    expect(await generate(folder, '--check')).to.deep.equal({ exitCode: 0, errors: '' });
  });

  it('names each changed, missing and left-over file with --check, and changes none', async () => {
    await appendFile(join(folder, CHANGED), '// by hand\n');
    await rm(join(folder, MISSING));
    await writeFile(join(folder, LEFT_OVER), '');
    const { exitCode, errors } = await generate(folder, '--check');
    expect(exitCode).to.equal(1);
    expect(errors.match(/proto\/\S+/g)).to.deep.equal([LEFT_OVER, MISSING, CHANGED]);
    expect(await readFile(join(folder, CHANGED), 'utf8')).to.match(/by hand\n$/);
  });

  it('restores changed and missing files, and removes left-over ones', async () => {
    expect(await generate(folder)).to.deep.equal({ exitCode: 0, errors: '' });
    expect(await generate(folder, '--check')).to.deep.equal({ exitCode: 0, errors: '' });
  });

  it('rejects a new baseline after a change that breaks clients', async () => {
    const file = join(folder, 'proto/portcullis/type/v1/money.proto');
    const schema = await readFile(file, 'utf8');
    await writeFile(file, schema.replace('int64 minor_units', 'string minor_units'));
    const before = await readFile(join(folder, 'proto/baseline.binpb'));
    const { exitCode, errors } = await generate(folder, '--baseline');
    expect(exitCode).to.equal(1);
    expect(errors).to.include('minor_units');
    expect((await readFile(join(folder, 'proto/baseline.binpb'))).equals(before)).to.equal(true);
  });
});

/** Runs the script of the copy, as `npm run generate` does. */
async function generate(
  folder: string,
  ...options: readonly string[]
): Promise<{ exitCode: number; errors: string }> {
  const args = ['--import', 'tsx', 'scripts/generate.ts', ...options];
  try {
    const { stderr } = await promisify(execFile)(process.execPath, args, { cwd: folder });
    return { exitCode: 0, errors: stderr };
  } catch (error) {
    const { code, stderr } = error as { code: number; stderr: string };
    return { exitCode: code, errors: stderr };
  }
}
