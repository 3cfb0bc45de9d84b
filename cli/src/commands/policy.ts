/** `portcullis policy get`, `plan` and `apply`. */

import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { PolicyServiceClient } from '../../gen/auth/v1/policy_service.js';
import type { ContextStore } from '../contexts.js';
import { CommandError, describeFailure, EXIT } from '../failures.js';
import { describeChanges, formatPolicy, parsePolicy } from '../policy-text.js';
import { openSession, type Session } from '../session.js';
import { note, readInput, type Terminal, writeResult } from '../terminal.js';

interface ContextOption {
  readonly context?: string;
}

/** Prints the policy in force. */
export async function getPolicy(
  terminal: Terminal,
  store: ContextStore,
  { context }: ContextOption,
): Promise<void> {
  await inSession(store, context, async (session) => {
    const policy = await readPolicy(session);
    writeResult(terminal, policy, () => formatPolicy(policy).trimEnd());
  });
}

/** Prints what applying a file would change, and changes nothing. */
export async function planPolicy(
  terminal: Terminal,
  store: ContextStore,
  file: string,
  { context }: ContextOption,
): Promise<void> {
  const wanted = parsePolicy(await textOf(terminal, file), file);
  await inSession(store, context, async (session) => {
    const { etag } = await readPolicy(session);
    const policies = session.client(PolicyServiceClient);
    const request = {
      policy: { ...wanted, etag, updateTime: undefined },
      dryRun: true,
      requestId: '',
      reason: '',
    };
    const { changes } = await session.call(policies.applyPolicy.bind(policies), request);
    writeResult(terminal, { etag, changes }, () =>
      changes.length === 0 ? 'Nothing would change.' : `${describeChanges(changes)}\n\netag: ${etag}`,
    );
  });
}

/** Options of `policy apply`. */
export interface ApplyOptions extends ContextOption {
  /** The etag that `plan` has shown: applies only what was looked at. */
  readonly etag?: string;
  readonly reason?: string;
  /** The id of an earlier request, to wait for what it has begun. Default: a new one. */
  readonly requestId?: string;
}

/** Makes the policy of a file the one in force. Applying it again changes nothing. */
export async function applyPolicy(
  terminal: Terminal,
  store: ContextStore,
  file: string,
  { context, etag: planned, reason = '', requestId = randomUUID() }: ApplyOptions,
): Promise<void> {
  const wanted = parsePolicy(await textOf(terminal, file), file);
  await inSession(store, context, async (session) => {
    const etag = planned ?? (await readPolicy(session)).etag;
    const policies = session.client(PolicyServiceClient);
    const request = { policy: { ...wanted, etag, updateTime: undefined }, dryRun: false, requestId, reason };
    const applied = await changingPolicy(session, () =>
      session.call(policies.applyPolicy.bind(policies), request),
    ).catch((error: unknown) => {
      throw unfinished(error, `portcullis policy apply ${file} --etag '${etag}' --request-id ${requestId}`);
    });
    const { changes, narrowedUsers, narrowedClients, enforcedEverywhereBy } = applied;
    writeResult(terminal, applied, () =>
      changes.length === 0 ? 'Nothing has changed.' : describeChanges(changes),
    );
    if (terminal.json || narrowedUsers + narrowedClients === 0n) return;
    note(
      terminal,
      `Rights were taken from ${narrowedUsers} users and ${narrowedClients} clients; no instance accepts their earlier tokens after ${enforcedEverywhereBy?.toISOString() ?? '?'}.`,
    );
  });
}

/**
 * Calls a method that changes the policy, and once more when the change has revoked the token of the call: it may take a
 * scope from a role of the user who makes it, whose session goes on without it.
 *
 * @param change - the call, with the same request id every time, so that the change is made once
 */
export async function changingPolicy<Response>(
  session: Session,
  change: () => Promise<Response>,
): Promise<Response> {
  try {
    return await change();
  } catch (error) {
    if (errorOf(error).reason !== 'TOKEN_REVOKED') throw error;
    await session.renew();
    return await change();
  }
}

/** Errors after which the change may be committed all the same. */
const UNCLEAR: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.CANCELLED,
  status.UNKNOWN,
  status.INTERNAL,
  status.UNAUTHENTICATED,
]);

/** What to do when it is not known whether the change was made. The same request is answered with its first response. */
function unfinished(error: unknown, command: string): unknown {
  if (!UNCLEAR.has(errorOf(error).code)) return error;
  const { text, exitCode } = describeFailure(error);
  const session = exitCode === EXIT.loggedOut ? ', after portcullis login,' : '';
  return new CommandError(`${text}\nThe change may have been made. Repeat it${session} with: ${command}`, {
    exitCode,
    cause: error,
  });
}

async function readPolicy(session: Session) {
  const policies = session.client(PolicyServiceClient);
  const { policy } = await session.call(policies.getPolicy.bind(policies), {});
  if (policy === undefined) throw new CommandError('Auth has sent no policy.');
  return policy;
}

/** @param file - a path, or `-` for standard input */
async function textOf(terminal: Terminal, file: string): Promise<string> {
  if (file === '-') return await readInput(terminal);
  return await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new CommandError(`${file} cannot be read: ${cause.message}`, { exitCode: EXIT.usage, cause });
  });
}

export async function inSession(
  store: ContextStore,
  context: string | undefined,
  work: (session: Session) => Promise<void>,
): Promise<void> {
  const session = await openSession(store, context);
  try {
    await work(session);
  } finally {
    session.close();
  }
}
