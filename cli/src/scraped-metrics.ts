/** What the ops address of an instance says in the text format of Prometheus. */

/** Timeout of one request, in milliseconds. */
const SCRAPE_MS_MAX = 2000;

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
export async function scrape(url: string): Promise<Scraped> {
  const atMs = performance.now();
  const decisions = new Map<string, number>();
  let entries: number | undefined;
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(SCRAPE_MS_MAX) });
    if (!answer.ok) return { url, atMs, problem: `HTTP ${answer.status}`, decisions, entries };
    for (const line of (await answer.text()).split('\n')) {
      const [, name = '', labels = '', value = ''] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (DECISIONS.test(name)) {
        const outcome = /(?:outcome|reason|result)="([A-Z_]+)"/.exec(labels)?.[1];
        if (outcome !== undefined) decisions.set(outcome, (decisions.get(outcome) ?? 0) + Number(value));
      } else if (ENTRIES.test(name)) entries = Number(value);
    }
    return { url, atMs, problem: '', decisions, entries };
  } catch {
    return { url, atMs, problem: 'unreachable', decisions, entries };
  }
}
