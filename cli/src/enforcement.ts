/** Follows a revocation until every instance enforces it: a line for each instance as it confirms. */

import { setTimeout as sleep } from 'node:timers/promises';
import { errorOf } from '@portcullis/guard/client';
import {
  EnforcementState,
  type RevocationAtInstance,
  RevocationServiceClient,
} from '../gen/portcullis/revocation/v1/revocation.js';
import { instanceName } from './directory.js';
import { CommandError, describeFailure, EXIT } from './failures.js';
import type { Session } from './session.js';
import { timeText } from './tables.js';
import { interruptOf, note, type Terminal, writeLine } from './terminal.js';

/** How often auth is asked, in milliseconds. */
const POLL_MS = 200;

/** A revocation to follow. */
export interface Followed {
  readonly sequence: bigint;
  /** From then on no instance admits what was revoked. */
  readonly enforcedEverywhereBy: Date | undefined;
}

/**
 * Writes a line for each instance as it confirms, or once its lease is over.
 *
 * @throws CommandError when Ctrl-C ends the wait, or auth cannot be asked any more: the revocation stands
 */
export async function followEnforcement(
  session: Session,
  terminal: Terminal,
  { sequence, enforcedEverywhereBy }: Followed,
): Promise<void> {
  const interrupt = interruptOf(terminal);
  const revocations = session.client(RevocationServiceClient);
  const settled = new Set<string>();
  for (;;) {
    const { revocation, instances } = await session
      .call(revocations.getRevocation.bind(revocations), { sequence })
      .catch((error: unknown) => {
        const why =
          errorOf(error).reason === 'TOKEN_REVOKED'
            ? 'Your own session was revoked, and auth enforces it already, so the wait has ended.'
            : `${describeFailure(error).text}\nThe wait has ended.`;
        throw new CommandError(
          `${why} The revocation stands: it is entry ${sequence} of the log. ${boundText(enforcedEverywhereBy)}`,
          { exitCode: EXIT.waitInterrupted, cause: error },
        );
      });
    for (const instance of instances) {
      const name = instanceName(instance);
      if (instance.state === EnforcementState.ENFORCEMENT_STATE_PENDING || settled.has(name)) continue;
      settled.add(name);
      writeLine(terminal, { name, ...instance }, () => stateLine(name, instance, revocation?.revokeTime));
    }
    if (instances.every((instance) => settled.has(instanceName(instance)))) return;
    await sleep(POLL_MS, undefined, { signal: interrupt }).catch(() => undefined);
    if (!interrupt.aborted) continue;
    const waiting = instances.map(instanceName).filter((name) => !settled.has(name));
    throw new CommandError(
      `Interrupted. The revocation stands: it is entry ${sequence} of the log. ${boundText(enforcedEverywhereBy)} ` +
        `Not confirmed yet: ${waiting.join(', ')}.`,
      { exitCode: EXIT.waitInterrupted },
    );
  }
}

/** From when on the revocation is enforced whatever fails. */
export function boundText(enforcedEverywhereBy: Date | undefined): string {
  return enforcedEverywhereBy === undefined
    ? 'Nothing was revoked.'
    : `No instance admits it after ${enforcedEverywhereBy.toISOString()}, whatever fails.`;
}

/** One instance, in one line. */
function stateLine(name: string, instance: RevocationAtInstance, revokeTime: Date | undefined): string {
  if (instance.state === EnforcementState.ENFORCEMENT_STATE_ENFORCED) {
    const { enforcedTime } = instance;
    if (enforcedTime === undefined) return `✓ ${name} enforces it`;
    const afterMs = Math.max(0, enforcedTime.getTime() - (revokeTime ?? enforcedTime).getTime());
    return `✓ ${name} enforces it since ${timeText(enforcedTime)} (${afterMs} ms after the revocation)`;
  }
  const left = instance.left ? ' It had stopped.' : '';
  return instance.leaseEndTime === undefined
    ? `- ${name} is silent; its lease is over, so it refuses calls.${left}`
    : `- ${name} is silent; its lease ended at ${timeText(instance.leaseEndTime)}, so it refuses calls since then.${left}`;
}

/** Says what was revoked and what comes next. */
export function noteRevoked(terminal: Terminal, { sequence, enforcedEverywhereBy }: Followed): void {
  note(terminal, `${boundText(enforcedEverywhereBy)} The receipt: portcullis receipt ${sequence}`);
}
