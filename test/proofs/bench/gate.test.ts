/** The section `gate` of the bench: what it computes from what was measured. */

import { expect } from 'chai';
import type { GateArmName } from '../../../proofs/bench/gate-arms.js';
import type { GateLoad, GateTurn, GateTurns } from '../../../proofs/bench/gate-comparison.js';
import { type GateMeasured, gateFindings, ratioOf } from '../../../proofs/bench/gate-figures.js';
import { cutsIn } from '../../../proofs/bench/gate-metrics.js';
import { haproxySettings, nginxSettings } from '../../../proofs/bench/gate-proxies.js';
import { scheduledMsIn } from '../../../proofs/bench/processor-time.js';

const LOAD: GateLoad = {
  name: 'busy',
  title: 'calls',
  bytes: 64,
  connections: 4,
  inFlight: 32,
  tokens: 1,
  rounds: 3,
  callsPerTurn: 10,
};
const SAME = { median: 70, lower: 69, upper: 71 };

function turnsOf(micros: Partial<Record<GateArmName, readonly number[]>>): GateTurns {
  return new Map(
    Object.entries(micros).map(([arm, all]) => [
      arm as GateArmName,
      all.map(
        (cpuMicroseconds): GateTurn => ({
          cpuMicroseconds,
          upstreamMicroseconds: 40,
          perSecond: 1,
          p50Ms: 1,
        }),
      ),
    ]),
  );
}

function measured(turns: GateTurns, over: Partial<GateMeasured> = {}): GateMeasured {
  return {
    loads: [
      { kind: LOAD, turns },
      { kind: { ...LOAD, name: 'idle' }, turns },
    ],
    missing: [],
    versions: {},
    revokedMs: [1, 2, 3],
    unreadMs: [4],
    streams: 10_000,
    crowd: { bytes: 3_000, residentBytes: 5_000, cutMs: [300, 200, 400] },
    checks: { cpuMicroseconds: SAME, perSecond: SAME },
    ...over,
  };
}

describe('bench: section gate', () => {
  it('compares processor times round by round', () => {
    const turns = turnsOf({ gate: [10, 20, 30], nginx: [40, 40, 40] });
    expect(ratioOf(turns, 'gate', 'nginx')).to.deep.equal({ median: 0.5, lower: 0.375, upper: 0.625 });
    expect(ratioOf(turns, 'gate', 'haproxy')).to.equal(undefined);
  });

  it('reports every figure, and which goals are reached', () => {
    const { figures, goals, notes } = gateFindings(
      measured(turnsOf({ direct: [Number.NaN], gate: [10], nginx: [40], haproxy: [9] })),
    );
    expect(figures).to.include({
      cpu_ratio_nginx: 0.25,
      cpu_ratio_haproxy: 10 / 9,
      idle_cpu_ratio_nginx: 0.25,
      revoke_p50_ms: 2,
      unread_p99_ms: 4,
      cut_10000_ms: 300,
      bytes_per_stream: 3_000,
      check_cpu_us: 70,
    });
    expect(figures).to.have.property('revoke_p99_ms').that.is.closeTo(2.98, 1e-9);
    expect(goals.map(({ isReached }) => isReached)).to.deep.equal([
      true,
      false,
      true,
      true,
      true,
      true,
      true,
    ]);
    expect(notes).to.deep.equal([]);
  });

  it('names a proxy that could not be had, and invents neither figure nor goal for it', () => {
    const missing = [{ name: 'nginx', why: 'no such package' }] as const;
    const { figures, goals, notes } = gateFindings(
      measured(turnsOf({ gate: [10], haproxy: [20] }), { missing }),
    );
    expect(figures).to.include({ cpu_ratio_nginx: null, idle_cpu_ratio_nginx: null, cpu_ratio_haproxy: 0.5 });
    expect(goals.filter(({ name }) => name.includes('nginx'))).to.deep.equal([]);
    expect(notes?.join()).to.contain('nginx').and.to.contain('no such package');
  });

  it('reads the processor time of a thread and the cuts of a gate as they are reported', () => {
    expect(scheduledMsIn('1234567890 55 7\n')).to.equal(1234.56789);
    expect(scheduledMsIn('')).to.equal(undefined);
    expect(cutsIn('# HELP x\nportcullis_gate_events_total{event="call_cut"} 42\n')).to.equal(42);
    expect(cutsIn('portcullis_gate_events_total{event="limit_streams"} 7\n')).to.equal(0);
  });

  it('lets the proxies keep their connections, on one core each', () => {
    const nginx = nginxSettings({ folder: '/tmp/n', port: 1001, upstreamPort: 1002 });
    expect(nginx)
      .to.match(/listen 127\.0\.0\.1:1001 http2;/)
      .and.match(/server 127\.0\.0\.1:1002;/);
    expect(nginx)
      .to.match(/worker_processes 1;/)
      .and.match(/^ {4}keepalive 64;/m);
    const haproxy = haproxySettings({ port: 1001, upstreamPort: 1002 });
    expect(haproxy)
      .to.match(/nbthread 1\n/)
      .and.match(/bind 127\.0\.0\.1:1001 proto h2/);
    expect(haproxy)
      .to.match(/server service 127\.0\.0\.1:1002 proto h2/)
      .and.match(/http-reuse always/);
  });
});
