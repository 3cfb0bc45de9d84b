/** Pages that change as things happen: server-sent events that replace a part of a page while it is open. */

import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '@portcullis/guard/clock';
import { CallError } from './calls.js';
import { type Html, html } from './html.js';
import { beginEvents, sendEvent } from './http.js';
import { failureStatus } from './layout.js';
import { LoginEndedError } from './operators.js';

/**
 * Streams of one login at a time. Browsers open at most six HTTP/1.1 connections for a host, and each stream holds one of
 * them: with more streams, no further page of the console would load.
 */
const STREAMS_PER_LOGIN_MAX = 3;

/** A stream without changes sends a heartbeat this long after its last event, in milliseconds. */
const HEARTBEAT_MS = 2_000;

/** A stream ends after this long, in milliseconds; the browser opens the next one. */
const STREAM_MS_MAX = 10 * 60 * 1000;

/** After failures, the part is read again after at most this long, in milliseconds: auth may be overloaded. */
const RETRY_MS_MAX = 4_000;

/** Statuses of a failure that another reading does not mend. */
const FINAL_STATUSES: ReadonlySet<number> = new Set([400, 403, 404]);

/** What may wait for a browser that does not read, in bytes; beyond it, the stream ends. */
const UNREAD_BYTES_MAX = 512 * 1024;

/** A part of a page at one moment. */
export interface LivePart {
  readonly body: Html;
  /** What a screen reader says when it changes. */
  readonly summary: string;
  /** Nothing more will change. */
  readonly isFinal: boolean;
}

/** A part of a page that can be read again and again. */
export interface LiveSource {
  read(): Promise<LivePart>;
  /** Time between two readings, in milliseconds. */
  readonly intervalMs: number;
}

/** The part inside its page, with the path of its stream. */
export function liveRegion(path: string, { body, summary, isFinal }: LivePart): Html {
  const stream = isFinal ? '' : path;
  return html`<p class="summary" role="status" data-live-summary>${summary}</p>
${!isFinal && html`<p data-live-control hidden><button type="button" class="plain" data-live-pause>Pause</button></p>`}
<div data-live="${stream}">
${body}
</div>
${!isFinal && html`<p class="hint" aria-live="polite" data-live-hint><a href="">Reload</a> to see the present state.</p>`}`;
}

/** The streams that are open. */
export interface LiveStreams {
  /**
   * Sends the part whenever it has changed, until it is final, the browser leaves, or the login ends. The event `heartbeat`
   * reports that the part was read and has not changed. Beyond the limit of a login, its oldest stream ends with the event
   * `replaced`. A HEAD request has the status of the stream, and opens none.
   *
   * @param login - whose stream it is: a text that a confirmation of the login does not change
   * @throws CallError, before anything is sent, when the part cannot be read and another reading would not help
   */
  run(login: string, to: ServerResponse, source: LiveSource): Promise<void>;
  /** Tells the page that its login has ended. */
  end(to: ServerResponse): void;
  close(): void;
}

export function createLiveStreams(clock: Clock): LiveStreams {
  const open = new Map<string, Set<ServerResponse>>();
  let isClosed = false;

  const add = (login: string, to: ServerResponse): void => {
    const own = open.get(login) ?? new Set();
    open.set(login, own.add(to));
    to.once('close', () => {
      own.delete(to);
      if (own.size === 0 && open.get(login) === own) open.delete(login);
    });
    const [oldest] = own;
    if (own.size <= STREAMS_PER_LOGIN_MAX || oldest === undefined) return;
    own.delete(oldest);
    endWith(oldest, 'replaced');
  };

  return {
    run: async (login, to, source) => {
      if (isClosed) return void to.destroy();
      const isProbe = to.req.method === 'HEAD';
      if (!isProbe) add(login, to);
      const first = await firstReading(source, to);
      if (!isOpen(to)) return;
      if (first === 'ended') return endWith(to, 'ended');
      beginEvents(to);
      if (!isProbe) await follow(to, source, { first, untilMs: clock.monotonicMs() + STREAM_MS_MAX, clock });
      to.end();
    },
    end: (to) => endWith(to, 'ended'),
    close: () => {
      isClosed = true;
      for (const streams of open.values()) for (const to of streams) to.destroy();
    },
  };
}

/** Ends a stream with an event, also one that has not begun. */
function endWith(to: ServerResponse, event: string): void {
  if (!isOpen(to)) return;
  if (!to.headersSent) beginEvents(to);
  sendEvent(to, event, {});
  to.end();
}

/**
 * The part as the stream begins; undefined when it cannot be read at the moment.
 *
 * @throws CallError when another reading would not help
 */
async function firstReading(source: LiveSource, to: ServerResponse): Promise<LivePart | 'ended' | undefined> {
  try {
    return await source.read();
  } catch (error) {
    if (error instanceof LoginEndedError) return 'ended';
    if (!(error instanceof CallError)) throw error;
    if (isFinal(error) && isOpen(to)) throw error;
    return undefined;
  }
}

function isFinal(error: CallError): boolean {
  return FINAL_STATUSES.has(failureStatus(error));
}

async function follow(
  to: ServerResponse,
  { read, intervalMs }: LiveSource,
  { first, untilMs, clock }: { first: LivePart | undefined; untilMs: number; clock: Clock },
): Promise<void> {
  let part = first;
  let failures = 0;
  let sent = '';
  let sentMs = 0;
  while (isOpen(to) && clock.monotonicMs() < untilMs) {
    try {
      const { body, summary, isFinal: isLast } = part ?? (await read());
      part = undefined;
      failures = 0;
      if (!isOpen(to)) return;
      const nowMs = clock.monotonicMs();
      const hasChanged = body.text !== sent;
      if (hasChanged || nowMs - sentMs >= HEARTBEAT_MS) {
        sendEvent(to, hasChanged ? 'change' : 'heartbeat', hasChanged ? { body: body.text, summary } : {});
        sentMs = nowMs;
      }
      sent = body.text;
      if (isLast) return sendEvent(to, 'done', {});
    } catch (error) {
      if (error instanceof LoginEndedError) return sendEvent(to, 'ended', {});
      if (!(error instanceof CallError)) throw error;
      // The browser opens the stream again, and receives the status.
      if (isFinal(error)) return;
      // Auth may be busy; a later reading may succeed. Without a heartbeat, the page reports that it is old.
      failures += 1;
    }
    if (to.writableLength > UNREAD_BYTES_MAX) return void to.destroy();
    await sleep(pauseMs(intervalMs, failures), undefined, { ref: false });
  }
}

/** Time to the next reading, in milliseconds. */
function pauseMs(intervalMs: number, failures: number): number {
  return failures === 0
    ? intervalMs
    : Math.min(Math.max(intervalMs, RETRY_MS_MAX), intervalMs * 2 ** failures);
}

function isOpen(to: ServerResponse): boolean {
  return !to.destroyed && !to.writableEnded;
}
