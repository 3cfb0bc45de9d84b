/** The process of one flood: it receives its input, sends, and reports what came back. */

import { Attack } from './attack.js';
import { FLOODS } from './catalogue.js';
import type { FloodInput } from './flood-input.js';

process.once('message', (input: FloodInput) => {
  void flood(input);
});
// A flood must not outlive the proof.
process.once('disconnect', () => process.exit(1));
process.send?.({ ready: true });

async function flood(input: FloodInput): Promise<void> {
  const found = FLOODS.find(({ name }) => name === input.name);
  if (found === undefined) throw new RangeError(`there is no flood ${input.name}`);
  const attack = new Attack(input);
  await found.run(attack);
  await attack.hold();
  process.send?.({ tally: attack.tally }, () => process.exit(0));
}
