/** `npm run traces`: replays recorded and generated traffic through the anomaly rules, and prints what they found and missed. */

import { Command } from 'commander';
import { integerBetween } from '../shared/command-line.js';
import { createRandom, SEED_MAX } from '../shared/random.js';
import { writeFigures } from '../shared/reporting.js';
import { sumOf } from '../shared/statistics.js';
import { RECORDING, readRecording } from './recording.js';
import { type Replay, replay, tableOf } from './replay.js';
import { generateTraffic } from './traffic.js';

const SEED_DEFAULT = 1;

interface Options {
  readonly seed: number;
  readonly json?: string;
}

const { seed, json } = new Command('npm run traces --')
  .description('Replays recorded and generated traffic through the anomaly rules.')
  .option('--seed <n>', 'seed of the generated traffic', integerBetween(0, SEED_MAX), SEED_DEFAULT)
  .option('--json <file>', 'write the figures to this file')
  .parse()
  .opts<Options>();

const replays = [replay(await readRecording(RECORDING)), replay(generateTraffic(createRandom(seed)))];
for (const one of replays) console.log(`${tableOf(one)}\n`);
const figures = figuresOf(replays);
const { ordinary_calls, false_alarms, planted, found } = figures;
console.log(
  `Seed ${seed}: ${ordinary_calls} ordinary calls, ${false_alarms} false alarms, ${found} of ${planted} attacks found.`,
);
await writeFigures(json, figures);
process.exitCode = false_alarms === 0 && found === planted ? 0 : 1;

function figuresOf(all: readonly Replay[]): {
  ordinary_calls: number;
  false_alarms: number;
  planted: number;
  found: number;
} {
  return {
    ordinary_calls: sumOf(all, ({ ordinaryCalls }) => ordinaryCalls),
    false_alarms: sumOf(all, ({ falseAlarms }) => falseAlarms.length),
    planted: sumOf(all, (one) => one.planted),
    found: sumOf(all, (one) => one.found.length),
  };
}
