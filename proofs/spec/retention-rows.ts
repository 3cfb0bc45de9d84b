/** The rows of retention: until when an entry stays in the log. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SPECIFICATION_FOLDER } from './vectors.js';

/** For clocks that differ and are set back, in milliseconds. */
const MARGIN_MS = 65_000;

/** The longest lifetime of a token that instances accept, in milliseconds. */
const ACCEPTED_MS = 3_600_000;

/** What decides how long an entry stays. All times are Unix milliseconds, all lifetimes milliseconds. */
export interface RetentionStep {
  readonly kind: string;
  /** Empty for this issuer. */
  readonly issuer: string;
  /** When the token expires that an entry of kind TOKEN revokes; null when it is not known. */
  readonly token_expires_ms: number | null;
  /** When the end of the log was locked. */
  readonly locked_ms: number;
  /** The longest lifetime with which any transaction may mint. */
  readonly lifetime_ms: number;
  /** When the last token of a former, longer lifetime expires; 0 when there was none. */
  readonly former_end_ms: number;
}

/** A row says when the last token that the entry revokes expires. */
interface RetentionRow {
  readonly id: string;
  readonly when: (step: RetentionStep) => boolean;
  readonly lastEndMs: (step: RetentionStep, acceptedMs: number) => number;
}

/** The first row that holds decides. */
export const RETENTION_ROWS: readonly RetentionRow[] = [
  {
    id: 'K1',
    when: ({ kind, issuer }) => issuer !== '' || kind === 'KEY',
    lastEndMs: ({ locked_ms }, acceptedMs) => locked_ms + acceptedMs,
  },
  {
    id: 'K2',
    when: ({ kind, token_expires_ms }) => kind === 'TOKEN' && token_expires_ms !== null,
    lastEndMs: ({ token_expires_ms }) => token_expires_ms ?? 0,
  },
  {
    id: 'K3',
    when: () => true,
    lastEndMs: ({ locked_ms, lifetime_ms, former_end_ms }) =>
      Math.max(locked_ms + lifetime_ms, former_end_ms),
  },
];

/**
 * Until when an entry stays at least, in Unix milliseconds.
 *
 * @param limits - those of a system whose tokens live shorter
 * @param without - a row that is left out
 */
export function keptUntilMs(
  step: RetentionStep,
  limits: { readonly acceptedMs?: number; readonly marginMs?: number } = {},
  without?: string,
): number | undefined {
  const { acceptedMs = ACCEPTED_MS, marginMs = MARGIN_MS } = limits;
  const row = RETENTION_ROWS.find(({ id, when }) => id !== without && when(step));
  return row && row.lastEndMs(step, acceptedMs) + marginMs;
}

/** An entry, and until when it stays. */
export interface RetentionVector {
  readonly name: string;
  /** The row that decides. */
  readonly row: string;
  readonly entry: RetentionStep;
  readonly keep_until_ms: number;
}

/** The vectors of retention. @throws Error when the file is of another version */
export function readRetentionVectors(): readonly RetentionVector[] {
  const text = readFileSync(join(SPECIFICATION_FOLDER, 'vectors', 'retention.json'), 'utf8');
  const { version, vectors } = JSON.parse(text) as { version: number; vectors: readonly RetentionVector[] };
  if (version !== 1) throw new Error(`expected vectors of version 1, got ${version}`);
  return vectors;
}
