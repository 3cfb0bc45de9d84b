/** The faults, and how each is healed. */

import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import type { Random } from '../shared/random.js';
import { nowMs } from '../shared/waiting.js';
import { blockEcho, type Clients, putEchoToSleep, setEchoBack } from './calls.js';
import type { Environment, InstanceName } from './environment.js';
import type { Intruder, Target } from './forgeries.js';
import type { LinkMode } from './link.js';
import type { Load } from './load.js';

const POLL_MS = 2;
const FROZEN_WITHIN_MS = 1_000;
const PULSE_MS = 200;
const SLEEPS = 3;
/** Several times as many entries between two syncs as a sync response lists, in calls of as many as one may have. */
const MANY_CALLS = 4;
const MANY_TARGETS = 1_000;
const PULSES_MAX = 100;
/** Longer than any fault lasts, so it never comes. */
const NEVER_MS = 600_000;
/** The only file in nats-server's folder that a wipe keeps: without it the services' passwords would change. */
const NATS_PASSWORDS_FILE = 'nats.json';

/** Context of a fault. */
export interface Striking {
  readonly environment: Environment;
  readonly clients: Clients;
  readonly load: Load;
  readonly intruder: Intruder;
  readonly random: Random;
  readonly leaseMs: number;
  /** Number of earlier occurrences of this fault. */
  readonly turn: number;
  /** Good tokens, as targets of forgeries. */
  readonly targets: readonly Target[];
  /** Revokes the next token, once; resolves as soon as any response arrives. */
  revokeOne(): Promise<void>;
  /** Revokes tokens that were never issued. */
  revokeOthers(count: number): Promise<void>;
}

/** A fault. */
export interface Fault {
  readonly name: string;
  /** Whether leases may run out during the fault. */
  readonly mayLoseService: boolean;
  /** Its duration, in leases. */
  readonly lasts: readonly [min: number, max: number];
  /** Begins the fault; returns the function that heals it. */
  strike(striking: Striking): Promise<() => Promise<void>>;
}

/** All faults of the revocation drill. */
export const FAULTS: readonly Fault[] = [
  {
    name: 'broker killed',
    mayLoseService: false,
    lasts: [0.5, 2],
    async strike({ environment: { nats } }) {
      nats.kill('SIGKILL');
      await nats.ended();
      return () => nats.restart();
    },
  },
  {
    name: 'broker frozen',
    mayLoseService: false,
    lasts: [1, 3],
    strike: async ({ environment: { nats } }) => {
      nats.kill('SIGSTOP');
      return async () => nats.kill('SIGCONT');
    },
  },
  {
    name: 'broker wiped and made anew',
    mayLoseService: false,
    lasts: [0, 1],
    async strike({ environment: { nats, natsFolder } }) {
      nats.kill('SIGKILL');
      await nats.ended();
      for (const file of await readdir(natsFolder)) {
        if (file !== NATS_PASSWORDS_FILE) await rm(join(natsFolder, file), { recursive: true });
      }
      return () => nats.restart();
    },
  },
  {
    name: 'broker connections cut without FIN',
    mayLoseService: false,
    lasts: [1, 3],
    strike: async (striking) => cutLinks(striking, 'broker'),
  },
  {
    name: 'auth connections cut without FIN',
    mayLoseService: true,
    lasts: [1.2, 2.5],
    async strike(striking) {
      // A message that still arrives over the broker would hide the fault most of the time.
      const healBroker = striking.turn % 3 === 2 ? undefined : setLinks(striking, 'broker', { kind: 'mute' });
      const healAuth = cutLinks(striking, 'auth');
      return async () => {
        await healAuth();
        healBroker?.();
      };
    },
  },
  {
    name: 'everything slower than a lease',
    mayLoseService: true,
    lasts: [1.5, 2.5],
    async strike(striking) {
      const delayMs = striking.leaseMs * 1.2;
      const modes = [
        { kind: 'slow', thereMs: 0, backMs: delayMs },
        { kind: 'slow', thereMs: delayMs, backMs: 0 },
        { kind: 'slow', thereMs: delayMs / 2, backMs: delayMs / 2 },
      ] as const;
      const mode = modes[striking.turn % modes.length] ?? modes[0];
      const heal = [setLinks(striking, 'auth', mode), setLinks(striking, 'broker', mode)];
      return async () => {
        for (const step of heal) step();
      };
    },
  },
  {
    name: 'old answers of auth, then none',
    mayLoseService: true,
    lasts: [1.5, 2.5],
    async strike(striking) {
      const { leaseMs, random } = striking;
      // The last responses arrive in time and are old: a lease counted from their arrival would last too long.
      const backMs = leaseMs * (0.6 + 0.3 * random.next());
      const healBroker = setLinks(striking, 'broker', { kind: 'mute' });
      setLinks(striking, 'auth', { kind: 'slow', thereMs: 0, backMs });
      await sleep(leaseMs / 3);
      const healAuth = setLinks(striking, 'auth', { kind: 'slow', thereMs: NEVER_MS, backMs });
      return async () => {
        for (const link of striking.environment.links.auth.values()) link.reset();
        healAuth();
        healBroker();
      };
    },
  },
  {
    name: 'broadcasts dropped',
    mayLoseService: false,
    lasts: [1, 2],
    async strike(striking) {
      const heal = setLinks(striking, 'broker', { kind: 'mute' });
      return async () => heal();
    },
  },
  {
    name: 'thousands of revocations at once',
    mayLoseService: false,
    lasts: [0.5, 1],
    async strike(striking) {
      const { environment, random, turn } = striking;
      // Instances that receive the broadcasts need no list from auth. Every second time some must pull it.
      const all = [...environment.links.broker.values()];
      const muted = turn % 2 === 0 ? [] : random.shuffle(all).slice(0, Math.ceil(all.length / 2));
      for (const link of muted) link.set({ kind: 'mute' });
      for (let call = 0; call < MANY_CALLS; call += 1) await striking.revokeOthers(MANY_TARGETS);
      return async () => {
        for (const link of muted) link.set({ kind: 'pass' });
      };
    },
  },
  {
    name: 'auth killed after commit',
    mayLoseService: true,
    lasts: [0, 0.5],
    async strike(striking) {
      const { environment, random, turn } = striking;
      // Auth is killed before it broadcasts what it committed.
      const healLinks = turn % 2 === 0 ? setLinks(striking, 'broker', { kind: 'mute' }) : undefined;
      const answered = striking.revokeOne();
      if (turn % 3 === 1) await sleep(random.integer(0, 15));
      else await answered;
      environment.processes.auth.kill('SIGKILL');
      await environment.processes.auth.ended();
      return async () => {
        await environment.processes.auth.restart();
        healLinks?.();
      };
    },
  },
  {
    name: 'auth down for three leases',
    mayLoseService: true,
    lasts: [3, 3],
    async strike({ environment: { processes } }) {
      processes.auth.kill('SIGKILL');
      await processes.auth.ended();
      return () => processes.auth.restart();
    },
  },
  {
    name: 'one of two auth replicas killed',
    mayLoseService: false,
    lasts: [1, 2],
    strike: killReplica,
  },
  {
    name: 'instance frozen beyond the bound',
    mayLoseService: true,
    lasts: [1.2, 2],
    async strike({ environment, load, random }) {
      const instance = random.pick(environment.instances);
      await freeze(environment.processOf(instance), instance, load);
      return async () => thaw(environment.processOf(instance), instance, load);
    },
  },
  {
    name: 'instance restarted under fire',
    mayLoseService: true,
    lasts: [0, 0.7],
    async strike({ environment, load, random, turn }) {
      const instance = random.pick(environment.instances.filter((name) => name !== 'auth'));
      load.revokedFirst.add(instance);
      load.restarted.add(instance);
      environment.processOf(instance).kill(turn % 2 === 0 ? 'SIGKILL' : 'SIGTERM');
      return () => environment.processOf(instance).restart();
    },
  },
  {
    name: 'event loop blocked',
    mayLoseService: true,
    lasts: [1.2, 2],
    async strike({ environment, clients, leaseMs, random, turn }) {
      if (turn % 2 === 0) {
        const blocked = blockEcho(clients.echo, leaseMs * 1.5).catch(() => undefined);
        return () => blocked;
      }
      const instance = random.pick(environment.instances);
      const proc = environment.processOf(instance);
      let isOver = false;
      const pulsing = (async () => {
        for (let pulse = 0; !isOver && pulse < PULSES_MAX; pulse += 1) {
          proc.kill('SIGSTOP');
          await sleep(PULSE_MS);
          proc.kill('SIGCONT');
          await sleep(PULSE_MS / 4);
        }
      })();
      return async () => {
        isOver = true;
        await pulsing;
      };
    },
  },
  {
    name: 'wall clock set back, then asleep',
    mayLoseService: true,
    lasts: [0.5, 1],
    async strike(striking) {
      const { environment, clients, leaseMs, load } = striking;
      const link = { auth: environment.links.auth.get('echo'), broker: environment.links.broker.get('echo') };
      // Its last lease runs out: it receives nothing any more.
      link.broker?.set({ kind: 'mute' });
      link.auth?.set({ kind: 'cut' });
      const backMs = Math.round(0.27 * leaseMs);
      await Promise.all([striking.revokeOne(), sleep(0.3 * leaseMs)]);
      // Each time its wall clock comes back to where it stood; the lease is over when the last sleep ends. In one call,
      // because a busy machine takes its time over each.
      load.frozen.set('echo', await putEchoToSleep(clients.echo, { forMs: backMs, times: SLEEPS }));
      return async () => {
        await setEchoBack(clients.echo, -SLEEPS * backMs);
        link.auth?.reset();
        link.auth?.set({ kind: 'pass' });
        link.broker?.set({ kind: 'pass' });
      };
    },
  },
  {
    name: 'forged and replayed broadcasts',
    mayLoseService: false,
    lasts: [0.5, 1],
    async strike({ intruder, targets }) {
      await intruder.forge(targets);
      await intruder.replay();
      return async () => {
        await intruder.replay();
        await intruder.forge(targets);
      };
    },
  },
  {
    name: 'database restarted',
    mayLoseService: true,
    lasts: [0.5, 1.5],
    async strike({ environment: { postgres } }) {
      await postgres.stop();
      return () => postgres.restart();
    },
  },
];

function setLinks({ environment }: Striking, kind: 'auth' | 'broker', mode: LinkMode): () => void {
  const links = [...environment.links[kind].values()];
  for (const link of links) link.set(mode);
  return () => {
    for (const link of links) link.set({ kind: 'pass' });
  };
}

/** Cuts all links or some of them; they are restored, or their connections are reset. */
function cutLinks({ environment, random, turn }: Striking, kind: 'auth' | 'broker'): () => Promise<void> {
  const all = [...environment.links[kind].values()];
  const cut = turn % 3 === 1 ? random.shuffle(all).slice(0, Math.ceil(all.length / 2)) : all;
  const areForgotten = random.next() < 0.5;
  for (const link of cut) link.set({ kind: 'cut' });
  return async () => {
    for (const link of cut) {
      if (areForgotten) link.reset();
      link.set({ kind: 'pass' });
    }
  };
}

/** Half of the instances use a second process of auth, until it is killed and they reconnect to the first. */
async function killReplica({ environment, random }: Striking): Promise<() => Promise<void>> {
  const { authReplica, links, ports } = environment;
  await authReplica.restart();
  const names = random.shuffle([...links.auth.keys()]);
  const moved = names.slice(0, Math.ceil(names.length / 2)).flatMap((name) => links.auth.get(name) ?? []);
  for (const link of moved) {
    link.aim([ports.authReplica, ports.auth]);
    link.reset();
  }
  await sleep(2 * PULSE_MS);
  authReplica.kill('SIGKILL');
  await authReplica.ended();
  return async () => {
    for (const link of moved) link.aim([ports.auth]);
  };
}

async function freeze(proc: ServiceProcess, instance: InstanceName, load: Load): Promise<void> {
  proc.kill('SIGSTOP');
  const deadlineMs = nowMs() + FROZEN_WITHIN_MS;
  while (!(await isStopped(proc.pid)) && nowMs() < deadlineMs) await sleep(POLL_MS);
  load.frozen.set(instance, { fromMs: nowMs(), toMs: Number.POSITIVE_INFINITY });
}

function thaw(proc: ServiceProcess, instance: InstanceName, load: Load): void {
  const frozen = load.frozen.get(instance);
  if (frozen !== undefined) frozen.toMs = nowMs();
  proc.kill('SIGCONT');
}

/** On Linux the state is read; elsewhere the caller waits for a fixed time. */
async function isStopped(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return text.slice(text.lastIndexOf(')') + 2).startsWith('T');
}
