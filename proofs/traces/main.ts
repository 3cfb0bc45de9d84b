/** `npm run traces`: lets the rules for anomalies see recorded and generated traffic, and says what they found and missed. */

import { writeFile } from 'node:fs/promises';
import { Command, InvalidArgumentError } from 'commander';
import { createRandom } from '../drill/random.js';
import { RECORDING, readRecording } from './recording.js';
import { type Replay, replay, tableOf } from './replay.js';
import { generateTraffic } from './traffic.js';

const SEED_DEFAULT = 1;
const SEED_MAX = 2 ** 32 - 1;

interface Options {
  readonly seed: number;
  readonly json?: string;
}

const { seed, json } = new Command('npm run traces --')
  .description('Replays recorded and generated traffic through the rules for anomalies.')
  .option('--seed <number>', 'which traffic is generated', parseSeed, SEED_DEFAULT)
  .option('--json <file>', 'writes the figures there')
  .parse()
  .opts<Options>();

const replays = [replay(await readRecording(RECORDING)), replay(generateTraffic(createRandom(seed)))];
for (const one of replays) console.log(`${tableOf(one)}\n`);
const figures = figuresOf(replays);
const { ordinary_calls, false_alarms, planted, found } = figures;
console.log(
  `Seed ${seed}: ${ordinary_calls} ordinary calls, ${false_alarms} false alarms, ${found} of ${planted} attacks found.`,
);
if (json !== undefined) await writeFile(json, `${JSON.stringify(figures, null, 2)}\n`);
process.exitCode = false_alarms === 0 && found === planted ? 0 : 1;

function figuresOf(all: readonly Replay[]): {
  ordinary_calls: number;
  false_alarms: number;
  planted: number;
  found: number;
} {
  const sum = (of: (one: Replay) => number): number => all.reduce((total, one) => total + of(one), 0);
  return {
    ordinary_calls: sum(({ ordinaryCalls }) => ordinaryCalls),
    false_alarms: sum(({ falseAlarms }) => falseAlarms.length),
    planted: sum((one) => one.planted),
    found: sum((one) => one.found.length),
  };
}

function parseSeed(text: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 0 || number > SEED_MAX) {
    throw new InvalidArgumentError(`must be a whole number up to ${SEED_MAX}.`);
  }
  return number;
}
