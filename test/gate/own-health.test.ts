/** `grpc.health.v1` at the callers' port: of the upstream where it has it, else of the gate. */

import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Client, type ClientReadableStream, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { service as definition, HealthImplementation } from 'grpc-health-check';
import { OwnHealth, WATCHERS_PER_TURN } from '../../gate/src/own-health.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { bearer, callEcho, HELLO } from '../support/echo.js';
import { rejectionOf } from '../support/outcomes.js';
import { until } from '../support/waiting.js';
import { type GateUnderTest, keptLog, startGateUnderTest, startUpstream } from './gate-support.js';

const SERVICE = 'test.v1.EchoService';

/** What a health method answers: its status, or the code of its error. */
async function check(client: Client, service: string, name = 'Check'): Promise<unknown> {
  const method = definition[name];
  if (method === undefined) throw new Error(`no method ${name}`);
  return await new Promise((resolve) => {
    client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      { service },
      new Metadata(),
      { deadline: Date.now() + 5_000 },
      (error: ServiceError | null, response?: unknown) =>
        resolve(error === null ? ((response as { status?: string }).status ?? response) : error.code),
    );
  });
}

function watch(client: Client, service: string) {
  const method = definition['Watch'];
  if (method === undefined) throw new Error('no method Watch');
  const said: string[] = [];
  const call: ClientReadableStream<unknown> = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    { service },
    new Metadata(),
  );
  call.on('data', (response: { status: string }) => said.push(response.status));
  const ended = new Promise<number>((resolve) => call.on('status', ({ code }) => resolve(code)));
  call.on('error', () => {});
  return { call, said, ended };
}

const isReady = ({ gate }: GateUnderTest): boolean => Object.keys(gate.missing()).length === 0;

describe('the health of an upstream that has no health service', () => {
  let under: GateUnderTest;

  beforeEach(async () => {
    under = await startGateUnderTest();
    await until(() => isReady(under));
  });
  afterEach(() => under.stop());

  it('is answered by the gate: of the whole and of the services with rules', async () => {
    const { client } = under;
    expect(await check(client, '')).to.equal('SERVING');
    expect(await check(client, SERVICE)).to.equal('SERVING');
    expect(await check(client, 'other.v1.Service')).to.equal(status.NOT_FOUND);
    expect(await check(client, '', 'List')).to.deep.equal({
      statuses: {
        '': { status: 'SERVING' },
        [SERVICE]: { status: 'SERVING' },
        'grpc.health.v1.Health': { status: 'SERVING' },
      },
    });
    expect(under.upstream.received).to.be.empty;
  });

  it('lists services only where the list fits into one message', async () => {
    const method = (count: number): string =>
      Array.from({ length: count }, (_, index) => `  many.v1.Service${index}: {Get: public}\n`).join('');
    // Each takes 26 bytes.
    for (const [count, fits] of [
      [600, true],
      [700, false],
    ] as const) {
      await under.rules(`services:\n${method(count)}`);
      await under.gate.reload();
      expect(await check(under.client, `many.v1.Service${count - 1}`)).to.equal('SERVING');
      const listed = await check(under.client, '', 'List');
      if (fits) expect(listed).to.have.property('statuses').with.property('many.v1.Service7');
      else expect(listed).to.equal(status.RESOURCE_EXHAUSTED);
    }
    for (const near of [
      'many.v1.Service',
      'many.v1.Service1/',
      'any.v1.Service1',
      '/many.v1.Service1',
      'many.v1.Service1/Get',
    ]) {
      expect(await check(under.client, near), near).to.equal(status.NOT_FOUND);
    }
  });

  it('follows what the gate lacks, also for those who watch', async () => {
    const { client, kit } = under;
    const whole = watch(client, '');
    const unknown = watch(client, 'other.v1.Service');
    await until(() => whole.said.length === 1 && unknown.said.length === 1);
    await kit.goStale();
    await until(() => whole.said.length === 2);
    expect(await check(client, SERVICE)).to.equal('NOT_SERVING');
    await kit.recover();
    await until(() => whole.said.length === 3);
    expect(whole.said).to.deep.equal(['SERVING', 'NOT_SERVING', 'SERVING']);
    expect(unknown.said).to.deep.equal(['SERVICE_UNKNOWN']);
    whole.call.cancel();
    unknown.call.cancel();
  });

  it('does not hold up the end of the gate', async () => {
    const { said, ended } = watch(under.client, '');
    await until(() => said.length === 1);
    await under.gate.close();
    expect([await ended, said]).to.deep.equal([status.UNAVAILABLE, ['SERVING', 'NOT_SERVING']]);
  });

  it('stays NOT_SERVING after the upstream has gone', async () => {
    under.upstream.stop();
    await until(() => !isReady(under), { withinMs: 20_000 });
    expect(await check(under.client, '')).to.equal('NOT_SERVING');
  });
});

describe('thousands who watch the health that a gate answers', () => {
  it('are told, and ended, some in each turn of the event loop, and all of the last change', async () => {
    let isServing = true;
    const health = new OwnHealth({ isMissing: () => true, isServing: () => isServing, paths: () => [] });
    const method = health.methodAt('/grpc.health.v1.Health/Watch');
    let turn = 0;
    const perTurn = new Map<number, number>();
    const count = (): void => void perTurn.set(turn, (perTurn.get(turn) ?? 0) + 1);
    const last: (Buffer | undefined)[] = [];
    let ended = 0;
    for (let index = 0; index < 5 * WATCHERS_PER_TURN; index += 1) {
      const responder = {
        send: (message: Buffer) => {
          last[index] = message;
          count();
        },
        end: () => {
          ended += 1;
        },
      };
      method?.open(Buffer.alloc(0), responder);
    }
    const most = async (work: Promise<void>): Promise<number> => {
      perTurn.clear();
      let isDone = false;
      const done = work.then(() => {
        isDone = true;
      });
      while (!isDone) {
        await nextTurn();
        turn += 1;
      }
      await done;
      return Math.max(...perTurn.values());
    };
    const distinct = () => new Set(last.map((message) => message?.toString('hex'))).size;
    const before = last[0];
    isServing = false;
    const telling = health.changed();
    // The gate is ready again before all know that it was not.
    setImmediate(() => {
      isServing = true;
      void health.changed();
    });
    expect(await most(telling)).to.be.at.most(WATCHERS_PER_TURN);
    expect([last[0], distinct()]).to.deep.equal([before, 1]);
    isServing = false;
    expect(await most(health.close())).to.be.at.most(WATCHERS_PER_TURN);
    expect([ended, distinct()]).to.deep.equal([5 * WATCHERS_PER_TURN, 1]);
    expect(last[0]).not.to.deep.equal(before);
  });
});

describe('the health of an upstream', () => {
  it('is its own where it has a health service', async () => {
    const folder = await makeTemporaryFolder();
    const health = new HealthImplementation({ '': 'SERVING', mine: 'NOT_SERVING' });
    const upstream = await startUpstream(folder, `unix:${join(folder.path, 'own.sock')}`, {
      add: (server) => health.addToServer(server),
    });
    const under = await startGateUnderTest({
      upstream: {
        address: { kind: 'unix', path: join(folder.path, 'own.sock') },
        tls: undefined,
        serverName: 'localhost',
        exposed: 'refuse',
      },
    });
    try {
      await until(() => isReady(under));
      expect(await check(under.client, 'mine')).to.equal('NOT_SERVING');
      expect(await check(under.client, SERVICE)).to.equal(status.NOT_FOUND);
    } finally {
      await under.stop();
      upstream.stop();
      await folder.remove();
    }
  });

  it('is closed where the settings say so', async () => {
    const under = await startGateUnderTest((folder) => ({
      rules: {
        descriptors: undefined,
        file: join(folder, 'rules.yaml'),
        publicMethods: [],
        health: 'closed',
        reflection: 'closed',
      },
    }));
    try {
      await until(() => isReady(under));
      expect(await check(under.client, '')).to.equal(status.UNIMPLEMENTED);
    } finally {
      await under.stop();
    }
  });
});

describe('an upstream that can be called around its gate', () => {
  const { log, lines } = keptLog();

  for (const exposed of ['refuse', 'warn'] as const) {
    it(`${exposed === 'refuse' ? 'is called by nobody' : 'goes on'} with ${exposed}, and is told of when it is found later`, async () => {
      lines.length = 0;
      const under = await startGateUnderTest(
        (folder) => ({
          upstream: {
            address: { kind: 'unix', path: join(folder, 'up.sock') },
            tls: undefined,
            serverName: 'localhost',
            exposed,
          },
        }),
        log,
      );
      try {
        await until(() => isReady(under));
        const { client, gate, kit } = under;
        const caller = bearer(kit.user({ scopes: ['echo.call'] }).token);
        const socket = join(under.folder.path, 'up.sock');
        await chmod(under.folder.path, 0o711);
        await chmod(socket, 0o777);
        await gate.reload();
        await until(() => lines.some(({ event }) => event === 'upstream_exposed'));
        expect(await gate.metrics()).to.match(/^portcullis_gate_upstream_exposed 1$/m);
        if (exposed === 'refuse') {
          for (const method of ['Unary', 'Public']) {
            const error = errorOf(await rejectionOf(callEcho(client, caller, { method })));
            expect([error.code, error.reason], method).to.deep.equal([
              status.UNAVAILABLE,
              'UPSTREAM_EXPOSED',
            ]);
          }
          expect(Object.keys(gate.missing())).to.deep.equal(['exposure']);
          expect(await check(client, '')).to.equal('NOT_SERVING');
          expect(under.upstream.received).to.be.empty;
        } else {
          expect(await callEcho(client, caller)).to.deep.equal(HELLO);
          expect(isReady(under)).to.equal(true);
        }
        await chmod(socket, 0o700);
        await gate.reload();
        await until(() => lines.some(({ event }) => event === 'upstream_closed'));
        expect(await callEcho(client, caller)).to.deep.equal(HELLO);
        expect(await gate.metrics()).to.match(/^portcullis_gate_upstream_exposed 0$/m);
      } finally {
        await under.stop();
      }
    });
  }
});
