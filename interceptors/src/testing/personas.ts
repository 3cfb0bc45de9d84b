/** Personas: callers with real signed tokens, whose claims are those that the issuer signs (RFC 9068, RFC 8693). */

import { randomUUID } from 'node:crypto';
import {
  type CallCredentials,
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
} from '@grpc/grpc-js';
import { ACCESS_TOKEN_LIFETIME_MAX_SECONDS, ACTOR_CHAIN_LENGTH_MAX } from '../limits.js';
import type { Accounts, Lifetime, SignedToken, TokenPayload } from './accounts.js';

/** What a test may set of every persona. */
interface PersonaOptions {
  /** The scopes of the token (`scope`). They need not be known anywhere. Default: none. */
  readonly scopes?: readonly string[] | undefined;
  /** The services that accept the token (`aud`). Default: the audience of the kit. */
  readonly audiences?: readonly string[] | undefined;
  /** Lifetime of the token, in seconds; at most one hour. Default: 300. */
  readonly lifetimeSeconds?: number | undefined;
  /** The client certificate that the token is bound to (RFC 8705): the SHA-256 of its DER in base64url. Default: none. */
  readonly certificateThumbprint?: string | undefined;
}

/** What a test may set of a user. */
export interface UserOptions extends PersonaOptions {
  /** The user's identifier (`sub`). Default: a new UUID. */
  readonly id?: string | undefined;
  /** The user's roles (`roles`). Default: none. */
  readonly roles?: readonly string[] | undefined;
  /** The client that logged the user in (`client_id`). Default: `direct`. */
  readonly clientId?: string | undefined;
  /** How long ago the user logged in, in seconds (`auth_time`). Default: 0. */
  readonly loggedInSecondsAgo?: number | undefined;
  /** How the user authenticated (`amr`, RFC 8176). Default: `pwd`. */
  readonly amr?: readonly string[] | undefined;
}

/** What a test may set of a service. */
export type ServiceOptions = PersonaOptions;

/** What a test may set of a user through a service. */
export interface ThroughOptions extends Omit<PersonaOptions, 'scopes'> {
  /** The scopes that the service asks for. Default: all of the subject token. */
  readonly scopes?: readonly string[] | undefined;
  /**
   * The roles that are left. Default: those of the subject token, or none when `scopes` leaves some out, because a
   * token keeps a role only with all of the role's scopes.
   */
  readonly roles?: readonly string[] | undefined;
}

/** A caller of a guarded service, with a token that the kit's issuer has signed. */
export interface Persona {
  /** USER: a user, directly or through a service. SERVICE: a service that acts for itself. */
  readonly kind: 'USER' | 'SERVICE';
  /** The identifier that `principalOf(call).id` returns. */
  readonly id: string;
  /** The client that the token was issued to. */
  readonly clientId: string;
  /** The session of a user; undefined for a service. */
  readonly sessionId: string | undefined;
  /** The identifier of the current token (`jti`). */
  readonly tokenId: string;
  /** The client certificate that the token is bound to; undefined for a bearer token. */
  readonly certificateThumbprint: string | undefined;
  /** The current token. It is the same until {@link renew} is called, also after it has expired or was revoked. */
  readonly token: string;
  /** The claims of the current token, as they were signed. */
  readonly payload: TokenPayload;
  /** New metadata with the current token. */
  metadata(): Metadata;
  /** Attaches the current token to every call of a client. It retries nothing. */
  readonly interceptor: Interceptor;
  /** Attaches the current token to one call, as its option `credentials`; or to a channel with TLS, by `combineChannelCredentials`. */
  readonly callCredentials: CallCredentials;
  /**
   * Gets a new token from the issuer: as a user in the same session, or as a service again.
   *
   * @throws Error when the session, the user or a client of the user was revoked
   */
  renew(): string;
  /**
   * The same user through a service that exchanged the current token (RFC 8693).
   *
   * @param service - the acting service, or its client id
   * @throws TypeError when this is a service, or the scopes are more than those of the user's token
   */
  through(service: Persona | string, options?: ThroughOptions): Persona;
}

const DEFAULT_LIFETIME_SECONDS = 300;

/** The client of a user who logs in without one. */
const DIRECT_CLIENT = 'direct';

/** A user who has just logged in. */
export function createUser(accounts: Accounts, options: UserOptions = {}): Persona {
  const { id = randomUUID(), clientId = DIRECT_CLIENT, roles = [], amr = ['pwd'] } = options;
  const who = `user ${id}`;
  const { loggedInSecondsAgo = 0, audiences = [accounts.audience] } = options;
  const session = {
    sid: randomUUID(),
    gen: Number(accounts.user(id)),
    auth_time: accounts.nowSeconds - loggedInSecondsAgo,
    amr,
  };
  const clients = [[clientId, Number(accounts.client(clientId))]];
  const scope = scopeOf(who, options.scopes ?? []);
  const lifetime = lifetimeOf(who, options);
  return new SignedPersona(accounts, () =>
    accounts.sign(
      who,
      {
        sub: id,
        aud: audiences,
        client_id: clientId,
        scope,
        roles,
        clients,
        ...session,
        ...boundTo(options),
      },
      lifetime,
    ),
  );
}

/** A service that has authenticated as a client of the issuer. */
export function createService(accounts: Accounts, clientId: string, options: ServiceOptions = {}): Persona {
  const who = `service ${clientId}`;
  const { audiences = [accounts.audience] } = options;
  const scope = scopeOf(who, options.scopes ?? []);
  const lifetime = lifetimeOf(who, options);
  return new SignedPersona(accounts, () => {
    const clients = [[clientId, Number(accounts.client(clientId))]];
    return accounts.sign(
      who,
      { sub: clientId, aud: audiences, client_id: clientId, scope, roles: [], clients, ...boundTo(options) },
      lifetime,
    );
  });
}

/** A user through a service. Each token is exchanged for the current token of the subject. */
function createActing(
  accounts: Accounts,
  subject: SignedPersona,
  clientId: string,
  options: ThroughOptions,
): Persona {
  const who = `user ${subject.id} through ${clientId}`;
  lifetimeOf(who, options);
  return new SignedPersona(accounts, () => signActing(accounts, subject.signed, { who, clientId, options }));
}

/** Who acts for whom, and with what. */
interface Acting {
  /** For messages. */
  readonly who: string;
  /** The acting service. */
  readonly clientId: string;
  readonly options: ThroughOptions;
}

/**
 * Exchanges a token of a user for one with which a service acts for that user.
 *
 * @throws TypeError for more scopes than the user's token has, or too long a chain; Error when it has expired or was revoked
 */
export function signActing(
  accounts: Accounts,
  { payload, claims }: Pick<SignedToken, 'payload' | 'claims'>,
  { who, clientId, options }: Acting,
): SignedToken {
  if (claims.actors.length >= ACTOR_CHAIN_LENGTH_MAX) {
    throw new TypeError(`${who} cannot exist: at most ${ACTOR_CHAIN_LENGTH_MAX} services act for a user`);
  }
  if (claims.expiresAtSeconds <= accounts.nowSeconds) {
    throw new Error(`${who} cannot get a token: the token of the user has expired; call its renew() first`);
  }
  const scopes = narrowed(who, options.scopes, claims.scopes);
  const isNarrower = scopes.length < claims.scopes.size;
  const roles = options.roles ?? (isNarrower ? [] : [...claims.roles]);
  const granted = {
    ...inherited(payload),
    aud: options.audiences ?? [accounts.audience],
    client_id: clientId,
    scope: scopeOf(who, scopes),
    roles,
    clients: [
      ...claims.clients.map(([id, generation]) => [id, Number(generation)]),
      [clientId, Number(accounts.client(clientId))],
    ],
    act: { sub: clientId, ...(payload['act'] !== undefined && { act: payload['act'] }) },
    ancestors: [...claims.ancestors, claims.tokenId],
    ...boundTo(options),
  };
  const lifetime = lifetimeOf(who, options);
  return accounts.sign(who, granted, { ...lifetime, notAfterSeconds: claims.expiresAtSeconds });
}

/** The claims that an exchange leaves as they are: the user, and the session. */
function inherited({ sub, sid, gen, auth_time, amr }: TokenPayload): TokenPayload {
  return { sub, sid, gen, auth_time, amr };
}

class SignedPersona implements Persona {
  readonly #accounts: Accounts;
  readonly #sign: () => SignedToken;
  #signed: SignedToken;

  constructor(accounts: Accounts, sign: () => SignedToken) {
    this.#accounts = accounts;
    this.#sign = sign;
    this.#signed = sign();
  }

  get signed(): SignedToken {
    return this.#signed;
  }

  get kind(): 'USER' | 'SERVICE' {
    return this.#signed.claims.kind;
  }

  get id(): string {
    return this.#signed.claims.id;
  }

  get clientId(): string {
    return this.#signed.claims.clientId;
  }

  get sessionId(): string | undefined {
    return this.#signed.claims.sessionId;
  }

  get tokenId(): string {
    return this.#signed.claims.tokenId;
  }

  get certificateThumbprint(): string | undefined {
    return this.#signed.claims.certificateThumbprint;
  }

  get token(): string {
    return this.#signed.text;
  }

  get payload(): TokenPayload {
    return this.#signed.payload;
  }

  metadata(): Metadata {
    const metadata = new Metadata();
    authorize(metadata, this.token);
    return metadata;
  }

  readonly interceptor = attach(() => this.token);

  get callCredentials(): CallCredentials {
    return credentials.createFromMetadataGenerator((_parameters, callback) =>
      callback(null, this.metadata()),
    );
  }

  renew(): string {
    this.#signed = this.#sign();
    return this.token;
  }

  through(service: Persona | string, options: ThroughOptions = {}): Persona {
    if (this.kind === 'SERVICE') {
      throw new TypeError(`expected a user, got service ${this.id}: services act for users only`);
    }
    if (typeof service !== 'string' && service.kind !== 'SERVICE') {
      throw new TypeError(`expected a service that acts for user ${this.id}, got user ${service.id}`);
    }
    const clientId = typeof service === 'string' ? service : service.clientId;
    return createActing(this.#accounts, this, clientId, options);
  }
}

/** A client interceptor that attaches a token to every call, and retries nothing. */
export function attach(tokenNow: () => string): Interceptor {
  return (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start: (metadata, listener, next) => {
        // A copy: the caller may send the same metadata to another service.
        const authorized = metadata.clone();
        authorize(authorized, tokenNow());
        next(authorized, listener);
      },
    });
}

/** Sets the header of RFC 6750 §2.1. */
export function authorize(metadata: Metadata, token: string): void {
  metadata.set('authorization', `Bearer ${token}`);
}

function scopeOf(who: string, scopes: readonly string[]): string {
  const spaced = scopes.find((scope) => scope === '' || scope.includes(' '));
  if (spaced !== undefined) {
    throw new TypeError(`${who}: expected each scope as a text of its own, got ${JSON.stringify(spaced)}`);
  }
  return scopes.join(' ');
}

function narrowed(
  who: string,
  requested: readonly string[] | undefined,
  granted: ReadonlySet<string>,
): readonly string[] {
  const missing = requested?.find((scope) => !granted.has(scope));
  if (missing !== undefined) {
    throw new TypeError(`${who} cannot have scope ${missing}: the token of the user does not have it`);
  }
  return requested ?? [...granted];
}

function lifetimeOf(who: string, { lifetimeSeconds = DEFAULT_LIFETIME_SECONDS }: PersonaOptions): Lifetime {
  const isPossible = Number.isInteger(lifetimeSeconds) && lifetimeSeconds > 0;
  if (!isPossible || lifetimeSeconds > ACCESS_TOKEN_LIFETIME_MAX_SECONDS) {
    throw new TypeError(
      `${who}: expected lifetimeSeconds from 1 to ${ACCESS_TOKEN_LIFETIME_MAX_SECONDS}, got ${lifetimeSeconds}`,
    );
  }
  return { lifetimeSeconds };
}

function boundTo({ certificateThumbprint }: PersonaOptions): TokenPayload {
  return certificateThumbprint === undefined ? {} : { cnf: { 'x5t#S256': certificateThumbprint } };
}
