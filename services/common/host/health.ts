/** The standard health service: `""`, each service, `liveness` and `readiness`. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Server, ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';
import { HealthImplementation, service as healthDefinition } from 'grpc-health-check';

/** The full name of the health service. */
export const HEALTH_SERVICE = 'grpc.health.v1.Health';

/** The full paths of its methods. */
export const HEALTH_METHODS: readonly string[] = Object.values(healthDefinition).map((method) => method.path);

/**
 * Maximum number of watchers that are notified in one turn of the event loop. Watch needs no token, so there may be
 * thousands of them.
 */
export const WATCHES_PER_TURN = 32;

/** The health of one process. */
export interface Health {
  /** Adds the health service to a server. */
  addTo(server: Server): void;
  /** Sets SERVING or NOT_SERVING for all names but `liveness`, and notifies the watchers. */
  setReady(ready: boolean): void;
  /** Ends the Watch calls: they last as long as their callers like, and would delay a drain. */
  endWatches(): Promise<void>;
}

/** Not serving yet, but alive. */
export function createHealth(serviceNames: readonly string[]): Health {
  const implementation = new HealthImplementation({ liveness: 'SERVING' });
  const names = ['', ...serviceNames, HEALTH_SERVICE, 'readiness'];
  const statuses = new Map<string, ServingStatus>([['liveness', 'SERVING']]);
  const watches = new Watches(statuses);
  const setReady = (ready: boolean) => {
    for (const name of names) {
      statuses.set(name, ready ? 'SERVING' : 'NOT_SERVING');
      implementation.setStatus(name, ready ? 'SERVING' : 'NOT_SERVING');
    }
    void watches.tell();
  };
  setReady(false);
  return {
    setReady,
    addTo: (server) => addHealthService(server, implementation, { statuses, watches }),
    endWatches: () => watches.end(),
  };
}

/** A request as the library reads it. */
interface HealthRequest {
  readonly service: string;
}

type ServingStatus = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

type WatchCall = ServerWritableStream<HealthRequest, { readonly status: ServingStatus }>;

/** The Watch calls under way. */
class Watches {
  /** By the names that this process has. */
  readonly #statuses: ReadonlyMap<string, ServingStatus>;
  /** The calls, each with the status that was sent last. */
  readonly #told = new Map<WatchCall, ServingStatus>();
  #isTelling = false;
  #isEnding = false;

  constructor(statuses: ReadonlyMap<string, ServingStatus>) {
    this.#statuses = statuses;
  }

  /** Tells a new watcher. */
  add(call: WatchCall): void {
    call.once('cancelled', () => this.#told.delete(call));
    this.#tellOne(call);
    if (this.#isEnding) this.#end(call);
  }

  /** Notifies the watchers whose last status is not the current one, until there are none. */
  async tell(): Promise<void> {
    if (this.#isTelling) return;
    this.#isTelling = true;
    try {
      while ((await this.#tellAll()) > 0);
    } finally {
      this.#isTelling = false;
    }
  }

  async end(): Promise<void> {
    this.#isEnding = true;
    for (const [index, call] of [...this.#told.keys()].entries()) {
      if (index > 0 && index % WATCHES_PER_TURN === 0) await nextTurn();
      const last = this.#told.get(call);
      if (last === undefined) continue;
      if (last !== this.#statusOf(call)) this.#tellOne(call);
      this.#end(call);
    }
  }

  /** @returns how many watchers were notified */
  async #tellAll(): Promise<number> {
    let told = 0;
    for (const [call, last] of this.#told) {
      if (last === this.#statusOf(call)) continue;
      this.#tellOne(call);
      told += 1;
      if (told % WATCHES_PER_TURN === 0) await nextTurn();
    }
    return told;
  }

  #end(call: WatchCall): void {
    this.#told.delete(call);
    call.end();
  }

  #tellOne(call: WatchCall): void {
    const current = this.#statusOf(call);
    this.#told.set(call, current);
    call.write({ status: current });
  }

  #statusOf({ request }: WatchCall): ServingStatus {
    return this.#statuses.get(request.service) ?? 'SERVICE_UNKNOWN';
  }
}

/** The library repeats an unknown name in its error, so it sees the names of this process alone. Callers choose the others. */
function addHealthService(
  server: Server,
  implementation: HealthImplementation,
  { statuses, watches }: { statuses: ReadonlyMap<string, ServingStatus>; watches: Watches },
): void {
  implementation.addToServer({
    addService: (definition, handlers) => {
      const { check } = handlers;
      if (check === undefined) throw new TypeError('expected the health service to have the method Check');
      server.addService(definition, {
        ...handlers,
        check: (call: ServerUnaryCall<HealthRequest, unknown>, callback: sendUnaryData<unknown>) => {
          if (statuses.has(call.request.service)) Reflect.apply(check, handlers, [call, callback]);
          else callback({ code: status.NOT_FOUND, details: 'there is no such service' });
        },
        watch: (call: WatchCall) => watches.add(call),
      });
    },
  });
}
