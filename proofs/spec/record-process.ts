/**
 * Records the steps of the feeds of a process: `node --import 'file:…/record-process.js?folder=FOLDER' PROGRAM`. The
 * program is not changed. Each feed writes a file of JSON lines, which `npm run spec -- FILE` compares with the tables.
 * Steps contain no tokens and no keys, but identifiers of what is revoked.
 */

import { appendFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Feed } from '@portcullis/guard/internal';
import { watchFeeds } from './feed-steps.js';
import { createReadingFilter } from './reading-filter.js';

/** A killed process has not written the steps of this time, in milliseconds. */
const WRITE_INTERVAL_MS = 100;

const folder = new URL(import.meta.url).searchParams.get('folder');
if (folder === null) throw new Error('expected a folder: --import file:…/record-process.js?folder=FOLDER');
const program = process.argv[1] ?? 'program';
const name = `${basename(dirname(program))}-${basename(program, '.js')}-${process.pid}`;
let feeds = 0;

watchFeeds(Feed.prototype, () => {
  feeds += 1;
  const file = join(folder, `${name}-${feeds}.jsonl`);
  const isNeeded = createReadingFilter();
  let lines = '';
  const write = (): void => {
    if (lines !== '') appendFileSync(file, lines);
    lines = '';
  };
  setInterval(write, WRITE_INTERVAL_MS).unref();
  process.once('exit', write);
  return {
    onStep(step) {
      if (isNeeded(step)) lines += `${JSON.stringify(step)}\n`;
    },
  };
});
