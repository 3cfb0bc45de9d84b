/** One gate: the engine that decides, and the ports at which it is asked. */

import { type ChannelCredentials, credentials } from '@grpc/grpc-js';
import { createEngine, type Engine } from '@portcullis/guard/engine';
import { channelCredentialsFrom, type TlsFiles, type TlsWatch, watchTlsFiles } from '@portcullis/guard/tls';
import { type Address, formatAddress, portError } from './addresses.js';
import { createAsked } from './decide.js';
import { type ExposureWatch, watchExposure } from './exposure-watch.js';
import { type OpenPort, openExtAuthz } from './ext-authz.js';
import type { FlagName } from './flags.js';
import { type HealthPort, type Missing, openHealth, type UpstreamHealth, watchUpstream } from './health.js';
import { openHttpCheck } from './http-check.js';
import { createIdentity, type Identity } from './identity.js';
import type { GateLog } from './log.js';
import { createGateMetrics, type GateMetrics } from './metrics.js';
import { openOps } from './ops.js';
import { OwnHealth } from './own-health.js';
import { openRelay, type RelayPort } from './relay-port.js';
import { type RuleTable, readRuleTable } from './rules.js';
import type { GateSettings } from './settings.js';

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
  /**
   * Reads rules and certificates again. Those that cannot be used are logged, and the former ones stay in use. Never
   * rejects.
   */
  reload(): Promise<void>;
  /**
   * Refuses new connections, lets calls end for as long as the settings say, and closes everything. Once `hurry` is aborted,
   * calls are waited for no longer: they end with UNAVAILABLE.
   */
  close(hurry?: AbortSignal): Promise<void>;
}

/** What a program may bring to its gate. */
export interface GateParts {
  readonly log: GateLog;
  /** Default: an engine that follows auth, as the settings say. */
  readonly engine?: Engine | undefined;
  /** Default: metrics of its own. */
  readonly metrics?: GateMetrics | undefined;
  /** Whether callers find it only when it is ready for the first time. Default: it refuses calls until then. */
  readonly opensWhenReady?: boolean | undefined;
}

/**
 * Starts a gate. It refuses calls with REVOCATION_STATE_STALE until it has the revocation list.
 *
 * @throws RulesError when a method has no rule; Error when a port cannot be opened, or the upstream can be called around
 *   the gate and the settings forbid that
 */
export async function startGate(settings: GateSettings, parts: GateParts): Promise<Gate> {
  const gate = new RunningGate(settings, readRuleTable(settings.rules), parts);
  try {
    await gate.open();
    return gate;
  } catch (error) {
    await gate.close();
    throw error;
  }
}

class RunningGate implements Gate {
  readonly ready: Promise<void>;
  readonly #settings: GateSettings;
  readonly #log: GateLog;
  readonly #identity: Identity;
  readonly #metrics: GateMetrics;
  readonly #engineOption: Engine | undefined;
  readonly #opensWhenReady: boolean;
  readonly #listeners = new Set<() => void>();
  readonly #ports: OpenPort[] = [];
  readonly #closers: (() => void)[] = [];
  readonly #certificates: TlsWatch[] = [];
  readonly #ownHealth = new OwnHealth({
    isMissing: () => this.#upstreamHealth?.isMissing === true,
    isServing: () => Object.keys(this.missing()).length === 0,
    paths: () => this.#table.methods.keys(),
  });
  #table: RuleTable;
  #engine: Engine | undefined;
  #relay: RelayPort | undefined;
  #named: Partial<Record<keyof Gate['addresses'], Address>> = {};
  #health: HealthPort | undefined;
  #upstreamHealth: UpstreamHealth | undefined;
  #exposure: ExposureWatch | undefined;
  #isDraining = false;
  #resolveReady: () => void = () => {};

  constructor(settings: GateSettings, table: RuleTable, parts: GateParts) {
    const { log, engine, metrics, opensWhenReady = false } = parts;
    this.#settings = settings;
    this.#table = table;
    this.#log = log;
    this.#engineOption = engine;
    this.#opensWhenReady = opensWhenReady;
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
    const { opsListen, healthListen, extAuthz, httpCheck, upstream } = this.#settings;
    if (upstream !== undefined) {
      this.#exposure = await watchExposure(upstream, this.#log, () => this.#changed());
      this.#closers.push(() => this.#exposure?.close());
    }
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
      await this.#opened('ops', 'ops-listen', opsListen, openOps(opsListen, content, log));
    }
    if (healthListen !== undefined) {
      const opening = openHealth(healthListen, log);
      this.#health = await this.#opened('health', 'health-listen', healthListen, opening);
    }
    const upstreamTls = this.#watchUpstream();
    if (this.#opensWhenReady) await this.#allPresent();
    const identity = (): Identity => this.#identity;
    const asked = createAsked({ admit: this.#admit });
    if (extAuthz !== undefined) {
      const opening = openExtAuthz({ ...extAuthz, asked, identity, log });
      await this.#opened('extAuthz', 'ext-authz', extAuthz.address, opening);
    }
    if (httpCheck !== undefined) {
      const opening = openHttpCheck({ ...httpCheck, asked, identity, log });
      await this.#opened('httpCheck', 'http-check', httpCheck.address, opening);
    }
    await this.#openRelay(engine, upstreamTls);
    this.#changed();
    log.info({ event: 'open', ...this.addresses, methods: this.#table.methods.size }, 'the gate is open');
  }

  /** Resolves when nothing is missing for the first time. */
  #allPresent(): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (Object.keys(this.missing()).length > 0) return;
        this.#listeners.delete(look);
        resolve();
      };
      this.#listeners.add(look);
      look();
    });
  }

  async #openRelay(engine: Engine, upstreamTls: TlsWatch | undefined): Promise<void> {
    const { listen, upstream } = this.#settings;
    if (listen === undefined || upstream === undefined) return;
    const opening = openRelay({
      listen,
      upstream,
      upstreamTls,
      admit: this.#admit,
      identity: this.#identity,
      health: this.#ownHealth,
      engine,
      metrics: this.#metrics,
      log: this.#log,
    });
    this.#relay = await this.#opened('listen', 'listen', listen.address, opening);
  }

  /** @throws Error that names the setting, when the port cannot be opened */
  async #opened<Port extends OpenPort>(
    name: keyof Gate['addresses'],
    setting: FlagName,
    address: Address,
    opening: Promise<Port>,
  ): Promise<Port> {
    const port = await opening.catch((error: unknown) => {
      throw error instanceof TypeError ? error : portError(setting, address, error);
    });
    this.#named = { ...this.#named, [name]: port.address };
    this.#ports.push(port);
    return port;
  }

  async #createEngine(): Promise<Engine> {
    const { auth, plaintext, mode, limits, trustedIssuers } = this.#settings;
    return await createEngine({
      issuer: auth.issuer,
      audience: auth.audience,
      auth: {
        address: auth.address,
        credentials: channelCredentials(this.#certificatesIn(auth.tls)),
        clientId: auth.clientId,
        clientKey: auth.clientKey,
        // That callers may come in plaintext says nothing about the way to auth.
        plaintext: 'loopback',
      },
      nats: auth.nats,
      plaintext,
      mode,
      limits,
      trustedIssuers,
      log: this.#log,
      observer: this.#metrics.observer,
    });
  }

  /** Certificates that follow their files until the gate is closed. */
  #certificatesIn(files: TlsFiles | undefined): TlsWatch | undefined {
    if (files === undefined) return undefined;
    const watch = watchTlsFiles({ files, log: this.#log });
    this.#certificates.push(watch);
    this.#closers.push(() => watch.close());
    return watch;
  }

  readonly #admit: Engine['admit'] = (path, authorizations, caller) => {
    const engine = this.#engine;
    if (engine === undefined) throw new Error('the gate is not open');
    const refusal = this.#exposure?.refusal;
    // Its own health says why it is not ready.
    if (refusal !== undefined && this.#ownHealth.methodAt(path) === undefined) {
      this.#metrics.relayEvent('refused_exposed');
      return { kind: 'refused', status: refusal };
    }
    return engine.admit(path, authorizations, caller);
  };

  #watchUpstream(): TlsWatch | undefined {
    const { upstream } = this.#settings;
    if (upstream === undefined) return undefined;
    const tls = this.#certificatesIn(upstream.tls);
    const health = watchUpstream({ ...upstream, channel: channelCredentials(tls) }, () => this.#changed());
    this.#upstreamHealth = health;
    this.#closers.push(() => health.close());
    this.#metrics.upstreamUp(() => health.reason === '');
    return tls;
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
      upstream: this.#upstreamHealth?.reason ?? '',
      exposure: this.#exposure?.reason ?? '',
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
    this.#metrics.exposed(this.#exposure?.isExposed === true);
    void this.#ownHealth.changed();
    for (const listener of this.#listeners) listener();
  }

  async reload(): Promise<void> {
    this.#reloadRules();
    await Promise.all([
      ...this.#certificates.map((watch) => watch.reload()),
      ...this.#ports.map((port) => port.reload()),
      this.#exposure?.look(),
    ]);
  }

  #reloadRules(): void {
    const engine = this.#engine;
    if (engine === undefined) return;
    try {
      const table = readRuleTable(this.#settings.rules);
      engine.replaceRules(table.parts);
      this.#table = table;
      void this.#ownHealth.changed();
      this.#log.info({ event: 'rules_read', methods: table.methods.size }, 'read the access rules again');
    } catch (error) {
      this.#log.error(
        { event: 'rules_refused', why: error instanceof Error ? error.message : String(error) },
        'the access rules cannot be used; those from before stay in use',
      );
    }
  }

  async close(hurry?: AbortSignal): Promise<void> {
    this.#isDraining = true;
    this.#changed();
    await this.#ownHealth.close();
    await this.#relay?.drain(this.#settings.drainMs, hurry);
    for (const closer of this.#closers.splice(0)) closer();
    for (const port of this.#ports.splice(0).reverse()) await port.close();
    if (this.#engineOption === undefined) await this.#engine?.close();
  }
}

/** Credentials with which every new connection uses the current certificates; plaintext without files. */
function channelCredentials(watch: TlsWatch | undefined): ChannelCredentials {
  return watch === undefined ? credentials.createInsecure() : channelCredentialsFrom(watch);
}
