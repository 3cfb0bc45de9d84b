/** Histories that once broke a promise, or do without a guard: they hold as the code stands. */

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { codesOf, replay, type Trace } from '../../../proofs/explore/replay.js';

const FOLDER = join(import.meta.dirname, 'traces');

describe('a history from the explorer', () => {
  it('violates nothing with every guard in place, and what it names without the guard', async () => {
    const files = (await readdir(FOLDER)).filter((name) => name.endsWith('.json'));
    expect(files).to.not.be.empty;
    for (const file of files) {
      const trace = JSON.parse(await readFile(join(FOLDER, file), 'utf8')) as Trace;
      const events = codesOf(trace);
      expect((await replay(trace.world, undefined, events)).violation, file).to.equal(undefined);
      if (trace.without === null) continue;
      const { violation } = await replay(trace.world, trace.without, events, { checksStates: true });
      expect(violation, file).to.equal(trace.violation);
    }
  });
});
