/** Two copies of the package in one process: what users see of it, with two real copies. */

import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A service guarded by one copy, whose handler asks the other copy for the caller. */
const PROGRAM = `
import { Client } from '@grpc/grpc-js';
import { createTestKit } from '@portcullis/guard/testing';
import { codeRules } from '@portcullis/guard';

const own = [];
const log = { info: () => {}, error: () => {}, warn: (fields, message) => own.push(message) };
const alone = await createTestKit({ audience: 'echo', log });
await alone.close();
const other = await import(process.argv[2]);
const kit = await createTestKit({ audience: 'echo', log });

const same = (bytes) => bytes;
const path = '/test.v1.EchoService/Unary';
const definition = {
  Unary: {
    path,
    requestStream: false,
    responseStream: false,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  },
};
const served = await kit.serve((server, guard) =>
  guard.addService(server, definition, codeRules(definition, { Unary: {} }), {
    Unary: (request, call) => {
      try {
        return Buffer.from(other.principalOf(call).id);
      } catch (error) {
        return Buffer.from(error.name + ': ' + error.message);
      }
    },
  }),
);
const client = served.client(Client, kit.user({ id: 'ada' }));
const answer = await new Promise((resolve, reject) =>
  client.makeUnaryRequest(path, same, same, Buffer.from('x'), (error, response) =>
    error ? reject(error) : resolve(String(response)),
  ),
);
await kit.close();
console.log(JSON.stringify({ own, answer }));
`;

describe('two copies of the package in one process', function () {
  this.timeout(120_000);
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-copies-'));
    const second = join(folder, 'second');
    await mkdir(second);
    for (const part of ['package.json', 'dist']) {
      await cp(join(ROOT, 'interceptors', part), join(second, part), { recursive: true });
    }
    // The dependencies of both copies are the same: one grpc-js.
    await symlink(join(ROOT, 'node_modules'), join(second, 'node_modules'));
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    await writeFile(join(folder, 'program.mjs'), PROGRAM);
  });
  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('is said at the start, and by the copy that does not know the call', async () => {
    const second = pathToFileURL(join(folder, 'second', 'dist', 'src', 'index.js')).href;
    const { stdout } = await promisify(execFile)(process.execPath, [join(folder, 'program.mjs'), second], {
      cwd: folder,
    });
    const { own, answer } = JSON.parse(stdout) as { own: string[]; answer: string };
    const sentence = 'this process has loaded @portcullis/guard more than once, also from file://';
    expect(own.filter((line) => line.includes('more than once'))).to.have.lengthOf(1);
    expect(own.join('\n')).to.include(sentence).and.to.include('second/dist/src/wire/copies.js');
    expect(own.join('\n')).to.include('install one version (npm ls @portcullis/guard)');
    expect(answer).to.include(`TypeError: no guard decided this call: ${sentence}`);
  });
});
