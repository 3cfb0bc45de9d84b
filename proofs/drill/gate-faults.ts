/** Faults of gates and of the servers behind them. */

import type { Fault, Striking } from './faults.js';
import type { DrillGate } from './gates.js';

/** The faults of the revocation drill with gates. */
export const GATE_FAULTS: readonly Fault[] = [
  {
    name: 'gate killed',
    mayLoseService: true,
    lasts: [0, 0.7],
    async strike(striking) {
      const { process } = killGate(striking);
      return () => process.restart();
    },
  },
  {
    name: 'server behind a gate killed',
    // The gate itself loses nothing: its list stays current, and it goes on to refuse revoked tokens.
    mayLoseService: false,
    lasts: [0.3, 1],
    async strike(striking) {
      const { upstream } = gateOf(striking);
      upstream.kill('SIGKILL');
      await upstream.ended();
      return () => upstream.restart();
    },
  },
  {
    name: 'server behind a gate frozen',
    mayLoseService: false,
    lasts: [1, 2],
    async strike(striking) {
      const { upstream } = gateOf(striking);
      upstream.kill('SIGSTOP');
      return async () => upstream.kill('SIGCONT');
    },
  },
  {
    name: 'gate and its server killed',
    mayLoseService: true,
    lasts: [0, 0.7],
    async strike(striking) {
      const { process, upstream } = killGate(striking);
      upstream.kill('SIGKILL');
      await upstream.ended();
      // Ready once it reaches its server.
      return async () => {
        await upstream.restart();
        await process.restart();
      };
    },
  },
];

/** The gates in turn. */
function gateOf({ environment: { gates }, turn }: Striking): DrillGate {
  const gate = gates[turn % gates.length];
  if (gate === undefined) throw new TypeError('the drill runs without gates');
  return gate;
}

function killGate(striking: Striking): DrillGate {
  const gate = gateOf(striking);
  const { load, environment, turn } = striking;
  load.revokedFirst.add(gate.name);
  load.restarted.add(gate.name);
  // Each gate is killed, and then asked to stop.
  const isKilled = Math.floor(turn / environment.gates.length) % 2 === 0;
  gate.process.kill(isKilled ? 'SIGKILL' : 'SIGTERM');
  return gate;
}
