/** The ports of the system, and the flags that set them. */

import { assertPortFree, findFreePort, isPortFree } from './ports.js';
import { SystemError } from './system-error.js';

/** A service's ops HTTP port is its gRPC port plus this. */
const OPS_OFFSET = 1_000;
const PORT_MAX = 65_535;
const FREE_PAIR_ATTEMPTS_MAX = 50;

/** The documented ports, the flag that sets each, and whether the part has an ops port. */
const PARTS = {
  auth: { port: 50_051, flag: '--auth-port', what: 'auth', ops: true },
  inventory1: { port: 50_052, flag: '--inventory-port', what: 'inventory-1', ops: true },
  inventory2: { port: 50_054, flag: '--inventory-2-port', what: 'inventory-2', ops: true },
  payment: { port: 50_053, flag: '--payment-port', what: 'payment', ops: true },
  nats: { port: 4_222, flag: '--nats-port', what: 'nats-server', ops: false },
  postgres: { port: 55_432, flag: '--postgres-port', what: 'PostgreSQL', ops: false },
} as const;

type PortName = keyof typeof PARTS;

/** Ports that the operator chose. */
export type PortFlags = Partial<Record<PortName, number>>;

export type SystemPorts = Readonly<Record<PortName, number>> & { readonly opsOffset: number };

export const PORT_FLAGS = Object.entries(PARTS).map(([name, { flag, port, what }]) => ({
  name: name as PortName,
  flag,
  port,
  what,
}));

/**
 * Chooses the ports: those that the operator chose, else the documented or free ones.
 *
 * @param options.without - the parts that are not started and need no port
 * @throws SystemError that names port and flag when a port is in use, invalid, or chosen twice
 */
export async function choosePorts(
  mode: 'default' | 'free',
  overrides: PortFlags,
  { without }: { without: readonly PortName[] },
): Promise<SystemPorts> {
  const chosen: Partial<Record<PortName, number>> = {};
  const holders = new Map<number, string>();
  for (const { name, flag, what, port: documented } of PORT_FLAGS) {
    const { ops } = PARTS[name];
    const chosenPort = overrides[name];
    const port = chosenPort ?? (mode === 'default' ? documented : await findFree(ops, holders));
    chosen[name] = port;
    if (without.includes(name)) continue;
    const needed = ops ? [port, port + OPS_OFFSET] : [port];
    for (const each of needed) {
      if (!Number.isInteger(each) || each < 1 || each > PORT_MAX) {
        throw new SystemError(`Port ${each} for ${what} (${flag}) does not exist.`);
      }
      const holder = holders.get(each);
      if (holder !== undefined) {
        throw new SystemError(
          `Port ${each} is wanted by ${holder} and by ${what}. Choose another with ${flag}.`,
        );
      }
      holders.set(each, what);
      await assertPortFree(
        each,
        each === port ? what : `${what}'s ops HTTP (gRPC port + ${OPS_OFFSET})`,
        flag,
      );
    }
  }
  return { ...(chosen as Record<PortName, number>), opsOffset: OPS_OFFSET };
}

async function findFree(withOps: boolean, taken: ReadonlyMap<number, string>): Promise<number> {
  for (let attempt = 0; attempt < FREE_PAIR_ATTEMPTS_MAX; attempt += 1) {
    const port = await findFreePort();
    const ops = port + OPS_OFFSET;
    if (taken.has(port)) continue;
    if (!withOps || (!taken.has(ops) && (await isPortFree(ops)))) return port;
  }
  throw new SystemError('No free pair of ports was found.');
}
