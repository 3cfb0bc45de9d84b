/** One gate: the engine that decides, and the ports at which it is asked. */

import { credentials } from '@grpc/grpc-js';
import { createEngine, type Engine } from '@portcullis/guard/engine';
import { type Address, formatAddress } from './addresses.js';
import { createAsked } from './decide.js';
import { waysAround } from './exposure.js';
import { type OpenPort, openExtAuthz } from './ext-authz.js';
import { type HealthPort, type Missing, openHealth, upstreamCredentials, watchUpstream } from './health.js';
import { openHttpCheck } from './http-check.js';
import { createIdentity, type Identity } from './identity.js';
import type { GateLog } from './log.js';
import { createGateMetrics, type GateMetrics } from './metrics.js';
import { openOps } from './ops.js';
import { openRelay, type RelayPort } from './relay-port.js';
import { type RuleTable, readRuleTable } from './rules.js';
import type { GateSettings } from './settings.js';
import { readTlsFiles } from './tls-files.js';

/** A running gate. */
export interface Gate {
  /** Where its ports listen, in the form of their settings; undefined for those that are closed. */
  readonly addresses: {
    readonly listen: string | undefined;
    readonly extAuthz: string | undefined;
    readonly httpCheck: string | undefined;
    readonly health: string | undefined;
    readonly ops: string | undefined;
  };
  /** Resolves when the revocation list has been complete once. */
  readonly ready: Promise<void>;
  /** What is missing, in one phrase by name; empty when the gate is ready. */
  missing(): Missing;
  /** The metrics, in the text format of Prometheus. */
  metrics(): Promise<string>;
  /** Calls the listener when the answer of {@link missing} may have changed. */
  onChange(listener: () => void): void;
  /** Reads rules and certificates again. Those that cannot be used are logged, and the former ones stay in use. */
  reload(): void;
  /** Refuses new connections, lets calls end for as long as the settings say, and closes everything. */
  close(): Promise<void>;
}

/** What a program may bring to its gate. */
export interface GateParts {
  readonly log: GateLog;
  /** Default: an engine that follows auth, as the settings say. */
  readonly engine?: Engine | undefined;
  /** Default: metrics of its own. */
  readonly metrics?: GateMetrics | undefined;
}

/** Interval between two looks for ways around the gate, in milliseconds. */
const EXPOSURE_INTERVAL_MS = 60_000;

/**
 * Starts a gate. It refuses calls with REVOCATION_STATE_STALE until it has the revocation list.
 *
 * @throws RulesError when a method has no rule; Error when a port cannot be opened, or the upstream can be called around
 *   the gate and the settings forbid that
 */
export async function startGate(settings: GateSettings, parts: GateParts): Promise<Gate> {
  const table = readRuleTable(settings.rules);
  await refuseExposed(settings, parts.log);
  const gate = new RunningGate(settings, table, parts);
  try {
    await gate.open();
    return gate;
  } catch (error) {
    await gate.close();
    throw error;
  }
}

async function refuseExposed({ upstream }: GateSettings, log: GateLog): Promise<void> {
  if (upstream === undefined) return;
  const ways = await waysAround(upstream);
  if (ways.length === 0) return;
  if (upstream.exposed === 'refuse') {
    throw new Error(
      `the upstream can be called around the gate: ${ways.join('; ')}. Close that, or set upstream-exposed to warn`,
    );
  }
  log.warn({ event: 'upstream_exposed', ways }, 'the upstream can be called around the gate');
}

class RunningGate implements Gate {
  readonly ready: Promise<void>;
  readonly #settings: GateSettings;
  readonly #log: GateLog;
  readonly #identity: Identity;
  readonly #metrics: GateMetrics;
  readonly #engineOption: Engine | undefined;
  readonly #listeners = new Set<() => void>();
  readonly #ports: OpenPort[] = [];
  readonly #closers: (() => void)[] = [];
  #table: RuleTable;
  #engine: Engine | undefined;
  #relay: RelayPort | undefined;
  #named: Partial<Record<keyof Gate['addresses'], Address>> = {};
  #health: HealthPort | undefined;
  #upstreamReason: () => string = () => '';
  #isDraining = false;
  #resolveReady: () => void = () => {};

  constructor(settings: GateSettings, table: RuleTable, { log, engine, metrics }: GateParts) {
    this.#settings = settings;
    this.#table = table;
    this.#log = log;
    this.#engineOption = engine;
    this.#metrics = metrics ?? createGateMetrics();
    this.#identity = createIdentity(settings.identity);
    this.ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
  }

  get addresses(): Gate['addresses'] {
    const text = (address: Address | undefined): string | undefined => address && formatAddress(address);
    const { listen, extAuthz, httpCheck, health, ops } = this.#named;
    return {
      listen: text(listen),
      extAuthz: text(extAuthz),
      httpCheck: text(httpCheck),
      health: text(health),
      ops: text(ops),
    };
  }

  /** Opens everything: first what tells about the state, then what callers reach. */
  async open(): Promise<void> {
    const { opsListen, healthListen, extAuthz, httpCheck } = this.#settings;
    const engine = this.#engineOption ?? (await this.#createEngine());
    this.#engine = engine;
    engine.replaceRules(this.#table.parts);
    this.#metrics.attach(engine);
    this.#closers.push(engine.onStateChange(() => this.#changed()));
    void engine.ready.then(() => this.#resolveReady());
    const log = this.#log;
    if (opsListen !== undefined) {
      const content = {
        missing: () => this.missing(),
        metrics: () => this.metrics(),
        keys: () => this.#identity.keys,
      };
      this.#opened('ops', await openOps(opsListen, content, log));
    }
    if (healthListen !== undefined) {
      this.#health = await openHealth(healthListen, log);
      this.#opened('health', this.#health);
    }
    this.#watchUpstream();
    const identity = (): Identity => this.#identity;
    const asked = createAsked({ admit: this.#admit });
    if (extAuthz !== undefined) {
      this.#opened('extAuthz', await openExtAuthz({ ...extAuthz, asked, identity, log }));
    }
    if (httpCheck !== undefined) {
      this.#opened('httpCheck', await openHttpCheck({ ...httpCheck, asked, identity, log }));
    }
    await this.#openRelay(engine);
    this.#changed();
    log.info({ event: 'open', ...this.addresses, methods: this.#table.methods.size }, 'the gate is open');
  }

  async #openRelay(engine: Engine): Promise<void> {
    const { listen, upstream } = this.#settings;
    if (listen === undefined || upstream === undefined) return;
    this.#relay = await openRelay({
      listen,
      upstream,
      admit: this.#admit,
      identity: this.#identity,
      engine,
      metrics: this.#metrics,
      log: this.#log,
    });
    this.#opened('listen', this.#relay);
  }

  #opened(name: keyof Gate['addresses'], port: OpenPort): void {
    this.#named = { ...this.#named, [name]: port.address };
    this.#ports.push(port);
  }

  async #createEngine(): Promise<Engine> {
    const { auth, plaintext, limits } = this.#settings;
    const files = auth.tls === undefined ? undefined : readTlsFiles(auth.tls).options;
    return await createEngine({
      issuer: auth.issuer,
      audience: auth.audience,
      auth: {
        address: auth.address,
        credentials: files === undefined ? credentials.createInsecure() : upstreamCredentials(files),
        clientId: auth.clientId,
        clientKey: auth.clientKey,
        // That callers may come in plaintext says nothing about the way to auth.
        plaintext: 'loopback',
      },
      nats: auth.nats,
      plaintext,
      limits,
      log: this.#log,
      observer: this.#metrics.observer,
    });
  }

  readonly #admit: Engine['admit'] = (path, authorizations, caller) => {
    const engine = this.#engine;
    if (engine === undefined) throw new Error('the gate is not open');
    return engine.admit(path, authorizations, caller);
  };

  #watchUpstream(): void {
    const { upstream } = this.#settings;
    if (upstream === undefined) return;
    const files = upstream.tls && readTlsFiles(upstream.tls).options;
    const health = watchUpstream(
      {
        ...upstream,
        channel: files === undefined ? credentials.createInsecure() : upstreamCredentials(files),
      },
      () => this.#changed(),
    );
    this.#upstreamReason = () => health.reason;
    this.#closers.push(() => health.close());
    this.#metrics.upstreamUp(() => health.reason === '');
    let known = '';
    const timer = setInterval(() => {
      void waysAround(upstream).then((ways) => {
        this.#metrics.exposed(ways.length > 0);
        const now = ways.join('; ');
        if (now !== '' && now !== known) {
          this.#log.error({ event: 'upstream_exposed', ways }, 'the upstream can be called around the gate');
        }
        known = now;
      });
    }, EXPOSURE_INTERVAL_MS).unref();
    this.#closers.push(() => clearInterval(timer));
  }

  missing(): Missing {
    if (this.#isDraining) return { process: 'shutting down' };
    const state = this.#engine?.state();
    const reasons = {
      revocations:
        state === undefined || !state.ready
          ? 'the list is not complete yet'
          : state.current
            ? ''
            : state.staleReason || 'the list is stale',
      upstream: this.#upstreamReason(),
    };
    return Object.fromEntries(Object.entries(reasons).filter(([, reason]) => reason !== ''));
  }

  metrics(): Promise<string> {
    return this.#metrics.registry.metrics();
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  #changed(): void {
    const missing = this.missing();
    const isReady = Object.keys(missing).length === 0;
    this.#health?.setReady(isReady);
    for (const listener of this.#listeners) listener();
  }

  reload(): void {
    for (const port of this.#ports) port.reload();
    const engine = this.#engine;
    if (engine === undefined) return;
    try {
      const table = readRuleTable(this.#settings.rules);
      engine.replaceRules(table.parts);
      this.#table = table;
      this.#log.info({ event: 'rules_read', methods: table.methods.size }, 'read the access rules again');
    } catch (error) {
      this.#log.error(
        { event: 'rules_refused', why: error instanceof Error ? error.message : String(error) },
        'the access rules cannot be used; those from before stay in use',
      );
    }
  }

  async close(): Promise<void> {
    this.#isDraining = true;
    this.#changed();
    await this.#relay?.drain(this.#settings.drainMs);
    for (const closer of this.#closers.splice(0)) closer();
    for (const port of this.#ports.splice(0).reverse()) await port.close();
    if (this.#engineOption === undefined) await this.#engine?.close();
  }
}
