/** `npm run invariants`: checks the invariants of a running system; exits 1 when one of them does not hold. */

import { resolve } from 'node:path';
import { Command } from 'commander';
import {
  type DatabaseUrls,
  type InvariantReading,
  openInvariants,
  recordedDatabases,
} from './system/invariants.js';
import { DATA_FOLDER_DEFAULT } from './system/project.js';
import { SystemError } from './system/system-error.js';

/** Set both for a system that was not started with `npm start`. */
const INVENTORY_VARIABLE = 'INVENTORY_DATABASE_URL';
const PAYMENT_VARIABLE = 'PAYMENT_DATABASE_URL';

const program = new Command('npm run invariants --')
  .description('Checks the invariants of a running system; exits 1 when one of them does not hold.')
  .option('--json', 'print JSON instead of a table')
  .addHelpText(
    'after',
    `\nThe databases are those recorded in PORTCULLIS_DATA_DIR (default: .portcullis), or those of ${INVENTORY_VARIABLE} and ${PAYMENT_VARIABLE}.`,
  )
  .parse();

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error instanceof SystemError ? error.message : error);
  process.exitCode = 1;
}

async function main(): Promise<boolean> {
  const reader = await openInvariants(await databases());
  try {
    const readings = await reader.read();
    console.log(program.opts()['json'] === true ? JSON.stringify(readings, null, 2) : tableOf(readings));
    return readings.every(({ breaches }) => breaches === 0);
  } finally {
    await reader.close();
  }
}

async function databases(): Promise<DatabaseUrls> {
  const { [INVENTORY_VARIABLE]: inventory, [PAYMENT_VARIABLE]: payment } = process.env;
  if (inventory && payment) return { inventory, payment };
  if (inventory || payment) {
    throw new SystemError(
      `${INVENTORY_VARIABLE} and ${PAYMENT_VARIABLE} belong together: set both or neither.`,
    );
  }
  return await recordedDatabases(resolve(process.env['PORTCULLIS_DATA_DIR'] || DATA_FOLDER_DEFAULT));
}

function tableOf(readings: readonly InvariantReading[]): string {
  const width = Math.max(...readings.map(({ about }) => about.length));
  const lines = readings.map(({ about, invariant, breaches, example }) => {
    const broken =
      breaches === 0
        ? ''
        : `: ${breaches} ${breaches === 1 ? 'violation' : 'violations'}, such as ${example}`;
    return `${breaches === 0 ? '✓' : '✗'} ${about.padEnd(width)}  ${invariant}${broken}`;
  });
  const broken = readings.filter(({ breaches }) => breaches > 0).length;
  const end =
    broken === 0 ? 'All invariants hold.' : `${broken} of ${readings.length} invariants do not hold.`;
  return [...lines, '', end].join('\n');
}
