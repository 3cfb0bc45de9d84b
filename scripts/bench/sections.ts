/** The sections of the bench, in the order in which they are run. */

import type { Section } from './section.js';
import { warm } from './warm.js';

export const SECTIONS: readonly Section[] = [warm];
