/** What the ops address of an instance says in the text format of Prometheus. */

import { get as getHttp, type IncomingMessage } from 'node:http';
import { get as getHttps } from 'node:https';

/** Timeout of one request, in milliseconds. */
const SCRAPE_MS_MAX = 2000;

/** Maximum size of a reading, in bytes. */
const SCRAPE_BYTES_MAX = 16 * 1024 * 1024;

/** Metrics of the library that `top` shows: decisions by outcome, and entries in the list. */
const DECISIONS = /^portcullis_decisions_total$/;
const ENTRIES = /^portcullis_revocation_entries$/;

/** One reading. */
export interface Scraped {
  readonly url: string;
  /** Monotonic time, in milliseconds. */
  readonly atMs: number;
  /** Empty when it was read. */
  readonly problem: string;
  /** How many decisions there were, by `ADMITTED` and the reasons of refusals. */
  readonly decisions: ReadonlyMap<string, number>;
  readonly entries: number | undefined;
}

/** Reads one address. Never rejects. */
export async function scrape(url: string, ca?: Buffer): Promise<Scraped> {
  const atMs = performance.now();
  const decisions = new Map<string, number>();
  let entries: number | undefined;
  try {
    const { status, text } = await get(url, ca);
    if (status !== 200) return { url, atMs, problem: `HTTP ${status}`, decisions, entries };
    for (const line of text.split('\n')) {
      const [, name = '', labels = '', value = ''] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (DECISIONS.test(name)) {
        const outcome = /(?:outcome|reason|result)="([A-Z_]+)"/.exec(labels)?.[1];
        if (outcome !== undefined) decisions.set(outcome, (decisions.get(outcome) ?? 0) + Number(value));
      } else if (ENTRIES.test(name)) entries = Number(value);
    }
    return { url, atMs, problem: '', decisions, entries };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? ` (${String(error.code)})` : '';
    return { url, atMs, problem: `unreachable${code}`, decisions, entries };
  }
}

/** @param ca - the certificate authorities of an https address; those of Node by default */
async function get(url: string, ca: Buffer | undefined): Promise<{ status: number; text: string }> {
  const signal = AbortSignal.timeout(SCRAPE_MS_MAX);
  const { protocol } = new URL(url);
  return await new Promise((resolve, reject) => {
    const onResponse = (response: IncomingMessage): void => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        bytes += part.length;
        if (bytes > SCRAPE_BYTES_MAX) response.destroy(new Error('the metrics are too long'));
        else parts.push(part);
      });
      response.once('error', reject);
      response.once('end', () => {
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') });
      });
    };
    const sent =
      protocol === 'https:'
        ? getHttps(url, { signal, ...(ca !== undefined && { ca }) }, onResponse)
        : getHttp(url, { signal }, onResponse);
    sent.once('error', reject);
  });
}
