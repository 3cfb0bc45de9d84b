/** Canary tokens, with two replicas of auth and real guards that follow them. */

import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { Registry } from 'prom-client';
import { registerCanaryMetrics } from '../../../../services/auth/adapters/canary-metrics.js';
import { CANARY_CLIENT, clientIdFault } from '../../../../services/auth/clients/client-ids.js';
import { createReceiptStore } from '../../../../services/auth/evidence/store.js';
import { type CanaryDeps, measureRevocation } from '../../../../services/auth/revocation/canary.js';
import { createCanaryStore } from '../../../../services/auth/revocation/canary-store.js';
import { createFenceStore } from '../../../../services/auth/revocation/fence-store.js';
import { createFences } from '../../../../services/auth/revocation/fences.js';
import { createRevocationGroups } from '../../../../services/auth/revocation/revocation-groups.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { type Cluster, type Replica, startCluster, verdictOf } from '../cluster.js';
import { claimsOf } from '../instance.js';
import { following, question } from './revocation-support.js';

const LEASE_MS = 1_500;
const INTERVAL_SECONDS = 600;
const NEVER = new AbortController().signal;

/** What was observed and logged. */
interface Seen {
  readonly confirmed: { readonly service: string; readonly seconds: number }[];
  readonly unconfirmed: string[];
  readonly outcomes: string[];
  readonly events: unknown[];
  /** The tokens that auth's own guard was asked about. */
  readonly tokens: string[];
}

describe('canary tokens', function () {
  this.timeout(180_000);
  let cluster: Cluster;
  let seen: Seen;

  before(async () => {
    cluster = await startCluster({ leaseMs: LEASE_MS });
    // Each replica shares what it knows within a fifth of the lease.
    const { instances } = cluster.replicas[0];
    await until(async () => {
      const { instances: listed } = await instances.list({ pageSize: 0, pageToken: '' });
      return listed.filter(({ leaseLeftMs }) => leaseLeftMs > 0).length === cluster.guards().length;
    });
  });
  beforeEach(async () => {
    seen = { confirmed: [], unconfirmed: [], outcomes: [], events: [], tokens: [] };
    await cluster.replicas[0].database.query("UPDATE canary_state SET begin_time = '-infinity'");
  });
  after(() => cluster.close());

  function depsOf(replica: Replica, over: Partial<CanaryDeps> = {}): CanaryDeps {
    const { database, store, tokens, instances, guard } = replica;
    const note = (fields: object): void => void seen.events.push('event' in fields && fields.event);
    return {
      intervalSeconds: INTERVAL_SECONDS,
      turns: createCanaryStore(database),
      store,
      groups: createRevocationGroups({ store, clock: systemClock }),
      tokens,
      instances,
      fences: createFences({ store: createFenceStore(database), clock: systemClock }),
      accept: async (token) => {
        seen.tokens.push(token);
        return (await guard.authenticateToken(token, 'auth')).tokenId;
      },
      observer: {
        confirmed: (service, seconds) => void seen.confirmed.push({ service, seconds }),
        unconfirmed: (service) => void seen.unconfirmed.push(service),
        ran: (outcome) => void seen.outcomes.push(outcome),
      },
      clock: systemClock,
      log: { warn: note, error: note },
      ...over,
    };
  }

  it('are measured at every instance of every replica, by one replica at a time', async () => {
    await Promise.all(cluster.replicas.map((replica) => measureRevocation(depsOf(replica), NEVER)));
    expect(seen.outcomes).to.deep.equal(['completed']);
    const services = seen.confirmed.map(({ service }) => service).sort();
    expect(services).to.deep.equal(['auth', 'auth', 'inventory', 'payment']);
    // Without a broker, the next sync brings the revocation, and the one after it the confirmation.
    for (const { seconds } of seen.confirmed) expect(seconds).to.be.within(0.0005, LEASE_MS / 1000);
    expect(seen.unconfirmed).to.be.empty;
    expect(seen.events).to.be.empty;
    await measureRevocation(depsOf(cluster.replicas[1]), NEVER);
    expect(seen.outcomes).to.have.length(1);
    await measureRevocation(depsOf(cluster.replicas[1], { intervalSeconds: 0.001 }), NEVER);
    expect(seen.outcomes).to.have.length(2);
  });

  it('are tokens of auth without any right, of a client that cannot exist, and are refused afterwards', async () => {
    await measureRevocation(depsOf(cluster.replicas[0]), NEVER);
    const [token = '', again] = seen.tokens;
    expect(again).to.equal(token);
    const { scope, roles, aud, sub, exp = 0, iat = 0 } = claimsOf(token);
    expect({ scope, roles, aud, sub }).to.deep.equal({
      scope: '',
      roles: [],
      aud: ['auth'],
      sub: CANARY_CLIENT,
    });
    expect(exp - iat).to.be.at.most(61);
    expect(clientIdFault(CANARY_CLIENT)).to.equal('must not be portcullis-canary');
    for (const guard of cluster.guards()) {
      expect(await verdictOf(guard, token)).to.equal('TOKEN_REVOKED');
    }
  });

  it('are in the log, and neither in lists of revocations, nor among receipts, nor in security events', async () => {
    const [replica] = cluster.replicas;
    const { database, revocationRecords } = replica;
    const page = { pageSize: 0, pageToken: '', target: '', actor: '', eventId: '' };
    const events = async (): Promise<bigint> =>
      (await database.query<{ count: bigint }>('SELECT count(*) FROM security_events')).rows[0]?.count ?? -1n;
    const before = { list: await revocationRecords.list(page), events: await events() };
    await measureRevocation(depsOf(replica), NEVER);
    const { rows } = await database.query<{ seq: bigint; reason: string }>(
      'SELECT seq, reason FROM revocation_entries WHERE canary ORDER BY seq DESC LIMIT 1',
    );
    const sequence = rows[0]?.seq ?? 0n;
    expect(rows[0]?.reason).to.equal('canary');
    expect((await revocationRecords.get(sequence)).revocation.reason).to.equal('canary');
    expect(await revocationRecords.list(page)).to.deep.equal(before.list);
    expect(await events()).to.equal(before.events);
    const receipts = createReceiptStore(database, 365);
    expect(await receipts.readOpen(undefined, sequence)).to.equal(undefined);
    const { sequence: other } = await cluster.revoke({ $case: 'userId', value: cluster.admin.userId });
    expect(other).to.equal(sequence + 1n);
    expect((await receipts.readOpen(undefined, other))?.revocation.kind).to.equal('USER');
    let closed = 0;
    await until(async () => {
      closed = await receipts.closeRound();
      return closed > 0;
    });
    expect(closed).to.equal(1);
    expect(await receipts.find(undefined, sequence)).to.equal(undefined);
    expect((await receipts.find(undefined, other))?.revocation.kind).to.equal('USER');
    expect((await revocationRecords.list(page)).revocations).to.have.length(
      before.list.revocations.length + 1,
    );
  });

  it('report an instance that is silent, but not one that has said that it stops', async () => {
    const [replica] = cluster.replicas;
    const { revocations } = replica;
    const join = async (number: number) => {
      const service = number === 7 ? 'frozen' : 'stopping';
      const instance = Buffer.alloc(16, number);
      const answer = await revocations.sync(question({ service, instance }));
      const next = { ...following(answer), service, instance };
      await revocations.sync(next);
      return next;
    };
    await join(7);
    const stopping = await join(8);
    const measuring = measureRevocation(depsOf(replica), NEVER);
    await new Promise((resolve) => setTimeout(resolve, 200));
    await revocations.sync({ ...stopping, leaving: true });
    await measuring;
    expect(seen.unconfirmed).to.deep.equal(['frozen']);
    expect(seen.events).to.deep.equal(['canary_unconfirmed']);
    expect(seen.outcomes).to.deep.equal(['completed']);
    const services = seen.confirmed.map(({ service }) => service).sort();
    expect(services).to.deep.equal(['auth', 'auth', 'inventory', 'payment']);
  });

  it('raise an alarm when auth itself accepts one that every instance of auth has confirmed', async () => {
    const [replica] = cluster.replicas;
    const accept = (token: string): Promise<string> => Promise.resolve(String(claimsOf(token).jti));
    await measureRevocation(depsOf(replica, { accept }), NEVER);
    expect(seen.outcomes).to.deep.equal(['admitted']);
    expect(seen.events).to.deep.equal(['canary_admitted']);
  });

  it('count a failure when none can be issued', async () => {
    const tokens = { mint: () => Promise.reject(new Error('no key')) };
    const failure = await rejectionOf(measureRevocation(depsOf(cluster.replicas[0], { tokens }), NEVER));
    expect(String(failure)).to.contain('no key');
    expect(seen.outcomes).to.deep.equal(['failed']);
  });

  it('report nothing when the process stops meanwhile', async () => {
    await measureRevocation(depsOf(cluster.replicas[0]), AbortSignal.abort());
    expect(seen).to.deep.include({ confirmed: [], unconfirmed: [], outcomes: [] });
  });
});

describe('the metrics of canary tokens', () => {
  it('have a bucket at the objective, begin at 0, and have no more than fifty services', async () => {
    const registry = new Registry();
    const clock = { monotonicMs: () => 0, wallMs: () => 5_000 };
    const observer = registerCanaryMetrics(registry, { intervalSeconds: 60, clock });
    observer.confirmed('inventory', 0.2);
    observer.confirmed('inventory', 0.3);
    observer.ran('completed');
    const text = await registry.metrics();
    expect(text).to.contain('portcullis_canary_seconds_bucket{le="0.25",service="inventory"} 1');
    expect(text).to.contain('portcullis_canary_unconfirmed_total{service="inventory"} 0');
    expect(text).to.contain('portcullis_canary_runs_total{outcome="admitted"} 0');
    expect(text).to.contain('portcullis_canary_completed_timestamp_seconds 5');
    for (let number = 0; number < 60; number++) observer.unconfirmed(`service-${number}`);
    expect(await registry.metrics())
      .to.contain('portcullis_canary_unconfirmed_total{service="other"} 11')
      .and.not.contain('service-50');
  });

  it('have neither an interval nor a time of the last measurement when there are none', async () => {
    const registry = new Registry();
    registerCanaryMetrics(registry, { intervalSeconds: 0, clock: systemClock });
    const text = await registry.metrics();
    expect(text).to.contain('portcullis_canary_interval_seconds 0');
    expect(text).to.contain('portcullis_canary_completed_timestamp_seconds 0');
  });
});
