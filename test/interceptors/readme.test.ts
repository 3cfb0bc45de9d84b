/** The READMEs of the project and of the library: the schema generates, the code compiles, the server starts and rejects calls, the table is complete. */

import { execFile, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { GuardError, type GuardErrorCode } from '@portcullis/guard';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const LIBRARY = join(ROOT, 'interceptors');
const BIN = join(ROOT, 'node_modules', '.bin');

const run = promisify(execFile);

/** How many lines the guard of the project's README may have. */
const GUARD_LINES_MAX = 12;

describe("the library's README", () => {
  let text: string;
  let projectText: string;
  let folder: string;

  before(async function () {
    this.timeout(120_000);
    text = await readFile(join(LIBRARY, 'README.md'), 'utf8');
    projectText = await readFile(join(ROOT, 'README.md'), 'utf8');
    // Below the repository, so that the packages of the example are found.
    const cache = join(ROOT, 'node_modules', '.cache');
    await mkdir(cache, { recursive: true });
    folder = await mkdtemp(join(cache, 'portcullis-readme-'));
    const [buf = '', template = ''] = blocks('yaml');
    const [server = '', client = '', greeter = '', greeterTest = '', deposit = '', errors = ''] =
      blocks('ts');
    const clientKey = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
    await write({
      'package.json': '{ "type": "module" }',
      'tsconfig.json': JSON.stringify({
        extends: join(ROOT, 'tsconfig.json'),
        include: ['*.ts', 'gen'],
        exclude: [],
      }),
      'buf.yaml': buf,
      'buf.gen.yaml': template,
      'proto/greeter/v1/greeter.proto': blocks('proto').join('\n'),
      'server.ts': server.replace('localhost:50060', 'localhost:0').replace('localhost:50051', 'localhost:1'),
      'client.ts': client,
      'greeter.ts': greeter,
      'greeter.test.ts': greeterTest,
      'deposit.ts': deposit,
      'errors.ts': errors,
      'project.ts': blocks('ts', projectText).join('\n'),
      'greeter.key.pem': String(clientKey),
    });
    await generate();
  });

  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** The code blocks in a language. */
  function blocks(language: string, page = text): string[] {
    return [...page.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
      .filter(([, name]) => name === language)
      .map(([, , code = '']) => code);
  }

  async function write(files: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, content] of Object.entries(files)) {
      await mkdir(dirname(join(folder, name)), { recursive: true });
      await writeFile(join(folder, name), content);
    }
  }

  /** Runs buf with the library's schema in node_modules, which buf does not follow as a link. */
  async function generate(): Promise<void> {
    const modules = join(folder, 'node_modules');
    await cp(join(LIBRARY, 'proto'), join(modules, '@portcullis', 'guard', 'proto'), { recursive: true });
    const env = { ...process.env, PATH: `${BIN}:${process.env['PATH'] ?? ''}` };
    await run(join(BIN, 'buf'), ['generate'], { cwd: folder, env });
    await rm(modules, { recursive: true });
  }

  it('compiles', async function () {
    this.timeout(120_000);
    const { stdout } = await run(join(BIN, 'tsc'), ['--project', folder]).catch(
      (error: { stdout: string }) => error,
    );
    expect(stdout).to.equal('');
  });

  it("has the rule of the project's README, whose guard has at most 12 lines", () => {
    const [rule = ''] = blocks('proto', projectText);
    const indented = rule.replace(/^(?=.)/gm, '  ');
    expect(blocks('proto').join('\n')).to.include(indented);
    const lines = blocks('ts', projectText)
      .join('\n')
      .split('\n')
      .filter((line) => line.trim() !== '');
    expect(lines).to.have.length.within(1, GUARD_LINES_MAX);
  });

  it('starts a server that rejects calls without a token, and with one while it has no revocation list', async function () {
    this.timeout(180_000);
    const server = spawn(process.execPath, ['--import', 'tsx', 'server.ts'], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const port = await listeningPort(server.stdout);
      const address = `localhost:${port}`;
      expect(await reasonFor(address, new Metadata())).to.equal('TOKEN_MISSING');
      const metadata = new Metadata();
      metadata.set('authorization', `Bearer ${tokenOfNobody()}`);
      expect(await reasonFor(address, metadata)).to.equal('REVOCATION_STATE_STALE');
    } finally {
      server.kill('SIGKILL');
    }
  });

  it('has a test that passes, and that would fail without the checks that it is about', async function () {
    this.timeout(180_000);
    const passed = await runMocha();
    expect(passed)
      .to.match(/4 passing/)
      .and.to.not.match(/failing/);
    // A server whose handler knows no rule: the same test must notice.
    await write({ 'greeter.ts': greeterWithoutRule(blocks('ts')[2] ?? '') });
    expect(await runMocha()).to.match(/failing/);
  });

  /** Runs the example's test as its user does, without a configuration. @returns what mocha printed */
  async function runMocha(): Promise<string> {
    const args = ['--no-config', '--node-option', 'import=tsx', '--reporter', 'spec', 'greeter.test.ts'];
    const { stdout } = await run(join(BIN, 'mocha'), args, { cwd: folder }).catch(
      (error: { stdout: string }) => error,
    );
    return stdout;
  }

  it('names every reason of the library with its status', () => {
    const rows = [...text.matchAll(/^\| `([A-Z_]+)`\s*\| ([A-Z_]+)/gm)].map(([, code, status]) => [
      code,
      status,
    ]);
    const reasons: Record<GuardErrorCode, true> = {
      TOKEN_MISSING: true,
      TOKEN_INVALID: true,
      TOKEN_EXPIRED: true,
      TOKEN_REVOKED: true,
      TLS_REQUIRED: true,
      SCOPE_MISSING: true,
      ROLE_MISSING: true,
      CALLER_KIND: true,
      LOGIN_TOO_OLD: true,
      REVOCATION_STATE_STALE: true,
      DEPENDENCY_UNAVAILABLE: true,
      RATE_LIMITED: true,
      REQUEST_TOO_LARGE: true,
      REQUEST_TIMEOUT: true,
      FIELD_INVALID: true,
      NOT_FOUND: true,
    };
    const codes = Object.keys(reasons) as GuardErrorCode[];
    expect(rows).to.deep.equal(codes.map((code) => [code, new GuardError(code, 'x').status]));
  });
});

/** A token of the right form, whose signature nothing has made. */
function tokenOfNobody(): string {
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const header = encode({ alg: 'EdDSA', kid: 'key-1', typ: 'at+jwt' });
  return `${header}.${encode({ iss: 'https://auth.example' })}.${Buffer.alloc(64).toString('base64url')}`;
}

/** The example's handlers with a rule in code that admits every authenticated caller. */
function greeterWithoutRule(code: string): string {
  return code
    .replace('type Guard, principalOf', 'codeRules, type Guard, principalOf')
    .replace(', protoMetadata }', ' }')
    .replace('protoMetadata', 'codeRules(GreeterServiceService, { sayHello: {} })');
}

async function listeningPort(output: NodeJS.ReadableStream): Promise<number> {
  for await (const line of createInterface({ input: output })) {
    const port = /^listening on port (\d+)$/.exec(line)?.[1];
    if (port !== undefined) return Number(port);
  }
  throw new Error('the server has ended');
}

/** The reason with which the method of the example answers. */
async function reasonFor(address: string, metadata: Metadata): Promise<string> {
  const identity = (bytes: Buffer): Buffer => bytes;
  const client = new Client(address, credentials.createInsecure());
  try {
    const error = await new Promise((resolve) => {
      const deadline = Date.now() + 10_000;
      client.makeUnaryRequest(
        '/greeter.v1.GreeterService/SayHello',
        identity,
        identity,
        Buffer.alloc(0),
        metadata,
        { deadline },
        resolve,
      );
    });
    return errorOf(error).reason;
  } finally {
    client.close();
  }
}
