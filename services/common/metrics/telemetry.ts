/** OpenTelemetry, where an operator has turned it on: spans of calls and metrics of the guard, beside those of prom-client. */

import type { Interceptor, ServerInterceptor } from '@grpc/grpc-js';
import type { Guard, GuardObserver } from '@portcullis/guard';

/** What calls pass, and what a guard reports to. */
export interface Telemetry {
  /** Of the server: the first one, but for metrics. */
  readonly server: readonly ServerInterceptor[];
  /** Of clients, before what authenticates. */
  readonly client: readonly Interceptor[];
  /** Reports to both. */
  observe(observer: GuardObserver): GuardObserver;
  /** @returns a function that ends it */
  attach(guard: Guard): () => void;
  /** Why spans and metrics go nowhere, for the log; undefined when they arrive somewhere, or telemetry is off. */
  readonly fault?: string;
}

/** Nothing is traced. */
const NOTHING: Telemetry = {
  server: [],
  client: [],
  observe: (observer) => observer,
  attach: () => () => undefined,
};

const NO_SDK =
  'PORTCULLIS_OPENTELEMETRY is on, but no SDK of OpenTelemetry is loaded, so nothing is reported: ' +
  'load one with node --import, which must use the same copy of @opentelemetry/api';

/** Whether the package of OpenTelemetry's API is installed. The guard has it as an optional peer. */
export function hasOpenTelemetry(): boolean {
  try {
    import.meta.resolve('@opentelemetry/api');
    return true;
  } catch {
    return false;
  }
}

/** Loads OpenTelemetry if it is on. An SDK that Node loads before this process gives spans and metrics a way out. */
export async function openTelemetry(isOn: boolean): Promise<Telemetry> {
  if (!isOn) return NOTHING;
  const { createGuardTelemetry, isSdkRegistered, observeClient, observeServer } = await import(
    '@portcullis/guard/opentelemetry'
  );
  const telemetry = createGuardTelemetry();
  return {
    ...(isSdkRegistered() ? {} : { fault: NO_SDK }),
    server: [observeServer()],
    client: [observeClient()],
    observe: (observer) => inTurn(observer, telemetry.observer),
    attach: telemetry.attach,
  };
}

function inTurn(one: GuardObserver, other: GuardObserver): GuardObserver {
  return {
    decided: (path, outcome) => {
      one.decided?.(path, outcome);
      other.decided?.(path, outcome);
    },
    observed: (path, reason) => {
      one.observed?.(path, reason);
      other.observed?.(path, reason);
    },
    tokenInvalid: (fault) => {
      one.tokenInvalid?.(fault);
      other.tokenInvalid?.(fault);
    },
    fenceRefused: (reason) => {
      one.fenceRefused?.(reason);
      other.fenceRefused?.(reason);
    },
    limited: (limit) => {
      one.limited?.(limit);
      other.limited?.(limit);
    },
    broadcastForged: () => {
      one.broadcastForged?.();
      other.broadcastForged?.();
    },
    verified: (ms) => {
      one.verified?.(ms);
      other.verified?.(ms);
    },
  } satisfies Required<GuardObserver>;
}
