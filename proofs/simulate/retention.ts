/** Until when entries stay in the simulated log, compared with the rows of the specification. */

import type { NewEntry } from '../../services/auth/records/revocations.js';
import { tokensEndOf } from '../../services/auth/revocation/log.js';
import { keptUntilMs } from '../spec/retention-rows.js';
import type { World } from './world.js';

/** What the log knows of the lifetimes of tokens. */
interface Lifetimes {
  readonly tokenSeconds: number;
  readonly olderTokenSeconds?: number | undefined;
  readonly olderTokensEndByMs: number;
}

/** Rounding up, in milliseconds. */
const ROUNDED_MS = 1;

/** As the statement of the store in PostgreSQL. */
export function keepUntilMs(world: World, log: Lifetimes, entry: NewEntry, nowMs: number): number {
  const { without, settings } = world;
  if (without === 'retention') return nowMs + 500;
  const marginMs = settings.keepMarginSeconds * 1000;
  const withoutOlder = without === 'older-lifetimes';
  const lifetimeMs = 1000 * Math.max(log.tokenSeconds, withoutOlder ? 0 : (log.olderTokenSeconds ?? 0));
  const olderEndMs = withoutOlder ? 0 : log.olderTokensEndByMs;
  const keptMs = marginMs + endMs();
  compare(world, log, entry, { nowMs, keptMs });
  return keptMs;

  function endMs(): number {
    const end = tokensEndOf(entry);
    if (end instanceof Date) return end.getTime();
    if (end === 'ANY') return nowMs + ROUNDED_MS + settings.accessTokenSecondsMax * 1000;
    return Math.max(nowMs + lifetimeMs, olderEndMs) + ROUNDED_MS;
  }
}

function compare(
  { comparesTables, settings, measures, scheduler, violations }: World,
  { tokenSeconds, olderTokenSeconds = 0, olderTokensEndByMs }: Lifetimes,
  { kind, issuer, tokenExpireTime }: NewEntry,
  { nowMs, keptMs }: { readonly nowMs: number; readonly keptMs: number },
): void {
  if (!comparesTables) return;
  measures.comparedSteps += 1;
  const table = keptUntilMs(
    {
      kind,
      issuer,
      token_expires_ms: tokenExpireTime?.getTime() ?? null,
      locked_ms: nowMs,
      lifetime_ms: 1000 * Math.max(tokenSeconds, olderTokenSeconds),
      former_end_ms: olderTokensEndByMs,
    },
    { acceptedMs: settings.accessTokenSecondsMax * 1000, marginMs: settings.keepMarginSeconds * 1000 },
  );
  if (table !== undefined && keptMs >= table && keptMs <= table + ROUNDED_MS) return;
  const what = `the log and the tables of the specification differ: an entry of kind ${kind} is kept until ${keptMs}, but the tables say ${table}`;
  violations.push({ oracle: 'tables', atMs: scheduler.nowMs, what });
}
