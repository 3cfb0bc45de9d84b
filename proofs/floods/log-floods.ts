/** Floods of an instance whose log cannot be written. */

import type { Flood } from './flood.js';
import { sendBadHeaders } from './stranger-floods.js';

export const LOG_FLOODS: readonly Flood[] = [
  {
    name: 'full-log',
    attacker: 'stranger',
    title: 'headers that are logged, while the disk of the log is full',
    log: 'full',
    run: (attack) => sendBadHeaders(attack, [attack.input.addresses.inventory[1]]),
  },
  {
    name: 'stalled-log',
    attacker: 'stranger',
    title: 'headers that are logged, while the reader of the log stands still',
    log: 'stalled',
    run: (attack) => sendBadHeaders(attack, [attack.input.addresses.inventory[1]]),
  },
];
