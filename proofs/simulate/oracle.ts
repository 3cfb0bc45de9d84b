/**
 * The oracle: which tokens exist, which revocations hit them, from when on, and what the database has lost. It follows
 * the order of commits and does not use generations, sequences or lists, so that it can check the code that does.
 */

import type { Revocation } from '../../services/auth/records/revocations.js';
import { enforcementBoundMs } from '../../services/auth/revocation/log.js';

/** A committed revocation, or the opening of an epoch, which revokes everything. */
export interface RecordedRevocation {
  readonly label: string;
  readonly kind: Revocation['kind'] | 'EPOCH';
  readonly durableAtMs: number;
  /** Time from Revoke's return until no instance may admit what it hits. */
  boundMs: number;
  /** Leases of a greater length, from before it was lowered, end by this moment. */
  readonly olderLeasesEndMs: number;
  /** When Revoke returned OK; undefined before that. */
  confirmedAtMs: number | undefined;
  /** Revoke has returned FENCED. */
  isFenced: boolean;
  /** When the database lost it. */
  lostAtMs: number | undefined;
}

/** A login. */
export interface RecordedSession {
  readonly label: string;
  readonly sessionId: string;
  readonly userId: string;
  readonly openedAtMs: number;
  readonly revocations: RecordedRevocation[];
  lostAtMs: number | undefined;
}

/** A client in the chain of a token: revoking the client later revokes the token. */
interface ClientLink {
  readonly clientId: string;
  readonly revocations: RecordedRevocation[];
}

/** A token that was issued. */
export interface RecordedToken {
  readonly label: string;
  readonly text: string;
  readonly tokenId: string;
  readonly keyId: string;
  readonly audiences: readonly string[];
  readonly expiresAtSeconds: number;
  readonly session: RecordedSession | undefined;
  readonly parents: readonly RecordedToken[];
  readonly links: readonly ClientLink[];
  readonly revocations: RecordedRevocation[];
  readonly issuedAtMs: number;
  lostAtMs: number | undefined;
  /** The values of a call's `authorization` header, created on first use. */
  authorizations?: readonly string[];
}

/** The claims of a token that the oracle needs. */
export interface IssuedClaims {
  readonly jti: string;
  readonly sub: string;
  readonly sid?: string;
  readonly client_id: string;
  readonly aud: readonly string[];
  readonly exp: number;
  readonly ancestors?: readonly string[];
}

/** Follows the true state. All times are true time. */
export class Oracle {
  readonly #nowMs: () => number;
  readonly #tokens = new Map<string, RecordedToken>();
  readonly #byText = new Map<string, RecordedToken>();
  readonly #sessions = new Map<string, RecordedSession & { readonly link: ClientLink }>();
  readonly #revocations = new Map<string, RecordedRevocation>();
  readonly #byEntry = new Map<string, RecordedRevocation>();
  readonly #all: RecordedRevocation[] = [];
  #leaseMsMax = 0;
  #restoredLeasesEndMs = 0;
  readonly #epochs: { readonly epoch: string; readonly openedAtMs: number; lostAtMs: number | undefined }[] =
    [];
  /** When the database was last restored. */
  restoredAtMs: number | undefined;
  /** The current epoch, and when it was opened. */
  epoch = '';
  epochOpenedAtMs = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get tokens(): Iterable<RecordedToken> {
    return this.#tokens.values();
  }

  get revocations(): readonly RecordedRevocation[] {
    return this.#all;
  }

  byText(text: string): RecordedToken {
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
    // The exchanging client is in the chain from now on; the session's client was in it before.
    const own =
      parents.length > 0 || session === undefined ? [{ clientId: claims.client_id, revocations: [] }] : [];
    const token: RecordedToken = {
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

  /** The revocation of an entry; undefined when it was never committed. */
  byEntry(entryId: string): RecordedRevocation | undefined {
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
      /** The user's sessions stay open and get new tokens; the old tokens are revoked. */
      sessionsGoOn: boolean;
    },
  ): void {
    const revocation = this.#note(entry.kind, known);
    this.#byEntry.set(known.entryId, revocation);
    // Tokens of another issuer are never ours, whatever their identifiers.
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
      case 'CLAIM':
        // Always of another issuer.
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

  /** An entry was copied into a new epoch under another id. */
  carriedOver(formerId: string, entryId: string): void {
    const revocation = this.#byEntry.get(formerId);
    if (revocation !== undefined) this.#byEntry.set(entryId, revocation);
  }

  /** What an entry revokes, in text that is equal in every run of a seed. */
  describe({ kind, issuer, key }: Revocation): string {
    const id =
      issuer === '' && (kind === 'TOKEN' || kind === 'SESSION') ? uuidText(key) : key.toString('utf8');
    const name = this.#tokens.get(id)?.label ?? this.#sessions.get(id)?.label ?? id;
    return issuer === '' ? `${kind} ${name}` : `${kind} of another issuer`;
  }

  /** Revoke has returned OK; if it waited for the bound, no instance may admit the token from now on. */
  confirmed(label: string, isEverywhere = false): void {
    const revocation = this.#revocations.get(label);
    if (revocation === undefined) throw new Error(`${label} was confirmed but never committed`);
    revocation.confirmedAtMs = this.#nowMs();
    if (isEverywhere) revocation.boundMs = 0;
  }

  /** Revoke has returned FENCED. While the log may lack commits, nothing is promised. */
  fenced(label: string): void {
    const revocation = this.#revocations.get(label);
    if (revocation === undefined || this.isUnsettled(this.epoch)) return;
    revocation.isFenced = true;
  }

  /** A fenced revocation that hits the token; undefined when there is none. */
  fencedOf(token: RecordedToken): string | undefined {
    for (const revocation of this.revocationsOf(token)) {
      if (revocation.isFenced && counts(revocation, token)) return revocation.label;
    }
    return undefined;
  }

  /** Whether this revokes the token and the promise applies. */
  isHitBy(token: RecordedToken, label: string): boolean {
    for (const revocation of this.revocationsOf(token)) {
      if (revocation.label === label && counts(revocation, token)) return true;
    }
    return false;
  }

  /** The database was restored to an earlier moment; later commits are lost. */
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

  /** Whether the log may contain traces of lost commits: nothing is promised until an epoch is opened. */
  isUnsettled(followedEpoch: string): boolean {
    if (this.restoredAtMs === undefined) return false;
    return this.epochOpenedAtMs <= this.restoredAtMs || followedEpoch !== this.epoch;
  }

  /**
   * A lost epoch that an instance has followed, when no other epoch was opened since and the leases from before the
   * restore have ended: such an instance has noticed the loss and admits nothing.
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

  /** All revocations of the token, lost or not. */
  *revocationsOf(token: RecordedToken): Generator<RecordedRevocation> {
    yield* token.revocations;
    if (token.session !== undefined) yield* token.session.revocations;
    for (const link of token.links) yield* link.revocations;
    for (const parent of token.parents) {
      for (const revocation of parent.revocations) if (revocation.kind === 'TOKEN') yield revocation;
    }
  }

  /** The moment from which no instance may admit the token; infinity while it may be admitted. And how late it is now. */
  lateness(token: RecordedToken): {
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
    kind: RecordedRevocation['kind'],
    { label, leaseMs, olderLeasesEndMs }: { label: string; leaseMs: number; olderLeasesEndMs: number },
  ): RecordedRevocation {
    const revocation: RecordedRevocation = {
      label,
      kind,
      durableAtMs: this.#nowMs(),
      boundMs: enforcementBoundMs(leaseMs),
      olderLeasesEndMs: Math.max(olderLeasesEndMs, this.#restoredLeasesEndMs),
      confirmedAtMs: undefined,
      isFenced: false,
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
 * Whether the promise applies to this revocation and this token: it was confirmed, and the database has lost neither it
 * nor what it needed to know about the token. A token is identified by its own id, and an epoch revokes all.
 */
function counts(revocation: RecordedRevocation, token: RecordedToken): boolean {
  if (revocation.confirmedAtMs === undefined || revocation.lostAtMs !== undefined) return false;
  if (token.lostAtMs === undefined || revocation.kind === 'TOKEN' || revocation.kind === 'EPOCH') return true;
  return revocation.durableAtMs < token.lostAtMs;
}

function uuidText(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
