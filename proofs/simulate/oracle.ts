/**
 * What is true, whatever anybody in the system believes: which tokens there are, what takes them back, from when
 * on, and what the database has lost. It follows the order of commits and knows nothing of generations,
 * sequences or lists, so that it can judge those who do.
 */

import type { Metadata } from '@grpc/grpc-js';
import type { Revocation } from '../../services/auth/records/revocations.js';
import { enforcementBoundMs } from '../../services/auth/revocation/log.js';

/** A revocation that was committed, or the opening of an epoch, which takes back all there was. */
export interface RevocationTruth {
  readonly label: string;
  readonly kind: Revocation['kind'] | 'EPOCH';
  readonly durableAtMs: number;
  /** From Revoke's return until nobody may admit what it hits any longer. */
  boundMs: number;
  /** Leases of a greater length, from before it was lowered, end by this moment. */
  readonly olderLeasesEndMs: number;
  /** When Revoke returned OK; undefined as long as it has not. */
  confirmedAtMs: number | undefined;
  /** When the database forgot it. */
  lostAtMs: number | undefined;
}

/** A login. */
export interface SessionTruth {
  readonly label: string;
  readonly sessionId: string;
  readonly userId: string;
  readonly openedAtMs: number;
  readonly revocations: RevocationTruth[];
  lostAtMs: number | undefined;
}

/** A part that a client has in a token: who is revoked afterwards takes the token along. */
interface ClientLink {
  readonly clientId: string;
  readonly revocations: RevocationTruth[];
}

/** A token that was issued. */
export interface TokenTruth {
  readonly label: string;
  readonly text: string;
  readonly tokenId: string;
  readonly keyId: string;
  readonly audiences: readonly string[];
  readonly expiresAtSeconds: number;
  readonly session: SessionTruth | undefined;
  readonly parents: readonly TokenTruth[];
  readonly links: readonly ClientLink[];
  readonly revocations: RevocationTruth[];
  readonly issuedAtMs: number;
  lostAtMs: number | undefined;
  /** As it is sent with a call; made when it is first needed. */
  metadata?: Metadata;
}

/** What the claims of a token say that is needed to follow it. */
export interface IssuedClaims {
  readonly jti: string;
  readonly sub: string;
  readonly sid?: string;
  readonly client_id: string;
  readonly aud: readonly string[];
  readonly exp: number;
  readonly ancestors?: readonly string[];
}

/** Follows what is true. All times are true time. */
export class Truth {
  readonly #nowMs: () => number;
  readonly #tokens = new Map<string, TokenTruth>();
  readonly #byText = new Map<string, TokenTruth>();
  readonly #sessions = new Map<string, SessionTruth & { readonly link: ClientLink }>();
  readonly #revocations = new Map<string, RevocationTruth>();
  readonly #byEntry = new Map<string, RevocationTruth>();
  readonly #all: RevocationTruth[] = [];
  #leaseMsMax = 0;
  #restoredLeasesEndMs = 0;
  readonly #epochs: { readonly epoch: string; readonly openedAtMs: number; lostAtMs: number | undefined }[] =
    [];
  /** When the database was last put back. */
  restoredAtMs: number | undefined;
  /** The epoch that is valid now, and when it was opened. */
  epoch = '';
  epochOpenedAtMs = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get tokens(): Iterable<TokenTruth> {
    return this.#tokens.values();
  }

  get revocations(): readonly RevocationTruth[] {
    return this.#all;
  }

  byText(text: string): TokenTruth {
    const token = this.#byText.get(text);
    if (token === undefined) throw new Error('a token was handed out that was never committed');
    return token;
  }

  sessionOpened(session: { sessionId: string; userId: string; clientId: string }): void {
    const { sessionId, userId, clientId } = session;
    const link = { clientId, revocations: [] };
    const openedAtMs = this.#nowMs();
    this.#sessions.set(sessionId, {
      label: `session-${this.#sessions.size + 1}`,
      sessionId,
      userId,
      openedAtMs,
      revocations: [],
      lostAtMs: undefined,
      link,
    });
  }

  tokenIssued(claims: IssuedClaims, text: string, keyId: string): void {
    const session = claims.sid === undefined ? undefined : this.#sessions.get(claims.sid);
    const parents = (claims.ancestors ?? []).flatMap((id) => this.#tokens.get(id) ?? []);
    const inherited = parents.at(-1)?.links ?? (session === undefined ? [] : [session.link]);
    // Whoever exchanges takes part from now on; in a token from a login the session's client did so before.
    const own =
      parents.length > 0 || session === undefined ? [{ clientId: claims.client_id, revocations: [] }] : [];
    const token: TokenTruth = {
      label: `token-${this.#tokens.size + 1}`,
      text,
      tokenId: claims.jti,
      keyId,
      audiences: claims.aud,
      expiresAtSeconds: claims.exp,
      session,
      parents,
      links: [...inherited, ...own],
      revocations: [],
      issuedAtMs: this.#nowMs(),
      lostAtMs: undefined,
    };
    this.#tokens.set(claims.jti, token);
    this.#byText.set(text, token);
  }

  leaseChanged(leaseMs: number): void {
    this.#leaseMsMax = Math.max(this.#leaseMsMax, leaseMs);
  }

  /** The revocation that an entry stands for; undefined when it was never committed. */
  byEntry(entryId: string): RevocationTruth | undefined {
    return this.#byEntry.get(entryId);
  }

  /** An entry was committed. */
  revoked(
    entry: Revocation,
    known: {
      label: string;
      entryId: string;
      leaseMs: number;
      olderLeasesEndMs: number;
      /** The user's sessions go on and get new tokens; the old ones die all the same. */
      sessionsGoOn: boolean;
    },
  ): void {
    const revocation = this.#note(entry.kind, known);
    this.#byEntry.set(known.entryId, revocation);
    // What another issuer has issued is nothing of ours, whatever it is called.
    if (entry.issuer !== '') return;
    const text = entry.key.toString('utf8');
    switch (entry.kind) {
      case 'TOKEN':
        this.#tokens.get(uuidText(entry.key))?.revocations.push(revocation);
        return;
      case 'SESSION':
        this.#sessions.get(uuidText(entry.key))?.revocations.push(revocation);
        return;
      case 'USER':
        if (known.sessionsGoOn) {
          for (const token of this.#tokens.values()) {
            if (token.session?.userId === text) token.revocations.push(revocation);
          }
          return;
        }
        for (const session of this.#sessions.values()) {
          if (session.userId === text) session.revocations.push(revocation);
        }
        return;
      case 'CLIENT':
        for (const link of this.#links()) if (link.clientId === text) link.revocations.push(revocation);
        return;
      case 'KEY':
        for (const token of this.#tokens.values())
          if (token.keyId === text) token.revocations.push(revocation);
        return;
    }
  }

  epochOpened(epoch: string, known: { label: string; leaseMs: number; olderLeasesEndMs: number }): void {
    const revocation = this.#note('EPOCH', known);
    for (const token of this.#tokens.values()) token.revocations.push(revocation);
    for (const session of this.#sessions.values()) session.revocations.push(revocation);
    this.epoch = epoch;
    this.epochOpenedAtMs = this.#nowMs();
    this.#epochs.push({ epoch, openedAtMs: this.epochOpenedAtMs, lostAtMs: undefined });
  }

  /** An entry was written once more, under another id, at the beginning of a new epoch. */
  carriedOver(formerId: string, entryId: string): void {
    const revocation = this.#byEntry.get(formerId);
    if (revocation !== undefined) this.#byEntry.set(entryId, revocation);
  }

  /** What an entry takes back, in words that are the same in every run of a seed. */
  describe({ kind, issuer, key }: Revocation): string {
    const id =
      issuer === '' && (kind === 'TOKEN' || kind === 'SESSION') ? uuidText(key) : key.toString('utf8');
    const name = this.#tokens.get(id)?.label ?? this.#sessions.get(id)?.label ?? id;
    return issuer === '' ? `${kind} ${name}` : `${kind} of another issuer`;
  }

  /** Revoke has returned OK; when it has waited for that, nobody may admit anything from now on. */
  confirmed(label: string, isEverywhere = false): void {
    const revocation = this.#revocations.get(label);
    if (revocation === undefined) throw new Error(`${label} was confirmed but never committed`);
    revocation.confirmedAtMs = this.#nowMs();
    if (isEverywhere) revocation.boundMs = 0;
  }

  /** Whether this is among what takes the token back, and the promise speaks of it. */
  isHitBy(token: TokenTruth, label: string): boolean {
    for (const revocation of this.revocationsOf(token)) {
      if (revocation.label === label && counts(revocation, token)) return true;
    }
    return false;
  }

  /** The database is as it was at an earlier moment; what was committed since is lost. */
  restored(toMs: number): void {
    const nowMs = this.#nowMs();
    this.restoredAtMs = nowMs;
    this.#restoredLeasesEndMs = nowMs + enforcementBoundMs(this.#leaseMsMax);
    for (const opened of this.#epochs) if (opened.openedAtMs > toMs) opened.lostAtMs ??= nowMs;
    for (const revocation of this.#all) if (revocation.durableAtMs > toMs) revocation.lostAtMs ??= nowMs;
    for (const session of this.#sessions.values()) if (session.openedAtMs > toMs) session.lostAtMs ??= nowMs;
    for (const token of this.#tokens.values()) {
      if (token.issuedAtMs > toMs || token.session?.lostAtMs !== undefined) token.lostAtMs ??= nowMs;
    }
  }

  /** Whether the log may hold traces of what was lost: nothing is said of those until an epoch was opened. */
  isUnsettled(followedEpoch: string): boolean {
    if (this.restoredAtMs === undefined) return false;
    return this.epochOpenedAtMs <= this.restoredAtMs || followedEpoch !== this.epoch;
  }

  /**
   * An epoch that the database has lost, of those that an instance has followed, when no other one was opened since and the
   * leases of before the restore are over: such an instance has noticed, and serves nobody.
   */
  unnoticedAmong(followed: ReadonlySet<string>): string | undefined {
    if (this.#nowMs() <= this.#restoredLeasesEndMs) return undefined;
    for (const { epoch, lostAtMs } of this.#epochs) {
      if (lostAtMs === undefined || !followed.has(epoch)) continue;
      const isOver = this.#epochs.some(
        (later) => later.openedAtMs > lostAtMs && later.lostAtMs === undefined,
      );
      if (!isOver) return epoch;
    }
    return undefined;
  }

  /** Everything that takes the token back, lost or not. */
  *revocationsOf(token: TokenTruth): Generator<RevocationTruth> {
    yield* token.revocations;
    if (token.session !== undefined) yield* token.session.revocations;
    for (const link of token.links) yield* link.revocations;
    for (const parent of token.parents) {
      for (const revocation of parent.revocations) if (revocation.kind === 'TOKEN') yield revocation;
    }
  }

  /** Since when nobody may admit the token; infinity when somebody still may. And how late it is now. */
  lateness(token: TokenTruth): {
    readonly sinceConfirmedMs: number;
    readonly overdueMs: number;
    readonly by: string;
  } {
    const nowMs = this.#nowMs();
    let worst = { sinceConfirmedMs: Number.NEGATIVE_INFINITY, overdueMs: Number.NEGATIVE_INFINITY, by: '' };
    for (const revocation of this.revocationsOf(token)) {
      if (!counts(revocation, token)) continue;
      const { confirmedAtMs = nowMs, boundMs, olderLeasesEndMs, label } = revocation;
      const dueMs = Math.max(confirmedAtMs + boundMs, olderLeasesEndMs);
      const overdueMs = nowMs - dueMs;
      if (overdueMs > worst.overdueMs)
        worst = { sinceConfirmedMs: nowMs - confirmedAtMs, overdueMs, by: label };
    }
    return worst;
  }

  #note(
    kind: RevocationTruth['kind'],
    { label, leaseMs, olderLeasesEndMs }: { label: string; leaseMs: number; olderLeasesEndMs: number },
  ): RevocationTruth {
    const revocation: RevocationTruth = {
      label,
      kind,
      durableAtMs: this.#nowMs(),
      boundMs: enforcementBoundMs(leaseMs),
      olderLeasesEndMs: Math.max(olderLeasesEndMs, this.#restoredLeasesEndMs),
      confirmedAtMs: undefined,
      lostAtMs: undefined,
    };
    this.#revocations.set(label, revocation);
    this.#all.push(revocation);
    return revocation;
  }

  *#links(): Generator<ClientLink> {
    const seen = new Set<ClientLink>();
    for (const { link } of this.#sessions.values()) seen.add(link);
    for (const token of this.#tokens.values()) for (const link of token.links) seen.add(link);
    yield* seen;
  }
}

/**
 * Whether the promise speaks of this revocation and this token: it was confirmed, the database has not lost it, nor
 * what it would have had to know of the token. A token is named by its own id, and an epoch takes all.
 */
function counts(revocation: RevocationTruth, token: TokenTruth): boolean {
  if (revocation.confirmedAtMs === undefined || revocation.lostAtMs !== undefined) return false;
  if (token.lostAtMs === undefined || revocation.kind === 'TOKEN' || revocation.kind === 'EPOCH') return true;
  return revocation.durableAtMs < token.lostAtMs;
}

function uuidText(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
