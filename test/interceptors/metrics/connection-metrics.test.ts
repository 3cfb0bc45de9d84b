/** Metrics of the connections of a guard, with a real nats-server whose passwords change. */

import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { credentials } from '@grpc/grpc-js';
import { createGuard, type Guard } from '@portcullis/guard';
import { createGuardMetrics } from '@portcullis/guard/metrics';
import { expect } from 'chai';
import type { Registry } from 'prom-client';
import { LIMIT_NAMES } from '../../../interceptors/src/server/guard-limits.js';
import { type Nats, natsConfiguration, startNats } from '../../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { until } from '../../support/waiting.js';

const password = (value: string) => ({
  authorization: { users: [{ user: 'inventory', password: value }] },
});

describe('the metrics of connections', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let server: Nats;
  let guard: Guard;
  let registry: Registry;
  let lines: Record<string, unknown>[];

  beforeEach(async () => {
    folder = await makeTemporaryFolder();
    server = await startNats({ dataDir: folder.path, port: 0, authentication: password('right') });
    lines = [];
    const note = (fields: object) => void lines.push({ ...fields });
    guard = await createGuard({
      issuer: 'https://auth.test',
      audience: 'inventory',
      auth: {
        address: '127.0.0.1:1',
        credentials: credentials.createInsecure(),
        clientId: 'inventory',
        clientKey: generateKeyPairSync('ed25519').privateKey,
      },
      nats: { url: `nats://inventory:right@127.0.0.1:${server.port}` },
      log: { info: note, warn: note, error: note },
    });
    const metrics = createGuardMetrics();
    metrics.attach(guard, { brokerUses: () => [{ use: 'broadcasts', state: 'connecting' }] });
    ({ registry } = metrics);
  });
  afterEach(async () => {
    await guard.close();
    await server.stop();
    await folder.remove();
  });

  async function setPassword(value: string): Promise<void> {
    const { port } = server;
    const text = natsConfiguration({ port, authentication: password(value) });
    await writeFile(`${folder.path}/nats.conf`, text);
    server.kill('SIGHUP');
  }

  /** The values of the metrics that are not 0. */
  async function scrape(): Promise<string[]> {
    const text = await registry.metrics();
    return text
      .split('\n')
      .filter((line) => line.startsWith('portcullis_broker') && !line.endsWith(' 0'))
      .map((line) => line.replace('portcullis_', ''));
  }

  const broker = (reason: string): string[] => [
    ...['revocations', 'reports'].map((use) => `broker_state{use="${use}",reason="${reason}"} 1`),
    'broker_state{use="broadcasts",reason="connecting"} 1',
  ];
  const connected = ['revocations', 'reports'].map((use) => `broker_connected{use="${use}"} 1`);
  const areAll = (state: string) => () => guard.state().broker.every((one) => one.state === state);

  it('state that the broker refuses the password, and that it is connected again, with a line for each change', async () => {
    await until(areAll('connected'));
    expect(await scrape()).to.have.members([...connected, ...broker('connected')]);
    await setPassword('other');
    await until(areAll('refused'));
    expect(await scrape()).to.have.members([...broker('refused')]);
    const refusals = lines.filter(({ reason }) => reason === 'refused');
    expect(refusals.map(({ event }) => event)).to.have.members(['broker_lost', 'reports_lost']);
    await setPassword('right');
    await until(areAll('connected'));
    expect(await scrape()).to.have.members([...connected, ...broker('connected')]);
    expect(lines.filter(({ reason }) => reason === 'refused')).to.deep.equal(refusals);
  });

  it('state that auth has not answered', async () => {
    expect(await registry.metrics()).to.contain('\nportcullis_last_sync_succeeded 0\n');
  });

  it('count every limit from 0 on, so that the first refusal is an increase', async () => {
    const text = await registry.metrics();
    for (const limit of LIMIT_NAMES) expect(text).to.contain(`portcullis_limited_total{limit="${limit}"} 0`);
  });
});
