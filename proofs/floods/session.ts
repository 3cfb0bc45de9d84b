/** A run of several floods: one system, honest traffic and meters, renewed when a flood leaves lasting damage. */

import { setTimeout as sleep } from 'node:timers/promises';
import { buildEnvironment, type Environment } from './environment.js';
import type { Flood } from './flood.js';
import { type HonestTraffic, type Sample, startHonestTraffic } from './honest-traffic.js';
import { breakLog } from './log-stage.js';
import { type Meters, startMeters } from './meters.js';
import { type FloodResult, type Phases, runFlood } from './run-flood.js';
import { fillYoungGenerations } from './warm-up.js';

/** Memory and compiled code of the services settle meanwhile. */
const WARM_UP_MS = 3_000;

interface SessionOptions {
  readonly phases: Phases;
  readonly seed: number;
  readonly signal: AbortSignal;
}

interface Running {
  readonly environment: Environment;
  readonly traffic: HonestTraffic;
  readonly meters: Meters;
  readonly baseline: Sample[];
}

/** Runs floods one after another. */
export class Session {
  readonly #options: SessionOptions;
  #running: Running | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** Runs a flood, on a new system when the last flood left damage that lasts. */
  async run(flood: Flood, onPhase: (phase: string) => void): Promise<FloodResult> {
    if (this.#running === undefined) onPhase('starting the system');
    this.#running ??= await this.#start();
    const { environment } = this.#running;
    const [, , instance] = environment.services;
    const broken =
      flood.log === undefined || instance === undefined ? undefined : await breakLog(instance, flood.log);
    const result = await runFlood({ flood, onPhase, ...this.#running, ...this.#options });
    const other = (await broken?.repair()) ?? [];
    const lasting = result.recoveredSeconds === undefined || result.services.some(({ exits }) => exits > 0);
    if (lasting) await this.close();
    return { ...result, other };
  }

  async close(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.traffic.stop();
    await running?.meters.stop();
    await running?.environment.stop();
  }

  async #start(): Promise<Running> {
    const { signal } = this.#options;
    const environment = await buildEnvironment(signal);
    try {
      const traffic = startHonestTraffic(environment);
      const meters = startMeters(environment.services, traffic);
      const { auth, inventory, payment } = environment.input.addresses;
      await fillYoungGenerations([auth, ...inventory, payment], signal);
      await sleep(WARM_UP_MS, undefined, { signal });
      return { environment, traffic, meters, baseline: [] };
    } catch (error) {
      await environment.stop();
      throw error;
    }
  }
}
