/** States in the words of a story. */

import { type Answer, indexesIn } from './state.js';

export function epochName(index: number): string {
  return String.fromCharCode(65 + index);
}

export function entryName(index: number): string {
  return `e${index + 1}`;
}

export function positionText({
  epoch,
  sequence,
  entry,
}: {
  epoch: number;
  sequence: number;
  entry: number;
}): string {
  if (epoch === 0) return 'no epoch yet';
  return `epoch ${epochName(epoch - 1)}, position ${sequence}${entry === 0 ? '' : ` (${entryName(entry - 1)})`}`;
}

export function entriesText(bits: number): string {
  return bits === 0 ? 'no entries' : `entries ${indexesIn(bits).map(entryName).join(' ')}`;
}

/** What a request says of the entries that the instance holds. */
export function heldText({ heldTo, digest }: { heldTo: number; digest: number }): string {
  return heldTo === 0 ? '' : `, held up to ${heldTo} (${entriesText(digest)})`;
}

export function answerText(answer: Answer): string {
  const keys = answer.keys === 0 ? '' : `, key set ${answer.keys - 1}`;
  return `${positionText(answer)}, ${answer.pull ? 'pull' : entriesText(answer.entries)}${keys}`;
}
