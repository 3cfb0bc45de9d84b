/** Receipts: the state of a revocation on every instance, with two replicas, a real broker and real guards. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import {
  EnforcementState,
  type InstanceReceipt,
  RevokeWait,
} from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { enforcementBoundMs } from '../../../../services/auth/revocation/log.js';
import { WAITS_MAX } from '../../../../services/auth/revocation/receipts.js';
import { type PrivateNats, privateNats } from '../../../support/nats.js';
import { codeOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { type Cluster, LONG_LEASE_MS, startCluster, verdictOf } from '../cluster.js';
import { addUser, claimsOf, type TestUser } from '../instance.js';

const { ENFORCEMENT_STATE_ENFORCED, ENFORCEMENT_STATE_UNKNOWN } = EnforcementState;
const LEASE_MS = 1500;

/** So long that a regular sync does not come soon. */
/** Sooner than any regular sync, even on a busy machine. */
const SOON_MS = LONG_LEASE_MS / 8;

function statesOf(instances: readonly InstanceReceipt[]): string[] {
  return instances.map(({ service, state }) => `${service} ${state}`).sort();
}

const ALL_ENFORCED = ['auth', 'auth', 'inventory', 'payment'].map(
  (service) => `${service} ${ENFORCEMENT_STATE_ENFORCED}`,
);

describe('a receipt', function () {
  this.timeout(180_000);
  let nats: PrivateNats;
  let cluster: Cluster;
  let alice: TestUser;

  const start = async ({ withBroker = true, leaseMs = LEASE_MS } = {}): Promise<void> => {
    cluster = await startCluster({ leaseMs, ...(withBroker && { nats }) });
    alice = await addUser(cluster.replicas[0]);
    await until(async () => (await known()).length === 4);
  };
  /** The instances that the first replica knows, directly or from other replicas. */
  const known = async () =>
    (await cluster.replicas[0].instances.list({ pageSize: 0, pageToken: '' })).instances;
  const revokeUser = (wait: RevokeWait, replica = cluster.replicas[0]) =>
    cluster.revoke({ $case: 'userId', value: alice.userId }, wait, { replica });

  before(async () => {
    nats = await privateNats();
  });
  after(() => nats.stop());
  afterEach(() => cluster.close());

  it('names no instance for a call that does not wait', async () => {
    await start();
    const receipt = await revokeUser(RevokeWait.REVOKE_WAIT_NONE);
    expect(receipt.instances).to.deep.equal([]);
  });

  it('of known instances is returned once each has the entry, whichever replica it syncs with', async () => {
    await start({ leaseMs: LONG_LEASE_MS });
    for (const replica of cluster.replicas) {
      const token = await cluster.token(alice, replica);
      for (const guard of cluster.guards()) expect(await verdictOf(guard, token)).to.equal('OK');
      const startedMs = performance.now();
      const { instances } = await revokeUser(RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES, replica);
      const tookMs = performance.now() - startedMs;
      for (const guard of cluster.guards()) {
        expect(await verdictOf(guard, token)).to.equal('TOKEN_REVOKED');
      }
      expect(statesOf(instances)).to.deep.equal(ALL_ENFORCED);
      // Acknowledged at once, not with the next regular sync.
      expect(tookMs).to.be.below(SOON_MS);
      for (const { milliseconds } of instances) expect(milliseconds).to.be.within(1, tookMs);
      expect(new Set(instances.map(({ instance }) => instance.toString('hex')))).to.have.property('size', 4);
    }
  });

  it('of known instances is returned without a broker, after their second sync request', async () => {
    await start({ withBroker: false, leaseMs: 4 * LEASE_MS });
    const startedMs = performance.now();
    const { instances } = await revokeUser(RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES);
    expect(statesOf(instances)).to.deep.equal(ALL_ENFORCED);
    expect(performance.now() - startedMs).to.be.below(4 * LEASE_MS);
  });

  it('lists a silent instance as UNKNOWN once its lease is over', async () => {
    await start();
    const { payment } = cluster.followers;
    await payment.close();
    const token = await cluster.token(alice);
    const { instances } = await revokeUser(RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES);
    expect(payment.state().current).to.equal(false);
    expect(await verdictOf(payment, token)).to.not.equal('TOKEN_REVOKED');
    expect(statesOf(instances)).to.deep.equal([
      ...ALL_ENFORCED.slice(0, 3),
      `payment ${ENFORCEMENT_STATE_UNKNOWN}`,
    ]);
    expect(instances.find(({ service }) => service === 'payment')?.milliseconds).to.equal(0);
  });

  it('for EVERYWHERE is returned when the bound has passed, not before, although all have acknowledged', async () => {
    await start();
    const startedMs = Date.now();
    const { instances, enforcedEverywhereBy } = await revokeUser(RevokeWait.REVOKE_WAIT_EVERYWHERE);
    expect(statesOf(instances)).to.deep.equal(ALL_ENFORCED);
    const boundMs = enforcementBoundMs(LEASE_MS);
    expect(Date.now() - startedMs).to.be.within(boundMs - 5, boundMs + 10_000);
    // The returned time is not before the commit plus the bound; how much later depends on the database's clock.
    expect(enforcedEverywhereBy?.getTime()).to.be.within(startedMs + boundMs - 5, Date.now() + 5000);
  });

  it('no longer waits when the caller has cancelled, and the entry is in the log', async () => {
    await start({ leaseMs: LONG_LEASE_MS });
    await cluster.followers.payment.close();
    const [replica] = cluster.replicas;
    const controller = new AbortController();
    const tokenId = randomUUID();
    const waiting = replica.revocations.revoke({
      target: { kind: 'token-id', tokenId },
      reason: '',
      actor: 'olga',
      wait: 'EVERYWHERE',
      signal: controller.signal,
    });
    await until(() => replica.instances.waits() === 1);
    const startedMs = performance.now();
    controller.abort();
    const { sequence } = await waiting;
    expect(performance.now() - startedMs).to.be.below(SOON_MS);
    expect(replica.instances.waits()).to.equal(0);
    expect(sequence > 0n).to.equal(true);
  });

  it('is rejected before anything is written when too many calls wait', async () => {
    await start({ leaseMs: LONG_LEASE_MS });
    await cluster.followers.payment.close();
    const [replica] = cluster.replicas;
    const controllers: AbortController[] = [];
    const revoke = () => {
      const controller = new AbortController();
      controllers.push(controller);
      return replica.revocations.revoke({
        target: { kind: 'token-id', tokenId: randomUUID() },
        reason: '',
        actor: 'olga',
        wait: 'EVERYWHERE',
        signal: controller.signal,
      });
    };
    const waiting = Array.from({ length: WAITS_MAX }, revoke);
    await until(() => replica.instances.waits() === WAITS_MAX);
    expect(await codeOf(revoke())).to.equal('RATE_LIMITED');
    for (const controller of controllers) controller.abort();
    await Promise.all(waiting);
    const { rows } = await replica.database.query<{ seq: bigint }>('SELECT seq FROM log_state');
    expect(rows).to.deep.equal([{ seq: BigInt(WAITS_MAX) }]);
  });

  it('names auth itself as enforcing at once, without any broker', async () => {
    await start({ withBroker: false, leaseMs: LONG_LEASE_MS });
    const [replica] = cluster.replicas;
    for (let round = 0; round < 3; round += 1) {
      const token = await cluster.token(alice);
      expect(await verdictOf(replica.guard, token)).to.equal('OK');
      await cluster.revoke({ $case: 'sessionId', value: String(claimsOf(token)['sid']) });
      const startedMs = performance.now();
      await until(async () => (await verdictOf(replica.guard, token)) === 'TOKEN_REVOKED');
      expect(performance.now() - startedMs).to.be.below(SOON_MS);
    }
  });
});
