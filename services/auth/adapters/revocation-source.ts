/** Answers Sync and Pull messages from auth's own database, for its own list and for the handlers. */

import type { RevocationSource } from '@portcullis/guard';
import type { PullResponse } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { LogBatch } from '../records/revocations.js';
import type { PullPart } from '../revocation/log.js';
import type { Revocations } from '../revocation/revocations.js';
import { shareEntries } from './encoded-entries.js';
import { broadcastOf, pullResponseOf, questionOf, syncResponseOf } from './revocation-messages.js';

/**
 * Creates the source. An aborted signal ends the wait, not the read.
 *
 * @param follow - called once with a listener for what this process writes to the log. The listener runs in the next turn
 *   of the event loop, so that a call that revokes its own token has answered by then
 */
export function createRevocationSource(
  revocations: Pick<Revocations, 'sync' | 'pull'>,
  follow: (onWritten: (batch: LogBatch) => void) => void = () => {},
): RevocationSource {
  /** Instances share the parts of a list, and so the messages. */
  const messages = new WeakMap<PullPart, PullResponse>();
  const messageOf = (part: PullPart): PullResponse => {
    const message = messages.get(part) ?? pullResponseOf(part);
    messages.set(part, message);
    return message;
  };
  return {
    follow: (onWritten) => follow((batch) => void setImmediate(onWritten, broadcastOf(batch))),

    sync: async (request, signal) => {
      const answer = await unlessAborted(revocations.sync(questionOf(request)), signal);
      const response = syncResponseOf(answer);
      shareEntries(response, answer);
      return response;
    },

    pull: async function* (request, signal) {
      const { service, instance } = request;
      for await (const part of revocations.pull({ service, instance }, signal)) {
        signal.throwIfAborted();
        yield messageOf(part);
      }
    },
  };
}

async function unlessAborted<T>(answer: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([answer, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
