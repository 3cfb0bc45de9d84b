/** Pages that change as things happen: server-sent events that replace a part of a page while it is open. */

import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '@portcullis/guard/clock';
import { CallError } from './calls.js';
import { type Html, html } from './html.js';
import { beginEvents, sendEvent } from './http.js';
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
   * `replaced`.
   *
   * @param login - whose stream it is
   */
  run(login: string, to: ServerResponse, source: LiveSource): Promise<void>;
  /** Tells the page that its login has ended. */
  end(to: ServerResponse): void;
  close(): void;
}

export function createLiveStreams(clock: Clock): LiveStreams {
  const open = new Map<string, Set<ServerResponse>>();
  return {
    run: async (login, to, source) => {
      const own = open.get(login) ?? new Set();
      open.set(login, own.add(to));
      beginEvents(to);
      const [oldest] = own;
      if (own.size > STREAMS_PER_LOGIN_MAX && oldest !== undefined) {
        own.delete(oldest);
        sendEvent(oldest, 'replaced', {});
        oldest.end();
      }
      to.once('close', () => {
        own.delete(to);
        if (own.size === 0 && open.get(login) === own) open.delete(login);
      });
      await follow(to, source, clock.monotonicMs() + STREAM_MS_MAX, clock);
      to.end();
    },
    end: (to) => {
      beginEvents(to);
      sendEvent(to, 'ended', {});
      to.end();
    },
    close: () => {
      for (const streams of open.values()) for (const to of streams) to.destroy();
    },
  };
}

async function follow(
  to: ServerResponse,
  { read, intervalMs }: LiveSource,
  untilMs: number,
  clock: Clock,
): Promise<void> {
  let sent = '';
  let sentMs = 0;
  while (isOpen(to) && clock.monotonicMs() < untilMs) {
    try {
      const { body, summary, isFinal } = await read();
      if (!isOpen(to)) return;
      const nowMs = clock.monotonicMs();
      const hasChanged = body.text !== sent;
      if (hasChanged || nowMs - sentMs >= HEARTBEAT_MS) {
        sendEvent(to, hasChanged ? 'change' : 'heartbeat', hasChanged ? { body: body.text, summary } : {});
        sentMs = nowMs;
      }
      sent = body.text;
      if (isFinal) return sendEvent(to, 'done', {});
    } catch (error) {
      if (error instanceof LoginEndedError) return sendEvent(to, 'ended', {});
      // Auth may be busy; the next reading may succeed. Without a heartbeat, the page reports that it is old.
      if (!(error instanceof CallError)) throw error;
    }
    if (to.writableLength > UNREAD_BYTES_MAX) return void to.destroy();
    await sleep(intervalMs, undefined, { ref: false });
  }
}

function isOpen(to: ServerResponse): boolean {
  return !to.destroyed && !to.writableEnded;
}
