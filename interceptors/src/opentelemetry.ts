/** The door for spans and metrics of OpenTelemetry. */

export { type ObserveOptions, observeClient, observeServer } from './otel/calls.js';
export { createGuardTelemetry, type GuardTelemetry } from './otel/guard.js';
export { isSdkRegistered } from './otel/sdk.js';
