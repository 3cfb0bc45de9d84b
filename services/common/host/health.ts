/** The standard health service: `""`, each service, `liveness` and `readiness`. */
import type { Server, ServerWritableStream } from '@grpc/grpc-js';
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
  const watches = new Set<ServerWritableStream<unknown, unknown>>();
  const setReady = (ready: boolean) => {
    for (const name of names) implementation.setStatus(name, ready ? 'SERVING' : 'NOT_SERVING');
  };
  setReady(false);
  return {
    setReady,
    addTo: (server) => addHealthService(server, implementation, watches),
    endWatches: () => {
      for (const watch of watches) watch.end();
    },
  };
}

function addHealthService(
  server: Server,
  implementation: HealthImplementation,
  watches: Set<ServerWritableStream<unknown, unknown>>,
): void {
  implementation.addToServer({
    addService: (definition, handlers) => {
      const { watch } = handlers;
      if (watch === undefined) throw new TypeError('the health service has no method Watch');
      server.addService(definition, {
        ...handlers,
        watch: (call: ServerWritableStream<unknown, unknown>) => {
          watches.add(call);
          call.once('cancelled', () => watches.delete(call));
          Reflect.apply(watch, handlers, [call]);
        },
      });
    },
  });
}
