/** `npm run spec`: runs the specification of the revocation protocol: its vectors, its model, and recorded traces. */

import { Command } from 'commander';
import { tableText } from '../shared/reporting.js';
import { firstMismatch } from './checker.js';
import { fenceMismatch, readFenceVectors } from './fence-checker.js';
import { FENCE_ROWS } from './fence-rows.js';
import { missingTools, SEARCHES, searchModel } from './model.js';
import { ReferenceInstance, ROWS } from './reference.js';
import { keptUntilMs, RETENTION_ROWS, readRetentionVectors } from './retention-rows.js';
import { checkTraceFile } from './trace-file.js';
import { readVectors } from './vectors.js';

const program = new Command('npm run spec --')
  .description(
    'Runs the vectors of the specification against its tables. With files, compares the traces in them with the tables instead.',
  )
  .argument('[traces...]', 'traces of instances: files of JSON lines, one step a line')
  .option('--model', 'searches the Spin model instead, with every rule and without each')
  .addHelpText('after', '\nExit code: 0 when everything is as the specification says, 1 otherwise.')
  .parse();
const { model = false } = program.opts<{ model?: boolean }>();

process.exitCode = (await main(program.args)) ? 0 : 1;

async function main(traces: readonly string[]): Promise<boolean> {
  if (model) return await searchAll();
  if (traces.length > 0) return await checkTraces(traces);
  return checkVectors();
}

/** Every vector holds, and every row is needed by one. */
function checkVectors(): boolean {
  const vectors = readVectors();
  const wrong: string[] = [];
  for (const { name, steps, listMax } of vectors) {
    const mismatch = firstMismatch(steps, new ReferenceInstance({ listMax }));
    if (mismatch !== undefined) wrong.push(`${name}: step ${mismatch.step}, ${mismatch.what}`);
  }
  const unneeded = ROWS.filter((row) =>
    vectors.every(
      ({ steps, listMax }) =>
        firstMismatch(steps, new ReferenceInstance({ listMax, without: new Set([row]) })) === undefined,
    ),
  );
  const fences = readFenceVectors();
  for (const vector of fences) {
    const mismatch = fenceMismatch(vector);
    if (mismatch !== undefined) wrong.push(`${vector.name}: step ${mismatch.step}, ${mismatch.what}`);
  }
  unneeded.push(
    ...FENCE_ROWS.filter((row) =>
      fences.every((vector) => fenceMismatch(vector, new Set([row])) === undefined),
    ),
  );
  const kept = readRetentionVectors();
  for (const { name, entry, keep_until_ms: expected } of kept) {
    const found = keptUntilMs(entry);
    if (found !== expected) wrong.push(`${name}: the tables say ${found}`);
  }
  unneeded.push(
    ...RETENTION_ROWS.filter(({ id }) => kept.every(({ row }) => row !== id)).map(({ id }) => id),
  );
  for (const line of wrong) console.error(line);
  for (const row of unneeded) console.error(`no vector fails without row ${row}`);
  const count = vectors.length + fences.length + kept.length;
  const rows = ROWS.length + FENCE_ROWS.length + RETENTION_ROWS.length;
  console.log(
    `${count} vectors, ${wrong.length} against the tables; ${rows} rows, ${unneeded.length} without a vector`,
  );
  return wrong.length === 0 && unneeded.length === 0;
}

async function checkTraces(files: readonly string[]): Promise<boolean> {
  let isGood = true;
  for (const file of files) {
    const { steps, mismatch } = await checkTraceFile(file);
    isGood &&= mismatch === undefined;
    if (mismatch === undefined) console.log(`${file}: ${steps} steps, all as the tables say`);
    else console.error(`${file}: line ${mismatch.step}, ${mismatch.what}`);
  }
  return isGood;
}

async function searchAll(): Promise<boolean> {
  const missing = await missingTools();
  if (missing.length > 0) {
    console.error(`The model needs ${missing.join(' and ')}: apt-get install spin gcc libc6-dev`);
    return false;
  }
  const rows = [['without', 'world', 'states', 'seconds', '']];
  let isGood = true;
  for (const search of SEARCHES) {
    const { states, violated, seconds } = await searchModel(search);
    const isExpected = violated === (search.without !== undefined);
    isGood &&= isExpected;
    rows.push([
      search.without ?? '–',
      search.world.name,
      states.toLocaleString('en-US'),
      seconds.toFixed(1),
      `${violated ? 'violation' : 'no violation'}${isExpected ? '' : ', UNEXPECTED'}`,
    ]);
  }
  console.log(tableText(rows));
  return isGood;
}
