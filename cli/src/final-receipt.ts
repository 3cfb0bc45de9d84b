/** Waits until the evidence of a revocation is final: auth closes it some seconds after the bound. */

import { setTimeout as sleep } from 'node:timers/promises';
import { EvidenceServiceClient } from '../gen/auth/v1/evidence_service.js';
import { CommandError, EXIT } from './failures.js';
import { type Receipt, verifyReceipt } from './receipt-file.js';
import type { Session } from './session.js';
import { interruptOf, note, type Terminal } from './terminal.js';

/** How often auth is asked, in milliseconds. */
const POLL_MS = 500;

/** How often the command says that it still waits, in milliseconds. */
const PROGRESS_MS = 5_000;

/** How long after the bound the evidence may take, in milliseconds; auth takes less than 15 seconds. */
const WAIT_MAX_MS = 60_000;

/** A receipt as auth has signed it, and what it says. */
export interface SignedReceipt {
  /** The compact JWS. */
  readonly text: string;
  /** The published keys. */
  readonly jwks: string;
  /** What a third party will verify. */
  readonly receipt: Receipt;
}

/** Which receipt. */
export interface ReceiptRequest {
  readonly sequence: bigint;
  /** Empty: the present epoch. */
  readonly epoch: Buffer;
}

/** Exports a receipt as it is now. @throws CommandError when its signature is not good */
export async function exportReceipt(session: Session, request: ReceiptRequest): Promise<SignedReceipt> {
  const client = session.client(EvidenceServiceClient);
  const { receipt: text } = await session.call(client.exportReceipt.bind(client), request);
  const { jwks } = await session.call(client.getReceiptKeys.bind(client), {});
  return { text, jwks, receipt: await verifyReceipt(text, jwks) };
}

/**
 * Exports a receipt when its evidence is final, and says what it waits for.
 *
 * @throws CommandError when Ctrl-C ends the wait, or when the evidence is not final a minute after the bound
 */
export async function exportFinalReceipt(
  session: Session,
  terminal: Terminal,
  request: ReceiptRequest,
): Promise<SignedReceipt> {
  let exported = await exportReceipt(session, request);
  if (exported.receipt.final) return exported;
  const interrupt = interruptOf(terminal);
  const startedMs = performance.now();
  const leftMs = untilBound(exported.receipt);
  note(terminal, 'Waiting until the evidence is final. --now writes it as it is.');
  let nextProgressMs = startedMs + PROGRESS_MS;
  while (!exported.receipt.final) {
    await sleep(POLL_MS, undefined, { signal: interrupt }).catch(() => undefined);
    if (interrupt.aborted) {
      throw new CommandError('Interrupted: nothing was written. The revocation stands.', {
        exitCode: EXIT.waitInterrupted,
      });
    }
    const nowMs = performance.now();
    if (nowMs - startedMs > leftMs + WAIT_MAX_MS) {
      throw new CommandError(
        `The evidence is not final ${WAIT_MAX_MS / 1000} s after the bound, so nothing was written. --now writes it as it is.`,
      );
    }
    if (nowMs >= nextProgressMs) {
      nextProgressMs += PROGRESS_MS;
      note(
        terminal,
        `Waiting for ${Math.round((nowMs - startedMs) / 1000)} s: ${stateOf(exported.receipt)}.`,
      );
    }
    exported = await exportReceipt(session, request);
  }
  return exported;
}

/** How long it takes until the bound by auth's clock, in milliseconds: that of this machine may be off. */
function untilBound({ as_of: asOf, revocation }: Receipt): number {
  return Math.max(0, Date.parse(revocation.enforced_everywhere_by) - Date.parse(asOf));
}

function stateOf({ instances, revocation }: Receipt): string {
  const pending = instances.filter(({ state }) => state === 'PENDING').length;
  return pending === 0
    ? `every instance enforces it, and the evidence is closed some seconds after ${revocation.enforced_everywhere_by}`
    : `${pending} of ${instances.length} instances have not confirmed it`;
}
