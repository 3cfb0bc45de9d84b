/** The HTTP port for operators: `/livez`, `/readyz`, `/metrics`, and the routes of a service. */
import { systemClock } from '@portcullis/guard';
import type { Registry } from 'prom-client';
import {
  type HttpPort,
  type HttpPortOptions,
  type HttpRoute,
  jsonAnswer,
  openHttpPort,
} from './http-port.js';

/** Rendering the metrics takes milliseconds, and any caller may ask for them: more than this a second get the last. */
const RENDERINGS_PER_SECOND = 10;

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
  return await openHttpPort({ ...options, routes });
}

/** Callers share what was rendered last once there are too many, and its memory, if they read it slowly. */
function metricsRoute(registry: Registry): HttpRoute {
  let last: Promise<Buffer> | undefined;
  let allowed = RENDERINGS_PER_SECOND;
  let refilledAtMs = systemClock.monotonicMs();
  return async () => {
    const nowMs = systemClock.monotonicMs();
    allowed = Math.min(
      RENDERINGS_PER_SECOND,
      allowed + ((nowMs - refilledAtMs) * RENDERINGS_PER_SECOND) / 1_000,
    );
    refilledAtMs = nowMs;
    if (last === undefined || allowed >= 1) {
      allowed -= 1;
      last = registry.metrics().then((text) => Buffer.from(text, 'utf8'));
      last.catch(() => {
        last = undefined;
      });
    }
    return { status: 200, contentType: registry.contentType, body: await last };
  };
}
