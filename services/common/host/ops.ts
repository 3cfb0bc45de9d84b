/** The HTTP port for operators: `/livez`, `/readyz`, `/metrics`, and the routes of a service. */
import type { Registry } from 'prom-client';
import {
  type HttpPort,
  type HttpPortOptions,
  type HttpRoute,
  jsonAnswer,
  openHttpPort,
} from './http-port.js';
import { shareRendering } from './shared-rendering.js';

/** Answered whatever their address has sent before: an orchestrator would restart the process otherwise. */
const PROBES: ReadonlySet<string> = new Set(['/livez', '/readyz']);

export interface OpsOptions extends HttpPortOptions {
  readonly registry: Registry;
  /** What is missing, by name; empty when the process is ready. */
  readonly missing: () => Readonly<Record<string, string>>;
}

/** Opens the port. No route of a service can replace those that every process has. */
export async function startOps(options: OpsOptions): Promise<HttpPort> {
  const { registry, missing } = options;
  const routes = {
    ...options.routes,
    '/livez': () => jsonAnswer(200, { status: 'alive' }),
    '/readyz': () => {
      const what = missing();
      const ready = Object.keys(what).length === 0;
      return ready
        ? jsonAnswer(200, { status: 'ready' })
        : jsonAnswer(503, { status: 'not ready', missing: what });
    },
    '/metrics': metricsRoute(registry),
  };
  return await openHttpPort({ ...options, routes, probes: PROBES });
}

function metricsRoute(registry: Registry): HttpRoute {
  const body = shareRendering(async () => Buffer.from(await registry.metrics(), 'utf8'));
  return async () => ({ status: 200, contentType: registry.contentType, body: await body() });
}
