/** Values of options that cannot be used, and lists that are longer than a page. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { expect } from 'chai';
import { createContextStore } from '../../cli/src/contexts.js';
import { rowsFrom } from '../../cli/src/directory.js';
import { followEnforcement } from '../../cli/src/enforcement.js';
import { CommandError, EXIT } from '../../cli/src/failures.js';
import { openSession } from '../../cli/src/session.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createCliRunner } from './cli-runner.js';

describe('options of the command line', () => {
  let folder: TemporaryFolder;
  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  const REFUSED: readonly (readonly [words: string, says: string])[] = [
    ['revocations --limit ten', 'Expected a number from 1 to 10000.'],
    ['revocations --limit 0', 'Expected a number from 1 to 10000.'],
    ['receipt list --limit -1', 'Expected a number from 1 to 10000.'],
    ['events --limit 1e3', 'Expected a number from 1 to 10000.'],
    ['events --limit 10001', 'Expected a number from 1 to 10000.'],
    ['events --type login-failed,,', 'Expected names, separated by commas.'],
    ['events --user alice --subject web', 'Name --user or --subject, not both.'],
    ['revoke --role admin --session alice/3f9a1c0b', 'Name exactly one of --user, --session,'],
    ['revoke --network 192.0.2.1 --client web', 'or conditions on sessions: --role,'],
    ['revoke --user alice --client web', 'Name exactly one of --user, --session,'],
    ['revoke', 'Name exactly one of --user, --session,'],
    ['revoke --logged-in-before yesterday', 'Expected a time such as 2026-11-30T14:03:00Z'],
    ['revoke --logged-in-before 2026-11-30T14:03:00', 'Expected a time such as 2026-11-30T14:03:00Z'],
    ['revoke --user alice --role=', 'Expected a value, got an empty text.'],
    ['revoke --key=', 'Expected a value, got an empty text.'],
    ['revoke --logged-in-before 2026-02-30', 'Expected a time such as 2026-11-30T14:03:00Z'],
    ['revoke --logged-in-before 2026-04-31T10:00:00Z', 'Expected a time such as 2026-11-30T14:03:00Z'],
    ['revoke --logged-in-before 2026-13-30', 'Expected a time such as 2026-11-30T14:03:00Z'],
    ['top --interval soon', 'Expected seconds, from 0.2 to 3600.'],
    ['top --interval 0', 'Expected seconds, from 0.2 to 3600.'],
    ['top --metrics ,', 'Expected names, separated by commas.'],
  ];
  for (const [words, says] of REFUSED) {
    it(`are refused before anything is asked: ${words}`, async () => {
      const run = createCliRunner(join(folder.path, 'contexts.json'));
      const { code, err } = await run(words.split(' '));
      expect(err).to.contain(says);
      expect(code).to.equal(EXIT.usage);
    });
  }
});

describe('a list with a limit', () => {
  const all = Array.from({ length: 450 }, (_, at) => at);
  const asked: number[] = [];
  const read = async (pageSize: number, pageToken: string) => {
    asked.push(pageSize);
    const begin = Number(pageToken);
    const end = begin + Math.min(pageSize, 200);
    return { rows: all.slice(begin, end), nextPageToken: end < all.length ? String(end) : '' };
  };
  beforeEach(() => {
    asked.length = 0;
  });

  it('is read page by page, and no further than the limit', async () => {
    expect(await rowsFrom(401, read)).to.deep.equal(all.slice(0, 401));
    expect(asked).to.deep.equal([200, 200, 1]);
  });

  it('ends with the last page', async () => {
    expect(await rowsFrom(10_000, read)).to.deep.equal(all);
    expect(asked).to.deep.equal([200, 200, 200]);
  });
});

describe('a wait for the instances', () => {
  it('says that the revocation stands when auth cannot be asked any more', async () => {
    const folder = await makeTemporaryFolder();
    const store = createContextStore({ PORTCULLIS_CONFIG: join(folder.path, 'contexts.json') });
    const soon = new Date(Date.now() + 60_000).toISOString();
    await store.save('default', {
      ...{ address: await unusedAddress(), username: 'alice', sessionId: randomUUID() },
      ...{ accessToken: 'access', accessTokenExpireTime: soon, refreshToken: 'refresh' },
    });
    const session = await openSession(store, undefined);
    const [output, notes] = [new PassThrough(), new PassThrough()];
    const terminal = { input: new PassThrough(), output, notes, json: false };
    const enforcedEverywhereBy = new Date('2026-11-30T14:03:10.000Z');
    try {
      const failure = await followEnforcement(session, terminal, { sequence: 7n, enforcedEverywhereBy }).then(
        () => undefined,
        (error: unknown) => error,
      );
      expect(failure).to.be.instanceOf(CommandError);
      const { message, exitCode } = failure as CommandError;
      expect(exitCode).to.equal(EXIT.waitInterrupted);
      expect(message).to.contain('Nothing answers there');
      expect(message).to.contain('The revocation stands: it is entry 7 of the log.');
      expect(message).to.contain('2026-11-30T14:03:10.000Z');
    } finally {
      session.close();
      await folder.remove();
    }
  });
});

/** An address on which nothing listens any more. */
async function unusedAddress(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}
