/** `grpc.health.v1` at the callers' port, in the place of an upstream that has no health service of its own. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { service as definition } from 'grpc-health-check';
import { OWN_MESSAGE_BYTES_MAX, type OwnMethod, type OwnResponder, type RelayStatus } from './relay/judge.js';
import { plainStatus } from './relay/statuses.js';

const PREFIX = '/grpc.health.v1.Health/';

const INVALID_ARGUMENT = 3;
const NOT_FOUND = 5;
const RESOURCE_EXHAUSTED = 8;
const UNAVAILABLE = 14;

const OK: RelayStatus = {
  headers: [['grpc-status', '0']],
  trailersOnly: [
    [':status', '200'],
    ['grpc-status', '0'],
    ['content-type', 'application/grpc+proto'],
  ],
};
const MALFORMED = plainStatus(INVALID_ARGUMENT, 'expected a HealthCheckRequest');
const UNKNOWN = plainStatus(NOT_FOUND, 'unknown service');
const TOO_MANY = plainStatus(RESOURCE_EXHAUSTED, 'too many services: ask for one');
const STOPPING = plainStatus(UNAVAILABLE, 'the gate stops');

/** The maximum number of watchers that are notified or ended in one turn of the event loop. Anyone may watch. */
export const WATCHERS_PER_TURN = 256;

/** What the answers depend on. */
export interface HealthFacts {
  /** Whether the upstream has no health service of its own. */
  readonly isMissing: () => boolean;
  /** Whether the gate is ready. */
  readonly isServing: () => boolean;
  /** The full paths of the methods that the gate admits: of their services it knows the health. */
  readonly paths: () => Iterable<string>;
}

type ServingStatus = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

/** One open Watch. */
interface Watcher {
  readonly service: string;
  readonly responder: OwnResponder;
  told: ServingStatus;
}

/** Answers health checks: every service of the upstream is as healthy as the gate is ready. */
export class OwnHealth {
  readonly #facts: HealthFacts;
  readonly #watchers = new Set<Watcher>();
  readonly #methods: ReadonlyMap<string, OwnMethod>;
  #isTelling = false;
  #isClosed = false;

  constructor(facts: HealthFacts) {
    this.#facts = facts;
    this.#methods = new Map<string, OwnMethod>([
      [`${PREFIX}Check`, { open: (request, responder) => this.#check(request, responder) }],
      [`${PREFIX}Watch`, { open: (request, responder) => this.#watch(request, responder) }],
      [`${PREFIX}List`, { open: (_, responder) => this.#list(responder) }],
    ]);
  }

  /** How a method is answered here; undefined when the upstream answers it. */
  methodAt(path: string): OwnMethod | undefined {
    return this.#facts.isMissing() ? this.#methods.get(path) : undefined;
  }

  /** Tells those who watch, when the answer has changed; resolves when all know the present one. */
  async changed(): Promise<void> {
    // The loop below runs until no watcher was notified, so a running one notifies of this change, too.
    if (this.#isTelling) return;
    this.#isTelling = true;
    try {
      while ((await this.#tellAll()) > 0);
    } finally {
      this.#isTelling = false;
    }
  }

  /** Ends what watches: the gate stops. */
  async close(): Promise<void> {
    this.#isClosed = true;
    let ended = 0;
    for (const watcher of [...this.#watchers]) {
      // It may have ended meanwhile.
      if (!this.#watchers.delete(watcher)) continue;
      this.#tell(watcher);
      watcher.responder.end(STOPPING);
      ended += 1;
      if (ended % WATCHERS_PER_TURN === 0) await nextTurn();
    }
  }

  /** @returns how many were told */
  async #tellAll(): Promise<number> {
    let told = 0;
    for (const watcher of this.#watchers) {
      if (!this.#tell(watcher)) continue;
      told += 1;
      if (told % WATCHERS_PER_TURN === 0) await nextTurn();
    }
    return told;
  }

  #statusOf(service: string): ServingStatus {
    if (service !== '' && !this.#isKnown(service)) return 'SERVICE_UNKNOWN';
    return this.#facts.isServing() ? 'SERVING' : 'NOT_SERVING';
  }

  /** Strangers ask often: nothing is built for it. */
  #isKnown(service: string): boolean {
    for (const path of this.#facts.paths()) {
      if (path.lastIndexOf('/') === service.length + 1 && path.startsWith(service, 1)) return true;
    }
    return false;
  }

  #check(request: Buffer, responder: OwnResponder): () => void {
    const service = serviceIn(request);
    const status = service === undefined ? undefined : this.#statusOf(service);
    if (status === undefined) {
      responder.end(MALFORMED);
    } else if (status === 'SERVICE_UNKNOWN') {
      responder.end(UNKNOWN);
    } else {
      responder.send(serialized('Check', { status }));
      responder.end(OK);
    }
    return () => {};
  }

  #list(responder: OwnResponder): () => void {
    const services = new Set(['']);
    for (const path of this.#facts.paths()) services.add(path.slice(1, path.lastIndexOf('/')));
    const status = this.#statusOf('');
    const list = serialized('List', {
      statuses: Object.fromEntries([...services].map((service) => [service, { status }])),
    });
    if (list.length > OWN_MESSAGE_BYTES_MAX) {
      responder.end(TOO_MANY);
    } else {
      responder.send(list);
      responder.end(OK);
    }
    return () => {};
  }

  #watch(request: Buffer, responder: OwnResponder): () => void {
    const service = serviceIn(request);
    if (service === undefined || this.#isClosed) {
      responder.end(service === undefined ? MALFORMED : STOPPING);
      return () => {};
    }
    const told = this.#statusOf(service);
    const watcher: Watcher = { service, responder, told };
    this.#watchers.add(watcher);
    responder.send(serialized('Watch', { status: told }));
    return () => void this.#watchers.delete(watcher);
  }

  /** @returns whether there was something to tell */
  #tell(watcher: Watcher): boolean {
    const status = this.#statusOf(watcher.service);
    if (status === watcher.told) return false;
    watcher.told = status;
    watcher.responder.send(serialized('Watch', { status }));
    return true;
  }
}

function methodOf(name: string) {
  const method = definition[name];
  if (method === undefined) throw new TypeError(`expected the health service to have the method ${name}`);
  return method;
}

function serialized(name: string, response: object): Buffer {
  return methodOf(name).responseSerialize(response);
}

/** The name in a HealthCheckRequest; undefined when it is none. */
function serviceIn(request: Buffer): string | undefined {
  try {
    const read: unknown = methodOf('Check').requestDeserialize(request);
    const service = typeof read === 'object' && read !== null && 'service' in read ? read.service : '';
    return typeof service === 'string' ? service : undefined;
  } catch {
    return undefined;
  }
}
