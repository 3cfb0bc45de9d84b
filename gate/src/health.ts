/** Health of the gate: its own list, and the upstream. */

import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ChannelCredentials,
  type Client,
  Metadata,
  makeGenericClientConstructor,
  Server,
  ServerCredentials,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { systemClock } from '@portcullis/guard/clock';
import { HealthImplementation, service as healthDefinition } from 'grpc-health-check';
import { type Address, formatAddress } from './addresses.js';
import type { OpenPort } from './ext-authz.js';
import type { GateLog } from './log.js';

/** Interval between two checks of the upstream, in milliseconds. */
const CHECK_INTERVAL_MS = 2_000;

/** How long the upstream may take to answer, in milliseconds. */
const CHECK_TIMEOUT_MS = 1_000;

const SERVING = 'SERVING';

/** What is missing, in one phrase by name; empty when the gate is ready. */
export type Missing = Readonly<Record<string, string>>;

/** The health of the upstream. */
export interface UpstreamHealth {
  /** Why it does not serve, in one phrase; empty when it does. */
  readonly reason: string;
  /** Whether it has no health service of its own, as far as it has said; once it has said so, also while it is silent. */
  readonly isMissing: boolean;
  close(): void;
}

const HealthClient = makeGenericClientConstructor(healthDefinition, 'grpc.health.v1.Health');

/** Asks the upstream regularly. One without a health service counts as healthy while it answers at all. */
export function watchUpstream(
  { address, channel, serverName }: { address: Address; channel: ChannelCredentials; serverName: string },
  onChange: () => void,
): UpstreamHealth {
  const client = new HealthClient(formatAddress(address), channel, {
    'grpc.ssl_target_name_override': serverName,
    'grpc.default_authority': serverName,
    'grpc.enable_retries': 0,
    'grpc.initial_reconnect_backoff_ms': 200,
    'grpc.max_reconnect_backoff_ms': CHECK_INTERVAL_MS,
  });
  let known: Asked = { reason: 'not asked yet', isMissing: false };
  let isClosed = false;
  const run = async (): Promise<void> => {
    while (!isClosed) {
      const { reason, isMissing = known.isMissing } = await ask(client);
      const isSame = reason === known.reason && isMissing === known.isMissing;
      known = { reason, isMissing };
      if (!isSame) onChange();
      await sleep(CHECK_INTERVAL_MS, undefined, { ref: false });
    }
  };
  void run();
  return {
    get reason() {
      return known.reason;
    },
    get isMissing() {
      return known.isMissing === true;
    },
    close: () => {
      isClosed = true;
      client.close();
    },
  };
}

/** What one question has found out; `isMissing` is undefined when that stays open. */
interface Asked {
  readonly reason: string;
  readonly isMissing?: boolean | undefined;
}

function ask(client: Client): Promise<Asked> {
  const method = Object.values(healthDefinition).find(({ path }) => path.endsWith('/Check'));
  if (method === undefined) throw new TypeError('expected the health service to have the method Check');
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      { service: '' },
      new Metadata(),
      { deadline: systemClock.wallMs() + CHECK_TIMEOUT_MS },
      (error: ServiceError | null, response?: unknown) => resolve(askedOf(error, response)),
    );
  });
}

function askedOf(error: ServiceError | null, response: unknown): Asked {
  if (error !== null) {
    if (UNREACHABLE.has(error.code)) return { reason: `not reachable (${status[error.code]})` };
    // A server that demands a token, or has no health service, is there.
    return { reason: '', isMissing: error.code === status.UNIMPLEMENTED };
  }
  const said =
    typeof response === 'object' && response !== null && 'status' in response ? response.status : '';
  return { reason: said === SERVING || said === 1 ? '' : `reports ${String(said)}`, isMissing: false };
}

const UNREACHABLE: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.INTERNAL,
]);

/** A health service that the gate answers itself. */
export interface HealthPort extends OpenPort {
  setReady(isReady: boolean): void;
}

/** The names that are answered: the whole, readiness, and liveness, which is always serving. */
const NAMES = ['', 'readiness'];

/** Opens a port with `grpc.health.v1` for probes that cannot ask over HTTP. */
export async function openHealth(address: Address, log: GateLog): Promise<HealthPort> {
  const implementation = new HealthImplementation({ liveness: SERVING });
  const setReady = (isReady: boolean): void => {
    for (const name of NAMES) implementation.setStatus(name, isReady ? SERVING : 'NOT_SERVING');
  };
  setReady(false);
  const server = new Server({ 'grpc.max_receive_message_length': 4096 });
  implementation.addToServer(server);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(formatAddress(address), ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  log.info({ event: 'health_open', address: formatAddress(address) }, 'answering health checks');
  return {
    address: address.kind === 'unix' ? address : { ...address, port },
    setReady,
    reload: async () => {},
    close: async () => server.forceShutdown(),
  };
}
