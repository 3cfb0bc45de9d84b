/** Whether what the API of OpenTelemetry receives goes anywhere. */

import { createNoopMeter, metrics, ProxyTracerProvider, trace } from '@opentelemetry/api';

/**
 * Whether an SDK of OpenTelemetry has been registered, for traces or for metrics. Without one the API does nothing; so it
 * does when the SDK has registered itself with an older copy of the API than the one that this library uses.
 */
export function isSdkRegistered(): boolean {
  const provider = trace.getTracerProvider();
  const takesSpans =
    !(provider instanceof ProxyTracerProvider) ||
    provider.getDelegate() !== new ProxyTracerProvider().getDelegate();
  return takesSpans || metrics.getMeterProvider().getMeter('@portcullis/guard') !== createNoopMeter();
}
