/** The parts of a deployment that have a certificate, and the host names in it. */

/** Those of deploy/compose; further ones are options. `localhost` is for callers beside the containers. */
export const PARTIES = {
  auth: ['auth', 'localhost'],
  inventory: ['inventory', 'localhost'],
  payment: ['payment', 'localhost'],
  gate: ['gate', 'localhost'],
  nats: ['nats', 'nats-1', 'nats-2', 'nats-3'],
  postgres: ['postgres'],
} as const;

export type Party = keyof typeof PARTIES;
