/** The standard health service, as used by its callers. */

import { EventEmitter } from 'node:events';
import type { ClientReadableStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import { Server, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { HealthImplementation } from 'grpc-health-check';
import {
  type HealthCheckResponse,
  HealthClient,
  type HealthListResponse,
  HealthCheckResponse_ServingStatus as Serving,
} from '../../../../proto/gen/grpc/health/v1/health.js';
import { createHealth, WATCHES_PER_TURN } from '../../../../services/common/host/health.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { ECHO_SERVICE, type RunningHost, runHost } from './running-host.js';

describe('health', () => {
  let running: RunningHost;
  let client: HealthClient;
  let missing: string;

  beforeEach(async () => {
    missing = 'the database does not answer';
    running = await runHost({ readiness: { database: () => missing, broker: () => '' } });
    client = running.connectAs(HealthClient);
  });
  afterEach(() => running.close());

  function becomeReady(): void {
    missing = '';
    running.host.readinessChanged();
  }

  function check(service: string): Promise<HealthCheckResponse['status']> {
    return new Promise((resolve, reject) => {
      client.check({ service }, (error, response) =>
        error === null ? resolve(response.status) : reject(error),
      );
    });
  }

  function list(): Promise<HealthListResponse> {
    return new Promise((resolve, reject) => {
      client.list({}, (error, response) => (error === null ? resolve(response) : reject(error)));
    });
  }

  async function next(
    stream: ClientReadableStream<HealthCheckResponse>,
  ): Promise<HealthCheckResponse['status']> {
    return new Promise((resolve, reject) => {
      stream.once('data', (response: HealthCheckResponse) => resolve(response.status));
      stream.once('error', reject);
    });
  }

  it('answers for the whole, each service and readiness; liveness does not depend on them', async () => {
    const names = ['', ECHO_SERVICE, 'grpc.health.v1.Health', 'readiness'];
    for (const name of names) expect(await check(name), name).to.equal(Serving.NOT_SERVING);
    expect(await check('liveness')).to.equal(Serving.SERVING);
    becomeReady();
    for (const name of [...names, 'liveness']) expect(await check(name), name).to.equal(Serving.SERVING);
  });

  it('notices a change that is not reported', async () => {
    missing = '';
    await until(async () => (await check('')) === Serving.SERVING);
  });

  it('answers NOT_FOUND for other names', async () => {
    expect(await rejectionOf(check('no.such.Service'))).to.have.property('code', status.NOT_FOUND);
  });

  it('lists them all', async () => {
    const { statuses } = await list();
    expect(Object.keys(statuses).sort()).to.deep.equal(
      ['', ECHO_SERVICE, 'grpc.health.v1.Health', 'liveness', 'readiness'].sort(),
    );
  });

  it('notifies watchers, and ends their calls when the process stops', async () => {
    const watch = client.watch({ service: ECHO_SERVICE });
    expect(await next(watch)).to.equal(Serving.NOT_SERVING);
    becomeReady();
    expect(await next(watch)).to.equal(Serving.SERVING);
    const last = next(watch);
    const ended = new Promise<{ code: number }>((resolve) => watch.once('status', resolve));
    await running.host.stop();
    expect(await last).to.equal(Serving.NOT_SERVING);
    expect(await ended).to.have.property('code', status.OK);
    expect(running.lines.join('')).to.not.include('cutting the calls');
  });

  it('answers watchers of an unknown name', async () => {
    const watch = client.watch({ service: 'no.such.Service' });
    expect(await next(watch)).to.equal(Serving.SERVICE_UNKNOWN);
    watch.on('error', () => {});
    watch.cancel();
  });

  it('keeps no name that only its callers know, and repeats none', async () => {
    // The library would keep the name of each watcher, even when the watcher has left.
    const library = HealthImplementation.prototype;
    const addWatcher: (...of: unknown[]) => void = Reflect.get(library, 'addWatcher');
    const kept: unknown[] = [];
    Reflect.set(library, 'addWatcher', function (this: unknown, ...of: unknown[]) {
      kept.push(of[0]);
      Reflect.apply(addWatcher, this, of);
    });
    try {
      for (const service of ['no.such.Service', ECHO_SERVICE, 'x'.repeat(10_000)]) {
        const watch = client.watch({ service });
        await next(watch);
        watch.on('error', () => {});
        watch.cancel();
      }
    } finally {
      Reflect.set(library, 'addWatcher', addWatcher);
    }
    expect(kept).to.deep.equal([]);
    const error = await rejectionOf(check('x'.repeat(10_000)));
    expect(error).to.have.property('details', 'there is no such service');
  });

  it('tells and ends many watchers some in each turn, each with the latest state', async () => {
    let watch: ((call: unknown) => void) | undefined;
    class Capture extends Server {
      override addService(_: ServiceDefinition, handlers: UntypedServiceImplementation): void {
        watch = (call) => void Reflect.apply(handlers['watch'] ?? expect.fail, handlers, [call]);
      }
    }
    const health = createHealth([]);
    health.addTo(new Capture());
    let turn = 0;
    let isCounting = true;
    const nextTurn = (): void => {
      if (!isCounting) return;
      turn += 1;
      setImmediate(nextTurn).unref();
    };
    nextTurn();
    const perTurn = new Map<number, number>();
    const states = Array.from({ length: 5 * WATCHES_PER_TURN }, (): string[] => []);
    for (const state of states) {
      const note = (what: string): void => {
        state.push(what);
        perTurn.set(turn, (perTurn.get(turn) ?? 0) + 1);
      };
      watch?.(
        Object.assign(new EventEmitter(), {
          request: { service: '' },
          write: ({ status: sent }: { status: string }) => note(sent),
          end: () => note('end'),
        }),
      );
    }
    perTurn.clear();
    health.setReady(true);
    // The first watchers have received SERVING and must receive a second status; the others need none.
    health.setReady(false);
    await until(() => states.every((state) => state.at(-1) === 'NOT_SERVING'));
    health.setReady(true);
    await until(() => states.every((state) => state.at(-1) === 'SERVING'));
    health.setReady(false);
    await health.endWatches();
    isCounting = false;
    expect(Math.max(...perTurn.values())).to.be.at.most(3 * WATCHES_PER_TURN);
    expect(new Set(states.map((state) => state.slice(-3).join()))).to.deep.equal(
      new Set(['SERVING,NOT_SERVING,end']),
    );
  });
});
