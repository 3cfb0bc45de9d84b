/** OpenTelemetry in the services: when it is on, it goes somewhere, or the log says why not. */

import { metrics, trace } from '@opentelemetry/api';
import { MeterProvider } from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider } from '@opentelemetry/sdk-trace-base';
import { expect } from 'chai';
import { openTelemetry } from '../../../../services/common/metrics/telemetry.js';

describe('the telemetry of a service', () => {
  afterEach(() => {
    trace.disable();
    metrics.disable();
  });

  it('reports that no SDK is loaded', async () => {
    expect((await openTelemetry(true)).fault)
      .to.include('PORTCULLIS_OPENTELEMETRY')
      .and.include('--import');
  });

  it('finds an SDK that has spans, or metrics alone', async () => {
    trace.setGlobalTracerProvider(new BasicTracerProvider());
    expect((await openTelemetry(true)).fault).to.equal(undefined);
    trace.disable();
    metrics.setGlobalMeterProvider(new MeterProvider());
    expect((await openTelemetry(true)).fault).to.equal(undefined);
  });

  it('misses nothing while it is off', async () => {
    expect((await openTelemetry(false)).fault).to.equal(undefined);
  });
});
