/** The standard health service: `""`, each service, `liveness` and `readiness`. */
import type { Server, ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';
import { HealthImplementation, service as healthDefinition } from 'grpc-health-check';

/** The full name of the health service. */
export const HEALTH_SERVICE = 'grpc.health.v1.Health';

/** The full paths of its methods. */
export const HEALTH_METHODS: readonly string[] = Object.values(healthDefinition).map((method) => method.path);

/** The health of one process. */
export interface Health {
  /** Adds the health service to a server. */
  addTo(server: Server): void;
  /** Sets SERVING or NOT_SERVING for all names but `liveness`, and notifies the watchers. */
  setReady(ready: boolean): void;
  /** Ends the Watch calls: they last as long as their callers like, and would delay a drain. */
  endWatches(): void;
}

/** Not serving yet, but alive. */
export function createHealth(serviceNames: readonly string[]): Health {
  const implementation = new HealthImplementation({ liveness: 'SERVING' });
  const names = ['', ...serviceNames, HEALTH_SERVICE, 'readiness'];
  const known = new Set([...names, 'liveness']);
  const watches = new Set<Watch>();
  const setReady = (ready: boolean) => {
    for (const name of names) implementation.setStatus(name, ready ? 'SERVING' : 'NOT_SERVING');
  };
  setReady(false);
  return {
    setReady,
    addTo: (server) => addHealthService(server, implementation, { known, watches }),
    endWatches: () => {
      for (const watch of watches) watch.end();
    },
  };
}

/** A request as the library reads it. */
interface HealthRequest {
  readonly service: string;
}

type Watch = ServerWritableStream<HealthRequest, unknown>;

/**
 * The library keeps the name of every watched service for ever and repeats an unknown name in its error, so it sees the
 * names of this process alone. Callers choose the others.
 */
function addHealthService(
  server: Server,
  implementation: HealthImplementation,
  { known, watches }: { known: ReadonlySet<string>; watches: Set<Watch> },
): void {
  implementation.addToServer({
    addService: (definition, handlers) => {
      const { check, watch } = handlers;
      if (check === undefined || watch === undefined) {
        throw new TypeError('expected the health service to have the methods Check and Watch');
      }
      server.addService(definition, {
        ...handlers,
        check: (call: ServerUnaryCall<HealthRequest, unknown>, callback: sendUnaryData<unknown>) => {
          if (known.has(call.request.service)) Reflect.apply(check, handlers, [call, callback]);
          else callback({ code: status.NOT_FOUND, details: 'there is no such service' });
        },
        watch: (call: Watch) => {
          watches.add(call);
          call.once('cancelled', () => watches.delete(call));
          if (known.has(call.request.service)) Reflect.apply(watch, handlers, [call]);
          else call.write({ status: 'SERVICE_UNKNOWN' });
        },
      });
    },
  });
}
