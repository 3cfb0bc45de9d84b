/** Tests of rotating keys with two replicas, a broker, services that follow, and real calls. */

import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, Server, ServerCredentials, status } from '@grpc/grpc-js';
import { type Guard, native } from '@portcullis/guard';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import {
  type Key,
  KeyPurpose,
  KeyState,
  type RotateKeyRequest,
  type RotateKeyResponse,
} from '../../../../proto/gen/auth/v1/key_service.js';
import { ask } from '../../../../scripts/system/calls.js';
import { enforcementBoundMs } from '../../../../services/auth/revocation/log.js';
import {
  bearer,
  callEcho,
  ECHO,
  echoHandlers,
  echoSchema,
  openEchoStream,
  Trace,
} from '../../../support/echo.js';
import { type PrivateNats, privateNats } from '../../../support/nats.js';
import { outcomeOf, refusalOf, serviceErrorOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import {
  type Cluster,
  LONG_LEASE_MS,
  newRequestId,
  type Replica,
  startCluster,
  verdictOf,
} from '../cluster.js';
import { addClient, addUser, entriesOf, serviceToken, signAssertion, type TestClient } from '../instance.js';

/** How often the key is rotated under load; more with `KEY_ROTATIONS=20`. */
const ROTATIONS = Number(process.env['KEY_ROTATIONS'] ?? 3);

/** The lease under load, in milliseconds. */
const LOAD_LEASE_MS = 4000;

const kidOf = (token: string): string => String(decodeProtectedHeader(token).kid);

/** A guarded service whose method requires the scope `echo.call`. */
interface EchoService {
  readonly guard: Guard;
  /** How a call ended, such as `OK`. */
  call(token: string): Promise<string>;
  /** Opens a stream, and resolves once it runs. */
  open(token: string): Promise<{ readonly ended: Promise<{ reason: string; atMs: number }> }>;
  close(): void;
}

async function startEcho(guard: Guard): Promise<EchoService> {
  const server = new Server({ interceptors: [guard.interceptor] });
  guard.addService(server, ECHO, echoSchema(), native(echoHandlers(new Trace())));
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  return {
    guard,
    call: (token) => outcomeOf(callEcho(client, bearer(token))),
    open: async (token) => {
      const stream = openEchoStream(client, bearer(token), { deadline: Number.POSITIVE_INFINITY });
      const ended = new Promise<{ reason: string; atMs: number }>((resolve) => {
        stream.on('error', (error) => resolve({ reason: errorOf(error).reason, atMs: performance.now() }));
        stream.on('end', () => resolve({ reason: '', atMs: performance.now() }));
      });
      await new Promise((resolve) => stream.once('data', resolve));
      return { ended };
    },
    close: () => {
      client.close();
      server.forceShutdown();
    },
  };
}

describe('rotating keys', function () {
  this.timeout(60_000 + ROTATIONS * 10_000);

  describe('with two replicas and two services', () => {
    const leaseMs = 1500;
    let nats: PrivateNats;
    let cluster: Cluster;
    let client: TestClient;
    let services: readonly [EchoService, EchoService];

    before(async () => {
      nats = await privateNats();
    });
    after(() => nats.stop());
    beforeEach(async () => {
      cluster = await startCluster({ leaseMs, nats });
      const [first, second] = cluster.replicas;
      client = await addClient(first, { scopes: ['echo.call'], audiences: ['echo', 'auth'] });
      services = [
        await startEcho(await cluster.follow('echo', first)),
        await startEcho(await cluster.follow('echo', second)),
      ];
    });
    afterEach(async () => {
      for (const service of services) service.close();
      await cluster.close();
    });

    const rotate = async (
      over: Partial<RotateKeyRequest> = {},
      { keyService }: Replica = cluster.replicas[0],
      token?: string,
    ): Promise<RotateKeyResponse> =>
      await ask(
        keyService.rotateKey.bind(keyService),
        {
          purpose: KeyPurpose.KEY_PURPOSE_TOKEN,
          emergency: false,
          reason: 'a test',
          requestId: newRequestId(),
          ...over,
        },
        { token: token ?? (await cluster.token(cluster.admin)) },
      );
    /** Rotates as soon as the rate limit allows it. */
    const rotateInDueTime = async (over: Partial<RotateKeyRequest> = {}, replica?: Replica) => {
      for (;;) {
        try {
          return await rotate(over, replica);
        } catch (error) {
          const { reason, retryAfterMs } = errorOf(error);
          if (reason !== 'RATE_LIMITED' || retryAfterMs === undefined) throw error;
          await sleep(retryAfterMs);
        }
      }
    };
    const mint = async (replica: Replica): Promise<string> => {
      const value = await signAssertion(client);
      const request = {
        clientId: client.clientId,
        credential: { $case: 'clientAssertion', value } as const,
        audiences: [],
        scopes: [],
      };
      return (await ask(replica.auth.issueServiceToken.bind(replica.auth), request)).accessToken;
    };
    const keysOf = async (token?: string): Promise<Key[]> => {
      const [{ keyService }] = cluster.replicas;
      const options = { token: token ?? (await cluster.token(cluster.admin)) };
      return (await ask(keyService.listKeys.bind(keyService), { pageSize: 0, pageToken: '' }, options)).keys;
    };
    /** Tokens, broadcasts and receipts have keys of their own. */
    const PURPOSES = 3;
    const hasNext = async (): Promise<boolean> =>
      (await keysOf()).filter(({ state, publishTime }) => state === KeyState.KEY_STATE_NEXT && publishTime)
        .length === PURPOSES;

    /** Makes regular syncs rare (every twelve seconds), so that a broadcast must deliver the change. */
    const askSeldom = async (): Promise<void> => {
      await cluster.replicas[0].database.query('UPDATE log_state SET lease_ms = $1', [LONG_LEASE_MS]);
      for (const guard of cluster.guards()) guard.syncNow();
      await until(() => cluster.guards().every((guard) => guard.state().leaseMs > LONG_LEASE_MS / 2));
    };
    /** Sooner than any regular sync, even on a busy machine. */
    const SOON_MS = LONG_LEASE_MS / 8;

    it('rejects no call while the key is rotated repeatedly under load', async () => {
      // A long lease, because a busy machine may sync late, and this test is not about stale lists.
      await cluster.replicas[0].database.query('UPDATE log_state SET lease_ms = $1', [LOAD_LEASE_MS]);
      for (const guard of cluster.guards()) guard.syncNow();
      await until(() => cluster.guards().every((guard) => guard.state().leaseMs > LOAD_LEASE_MS / 2));
      const refusals: string[] = [];
      const kids = new Set<string>();
      const former: string[] = [];
      let calls = 0;
      let running = true;
      const load = Array.from({ length: 4 }, async (_, worker) => {
        for (let round = worker; running; round += 1) {
          const fresh = await mint(cluster.replicas[round % 2 === 0 ? 0 : 1]).catch((error: unknown) => {
            refusals.push(`mint: ${errorOf(error).reason}`);
            return undefined;
          });
          if (fresh === undefined) continue;
          if (!kids.has(kidOf(fresh))) former.push(fresh);
          kids.add(kidOf(fresh));
          const old = former[round % former.length] ?? fresh;
          for (const token of [fresh, old]) {
            for (const service of services) {
              const answer = await service.call(token);
              calls += 1;
              if (answer !== 'OK') refusals.push(`${answer} of ${kidOf(token)}`);
            }
          }
        }
      });
      const stream = await services[0].open(await mint(cluster.replicas[0]));
      let cut = false;
      void stream.ended.then(() => {
        cut = true;
      });
      try {
        for (let round = 0; round < ROTATIONS; round += 1) {
          const replica = cluster.replicas[round % 2 === 0 ? 0 : 1];
          const { signingKey, formerKey, sequence } = await rotateInDueTime({}, replica);
          expect(sequence).to.equal(0n);
          expect(signingKey?.state).to.equal(KeyState.KEY_STATE_SIGNING);
          expect(formerKey?.state).to.equal(KeyState.KEY_STATE_VERIFY_ONLY);
          await until(() => kids.has(signingKey?.kid ?? ''));
        }
      } finally {
        running = false;
        await Promise.all(load);
      }
      expect(refusals).to.deep.equal([]);
      expect(kids.size).to.equal(ROTATIONS + 1);
      expect(calls).to.be.above(ROTATIONS * 20);
      expect(cut, 'a stream was cut').to.equal(false);
      // Every key that signed during the test still verifies.
      for (const token of former)
        for (const service of services) expect(await service.call(token)).to.equal('OK');
    });

    it('lets no key sign by routine before every instance can know it', async () => {
      await until(hasNext);
      const before = await keysOf();
      const next = before.find(
        ({ state, purpose }) => state === KeyState.KEY_STATE_NEXT && purpose === KeyPurpose.KEY_PURPOSE_TOKEN,
      );
      const { signingKey } = await rotateInDueTime();
      expect(signingKey?.kid).to.equal(next?.kid);
      const boundMs = enforcementBoundMs(leaseMs);
      const publishedMs = signingKey?.publishTime?.getTime() ?? Number.NaN;
      expect(signingKey?.signTime?.getTime()).to.be.at.least(publishedMs + boundMs);
      // The key after it has just been made.
      const token = await cluster.token(cluster.admin);
      await until(hasNext);
      const refusal = await refusalOf(rotate({}, cluster.replicas[1], token));
      expect(refusal).to.include({ code: status.RESOURCE_EXHAUSTED, reason: 'RATE_LIMITED' });
      expect(refusal.retryAfterMs).to.be.within(1, boundMs);
      const { code, retryAfterMs = 0 } = await errorOfRoutineRotation(cluster.replicas[1]);
      expect(code).to.equal('RATE_LIMITED');
      await sleep(retryAfterMs);
      expect((await rotate({}, cluster.replicas[1], token)).formerKey?.kid).to.equal(signingKey?.kid);
    });

    const errorOfRoutineRotation = (replica: Replica) =>
      serviceErrorOf(
        replica.keyLife.rotate({
          purpose: 'token',
          emergency: false,
          reason: '',
          actor: 'test',
          requestId: newRequestId(),
        }),
      );

    it('in an emergency rejects the old key at once on every instance: known tokens, new ones and streams', async () => {
      const [first, second] = cluster.replicas;
      await askSeldom();
      await until(hasNext);
      const known = await mint(first);
      const fresh = [await mint(first), await mint(second)];
      for (const service of services) expect(await service.call(known)).to.equal('OK');
      const streams = await Promise.all(services.map((service) => service.open(known)));
      const admin = await cluster.token(cluster.admin);
      const requestId = newRequestId();
      const answer = await rotate({ emergency: true, requestId }, first, admin);
      const answeredMs = performance.now();
      expect(answer.formerKey).to.include({ kid: kidOf(known), state: KeyState.KEY_STATE_RETIRED });
      expect(answer.sequence).to.equal(1n);
      expect(answer.enforcedEverywhereBy?.getTime()).to.be.within(
        Date.now(),
        Date.now() + enforcementBoundMs(LONG_LEASE_MS) + 3000,
      );
      await until(async () => {
        const answers = await Promise.all(services.map((service) => service.call(known)));
        return answers.every((one) => one !== 'OK');
      });
      expect(performance.now() - answeredMs).to.be.below(SOON_MS);
      for (const { ended } of streams) {
        const { reason, atMs } = await ended;
        expect(reason).to.equal('TOKEN_REVOKED');
        expect(atMs - answeredMs).to.be.below(SOON_MS);
      }
      for (const token of [known, ...fresh]) {
        for (const service of services) {
          expect(await service.call(token)).to.be.oneOf([
            'UNAUTHENTICATED TOKEN_REVOKED',
            'UNAUTHENTICATED TOKEN_INVALID',
          ]);
        }
        for (const { guard } of cluster.replicas) {
          expect(await verdictOf(guard, token)).to.be.oneOf(['TOKEN_REVOKED', 'TOKEN_INVALID']);
        }
      }
      // The admin's own token was signed by that key, too.
      const again = await refusalOf(rotate({}, second, admin));
      expect(again.code).to.equal(status.UNAUTHENTICATED);
      const entries = (await entriesOf(first)).map(({ kind, key, reason, actor }) => [
        kind,
        Buffer.from(key, 'hex').toString(),
        reason,
        actor,
      ]);
      expect(entries).to.deep.equal([['KEY', kidOf(known), 'a test', cluster.admin.userId]]);
      for (const replica of cluster.replicas) {
        const token = await mint(replica);
        expect(kidOf(token)).to.equal(answer.signingKey?.kid);
        for (const service of services) expect(await service.call(token)).to.equal('OK');
      }
      // A retry of the same request rotates no second time.
      const repeated = await rotate({ emergency: true, requestId }, second);
      expect(repeated).to.deep.equal(answer);
      expect(await entriesOf(first)).to.have.length(1);
      const other = await refusalOf(rotate({ emergency: false, requestId }, second));
      expect(other.reason).to.equal('REQUEST_ID_REUSED');
      await until(hasNext);
    });

    it('in an emergency delivers a key that few instances know to all at once', async () => {
      const [first, second] = cluster.replicas;
      await askSeldom();
      await until(hasNext);
      await rotate({ emergency: true }, first);
      await until(hasNext);
      await rotate({ emergency: true }, second);
      const startedMs = performance.now();
      const token = await mint(second);
      await until(async () => {
        const answers = await Promise.all(services.map((service) => service.call(token)));
        return answers.every((answer) => answer === 'OK');
      });
      expect(performance.now() - startedMs).to.be.below(SOON_MS);
    });

    it('rotates the broadcast keys without any broadcast being counted as forged', async () => {
      const purpose = KeyPurpose.KEY_PURPOSE_BROADCAST;
      await first().keys.replenish();
      const kids = async () => (await first().publicKeys.read()).broadcastKeys.map(({ kid }) => kid);
      const before = await kids();
      const { signingKey, formerKey } = await rotateInDueTime({ purpose });
      expect([signingKey?.kid, formerKey?.kid]).to.have.members(before);
      await until(async () => (await kids()).length === 3);
      // Other replicas may sign with the former key for a moment longer; guards accept both keys.
      await askSeldom();
      for (const replica of cluster.replicas) {
        for (let round = 0; round < 3; round += 1) {
          const token = await mint(replica);
          for (const service of services) expect(await service.call(token)).to.equal('OK');
          const startedMs = performance.now();
          await replica.revocations.revoke({
            target: { kind: 'token', token },
            reason: 'a test',
            actor: 'test',
            wait: 'KNOWN_INSTANCES',
          });
          expect(performance.now() - startedMs).to.be.below(SOON_MS);
        }
        await sleep(1100);
      }
      const { keySet } = await first().publicKeys.read();
      expect(keySet.keys).to.have.length(2);
    });

    const first = (): Replica => cluster.replicas[0];

    it('is allowed only to admins, and is visible in the security events', async () => {
      const [customer, security] = [
        await cluster.token(await addUser(first())),
        await cluster.token(await addUser(first(), ['security'])),
      ];
      expect(await refusalOf(rotate({}, first(), customer))).to.include({
        code: status.PERMISSION_DENIED,
        reason: 'SCOPE_MISSING',
      });
      expect((await refusalOf(rotate({ emergency: true }, first(), security))).code).to.equal(
        status.PERMISSION_DENIED,
      );
      expect((await refusalOf(keysOf(customer))).code).to.equal(status.PERMISSION_DENIED);
      expect(await keysOf(security)).to.have.length(6);
      const admin = await cluster.token(cluster.admin);
      const wrong: Partial<RotateKeyRequest>[] = [
        { requestId: '' },
        { requestId: 'x'.repeat(256) },
        { reason: 'x'.repeat(201) },
        { purpose: 9 as KeyPurpose },
      ];
      for (const request of wrong) {
        expect((await refusalOf(rotate(request, first(), admin))).reason).to.equal('FIELD_INVALID');
      }
      const { keyService } = first();
      const list = (pageToken: string) =>
        ask(keyService.listKeys.bind(keyService), { pageSize: 3, pageToken }, { token: admin });
      const page = await list('');
      const rest = await list(page.nextPageToken);
      expect([page.keys.length, rest.keys.length, rest.nextPageToken]).to.deep.equal([3, 3, '']);
      expect(new Set([...page.keys, ...rest.keys].map(({ kid }) => kid)).size).to.equal(6);
      expect((await refusalOf(list('nonsense'))).reason).to.equal('FIELD_INVALID');
      for (const key of page.keys) {
        expect(key.createTime).to.be.instanceOf(Date);
        expect(key.publishTime?.getTime()).to.be.at.least(key.createTime?.getTime() ?? Number.NaN);
        expect(key.algorithm).to.equal('EdDSA');
      }
    });
  });

  describe('without a broker', () => {
    it('enforces an emergency rotation on every instance within the bound', async () => {
      const leaseMs = 1500;
      const cluster = await startCluster({ leaseMs });
      try {
        const [first] = cluster.replicas;
        const client = await addClient(first, { scopes: ['echo.call'], audiences: ['echo'] });
        const token = await serviceToken(first, client);
        for (const guard of cluster.guards()) expect(await verdictOf(guard, token)).to.equal('OK');
        const { keyService } = first;
        const purpose = KeyPurpose.KEY_PURPOSE_UNSPECIFIED;
        const request = { purpose, emergency: true, reason: '', requestId: newRequestId() };
        const admin = await cluster.token(cluster.admin);
        await ask(keyService.rotateKey.bind(keyService), request, { token: admin });
        const answeredMs = performance.now();
        for (const guard of cluster.guards()) {
          await until(async () => (await verdictOf(guard, token)) !== 'OK');
        }
        expect(performance.now() - answeredMs).to.be.below(enforcementBoundMs(leaseMs));
      } finally {
        await cluster.close();
      }
    });
  });
});
