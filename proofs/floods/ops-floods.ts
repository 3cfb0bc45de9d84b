/** Floods at the HTTP port for probes, metrics and keys. */

import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Attack } from './attack.js';
import type { Flood } from './flood.js';

const HALF_REQUEST = 'GET /livez HTTP/1.1\r\nhost: x\r\n';
const METRICS = 'GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n';
const KEYS = 'GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n';

/** A connection that is not read does not notice its end, so it is opened again after this time. */
const UNREAD_MS = 1_000;

/** Keeps so many connections open at every port, and opens them again when they are closed. */
async function keepOpen(
  attack: Attack,
  options: {
    readonly perPort: number;
    readonly text: string;
    readonly read: boolean;
    readonly addresses: number;
  },
): Promise<void> {
  const { perPort, text, read, addresses } = options;
  const { ops } = attack.input.addresses;
  const sockets = new Map<number, { readonly socket: Socket; readonly openedMs: number }>();
  let opened = 0;
  while (!attack.over) {
    for (let index = 0; index < perPort * ops.length && opened < 20 * perPort * ops.length; index += 1) {
      const former = sockets.get(index);
      const isOld = !read && former !== undefined && performance.now() - former.openedMs >= UNREAD_MS;
      if (former?.socket.destroyed === false && !isOld) continue;
      former?.socket.destroy();
      opened += 1;
      const from = attack.strange(index % addresses);
      const socket = attack.openText(ops[index % ops.length] ?? '', text, { from, read });
      sockets.set(index, { socket, openedMs: performance.now() });
    }
    await sleep(100);
  }
}

export const OPS_FLOODS: readonly Flood[] = [
  {
    name: 'half-sent-probes',
    attacker: 'stranger',
    title: '256 half-sent requests at every port for probes',
    run: (attack) => keepOpen(attack, { perPort: 256, text: HALF_REQUEST, read: true, addresses: 1 }),
  },
  {
    name: 'half-sent-probes-many',
    attacker: 'stranger',
    title: '600 half-sent requests at every port for probes, from 60 addresses',
    run: (attack) => keepOpen(attack, { perPort: 600, text: HALF_REQUEST, read: true, addresses: 60 }),
  },
  {
    name: 'slow-metrics-readers',
    attacker: 'stranger',
    title: '100 pipelined requests for metrics on each of 50 connections, whose answers are not read',
    run: (attack) => keepOpen(attack, { perPort: 50, text: METRICS.repeat(100), read: false, addresses: 10 }),
  },
  {
    name: 'public-key-sets',
    attacker: 'stranger',
    title: 'the key set over HTTP as fast as it is answered',
    run: async (attack) => {
      // The issuer is the address at which its keys are published.
      const auth = new URL(attack.input.issuer).host;
      await attack.repeat({ perSecond: 300, atOnce: 100, most: 6_000 }, async (index) => {
        attack.count('sent');
        const socket = attack.openText(auth, KEYS.repeat(10), {
          from: attack.strange(index % 20),
          read: true,
        });
        await sleep(100);
        socket.destroy();
      });
    },
  },
];
