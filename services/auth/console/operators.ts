/**
 * Operators who have logged in to the console. Their tokens stay here: a browser has only the random id of its login, which
 * opens nothing anywhere else.
 */

import { createHash, createHmac, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { errorOf } from '@portcullis/guard/client';
import type { Clock } from '@portcullis/guard/clock';
import { networkOf } from '@portcullis/guard/networks';
import { AuthServiceService, type LoginResponse } from '../../../proto/gen/auth/v1/auth_service.js';
import type { Calls, Method } from './calls.js';

/** A login to the console ends after this long without a request, in milliseconds. */
const IDLE_MS_MAX = 30 * 60 * 1000;

/** A login to the console ends after this long, in milliseconds. */
const LOGIN_MS_MAX = 8 * 3600 * 1000;

/** A revocation needs a login that is at most this old, in milliseconds. */
export const FRESH_LOGIN_MS = 5 * 60 * 1000;

/** After a confirmation, requests with the former id still find the login for this long, in milliseconds. */
export const FORMER_ID_MS = 30_000;

/** Maximum number of logins at a time; beyond it, the oldest one ends. */
const LOGINS_MAX = 1_000;

/** How often logins that have expired are ended, in milliseconds. */
const SWEEP_MS = 60_000;

/** An access token is renewed this long before it expires, in milliseconds. */
const RENEW_BEFORE_MS = 10_000;

/** The name of the session in lists of sessions. */
const DEVICE_NAME = 'Portcullis console';

/** Everything that the console does; the token of an operator has no other scope. */
const SCOPES = {
  needed: ['auth.users.read', 'auth.security.read'],
  optional: ['auth.self', 'auth.revoke', 'auth.policy.read'],
} as const;

/** The login of the operator has ended: it has expired, or its session was revoked. */
export class LoginEndedError extends Error {}

/** The user may not use the console, for want of scopes. */
export class NotOperatorError extends Error {
  constructor() {
    super(`This user may not use the console: it needs the scopes ${SCOPES.needed.join(' and ')}.`);
  }
}

/** What the pages need of an operator. */
export interface Operator {
  readonly username: string;
  /** The session of the operator's tokens. */
  readonly sessionId: string;
  /** Goes into every form, so that other sites cannot make one. */
  readonly formToken: string;
  readonly canRevoke: boolean;
  readonly canReadPolicy: boolean;
  /** Whether the password was entered a short time ago. */
  isFresh(): boolean;
  /**
   * Calls a method with the operator's token.
   *
   * @throws CallError; LoginEndedError
   */
  call<Request, Response>(method: Method<Request, Response>, request: Request): Promise<Response>;
}

/** Name and password, from the browser at an address. */
interface Credentials {
  readonly username: string;
  readonly password: string;
  readonly peer: string;
}

/** The logins. */
export interface Operators {
  /**
   * Logs an operator in.
   *
   * @returns the id for the cookie
   * @throws CallError, for example with LOGIN_FAILED; NotOperatorError
   */
  logIn(credentials: Credentials): Promise<string>;
  /**
   * The operator of a cookie, calling from an address; undefined when the login has ended, or was made in another network.
   *
   * @param isActive - whether the request proves that the operator is there
   */
  find(id: string, peer: string, isActive: boolean): Operator | undefined;
  /**
   * Checks the operator's password again, and replaces the tokens and the id. The former id finds the login for a short time
   * more, because requests with it may be under way. A confirmation waits for another one of the same login. If that one
   * succeeds with the same password, both have its result; with another password, auth checks this one as well.
   *
   * @returns the next id for the cookie
   * @throws as {@link Operators.logIn}; LoginEndedError
   */
  confirm(id: string, credentials: Omit<Credentials, 'username'>): Promise<string>;
  /**
   * Ends the login and its session.
   *
   * @param nextId - the id of the login that replaces it in the same browser
   */
  logOut(id: string, peer: string, nextId?: string): Promise<void>;
  /** Whether the browser has received another id in its place. Removing the cookie would then remove the new one. */
  wasReplaced(id: string): boolean;
  /** Forgets every login; their sessions expire. */
  close(): void;
}

/** A login, without the token that finds it. */
interface Login {
  readonly username: string;
  readonly sessionId: string;
  /** Where the password was entered. The cookie opens nothing for other networks. */
  readonly network: string;
  readonly formToken: string;
  scopes: readonly string[];
  readonly startMs: number;
  /** When the password was checked. */
  readonly freshMs: number;
  useMs: number;
  accessToken: string;
  accessExpireMs: number;
  refreshToken: string;
  /** A renewal under way, which all calls share. */
  renewing: Promise<void> | undefined;
  /** The id of a renewal that has not succeeded yet. Auth gives the same tokens to a retry with the same id. */
  renewalId: string | undefined;
  /** The last confirmation. */
  confirming: Confirmation | undefined;
}

/** A check of the password, with the next id for the cookie. */
interface Confirmation {
  readonly passwordKey: string;
  readonly nextId: Promise<string>;
}

/** The login that has replaced another one. */
interface Successor {
  key: string;
  /** Until when the former id finds it. */
  readonly untilMs: number;
}

export function createOperators({
  calls,
  clock,
}: {
  readonly calls: Calls;
  readonly clock: Clock;
}): Operators {
  /** By the hash of the id, so that the time of a look-up reveals nothing about ids. */
  const logins = new Map<string, Login>();
  /** By the key of the login that was replaced. */
  const successors = new Map<string, Successor>();
  const sweep = setInterval(() => endExpired(), SWEEP_MS).unref();
  /** So that what is kept of a password while it is checked cannot be compared with anything else. */
  const passwordSecret = randomBytes(32);

  const endSession = async (
    { refreshToken: token }: Pick<Login, 'refreshToken'>,
    peer: string,
  ): Promise<void> => {
    await calls.call(AuthServiceService.revokeToken, { token }, { peer }).catch(() => undefined);
  };

  const isExpired = ({ startMs, useMs }: Login): boolean => {
    const nowMs = clock.monotonicMs();
    return nowMs - startMs > LOGIN_MS_MAX || nowMs - useMs > IDLE_MS_MAX;
  };

  const endExpired = (): void => {
    for (const [key, login] of logins) if (isExpired(login)) end(key, login);
    for (const [key, successor] of successors) if (!logins.has(successor.key)) successors.delete(key);
  };

  const end = (key: string, login: Login): void => {
    logins.delete(key);
    void endSession(login, OWN_PEER);
  };

  const requestLogin = async ({ username, password, peer }: Credentials): Promise<LoginResponse> => {
    const response = await calls.call(
      AuthServiceService.login,
      {
        username,
        password,
        audiences: ['auth'],
        scopes: [...SCOPES.needed, ...SCOPES.optional],
        deviceName: DEVICE_NAME,
      },
      { peer },
    );
    if (SCOPES.needed.every((scope) => response.scopes.includes(scope))) return response;
    await calls
      .call(AuthServiceService.revokeToken, { token: response.refreshToken }, { peer })
      .catch(() => undefined);
    throw new NotOperatorError();
  };

  /** The login under a key or of its successor, with its key. */
  const currentLogin = (key: string): readonly [string, Login] | undefined => {
    const current = currentKey(key);
    const login = logins.get(current);
    return login && [current, login];
  };

  const replace = (key: string, nextKey: string, untilMs: number): void => {
    logins.delete(key);
    for (const successor of successors.values()) if (successor.key === key) successor.key = nextKey;
    successors.set(key, { key: nextKey, untilMs });
  };

  /** The key itself, or that of the login which has replaced it a short time ago. */
  const currentKey = (key: string): string => {
    const successor = successors.get(key);
    return successor !== undefined && clock.monotonicMs() < successor.untilMs ? successor.key : key;
  };

  /** The login of a key, if the browser that asks is in the network of the login. */
  const loginFrom = (key: string, peer: string): Login | undefined => {
    const login = logins.get(key);
    return login?.network === networkOf(peer) ? login : undefined;
  };

  const remember = (
    { username, peer }: Omit<Credentials, 'password'>,
    response: LoginResponse,
    { startMs, formToken }: Pick<Login, 'startMs' | 'formToken'>,
  ): string => {
    const nowMs = clock.monotonicMs();
    const id = randomText();
    logins.set(keyOf(id), {
      username,
      sessionId: response.session?.sessionId ?? '',
      network: networkOf(peer),
      formToken,
      scopes: response.scopes,
      startMs,
      freshMs: nowMs,
      useMs: nowMs,
      accessToken: response.accessToken,
      accessExpireMs: response.accessTokenExpireTime?.getTime() ?? 0,
      refreshToken: response.refreshToken,
      renewing: undefined,
      renewalId: undefined,
      confirming: undefined,
    });
    const [oldest] = logins;
    if (logins.size > LOGINS_MAX && oldest !== undefined) end(...oldest);
    return id;
  };

  const renew = async (login: Login, peer: string): Promise<void> => {
    // A response may be lost. A retry under another id would look like the use of a stolen token.
    login.renewalId ??= randomUUID();
    const request = { refreshToken: login.refreshToken, requestId: login.renewalId };
    const renewed = await calls.call(AuthServiceService.refresh, request, { peer });
    login.accessToken = renewed.accessToken;
    login.accessExpireMs = renewed.accessTokenExpireTime?.getTime() ?? 0;
    login.refreshToken = renewed.refreshToken;
    login.renewalId = undefined;
    login.scopes = renewed.scopes;
  };

  const renewOnce = async (key: string, login: Login, peer: string): Promise<void> => {
    login.renewing ??= renew(login, peer).finally(() => {
      login.renewing = undefined;
    });
    await login.renewing.catch((error: unknown) => {
      if (errorOf(error).reason !== 'REFRESH_INVALID') throw error;
      if (logins.get(key) === login) logins.delete(key);
      throw new LoginEndedError('the session was revoked', { cause: error });
    });
  };

  const callAs = async <Request, Response>(
    [key, login]: readonly [string, Login],
    peer: string,
    [method, request]: readonly [Method<Request, Response>, Request],
  ): Promise<Response> => {
    if (login.accessExpireMs - clock.wallMs() < RENEW_BEFORE_MS) await renewOnce(key, login, peer);
    const token = login.accessToken;
    try {
      return await calls.call(method, request, { peer, token });
    } catch (error) {
      // A token may also end without its session: the user's roles have changed, or this clock is wrong.
      if (!ENDED_TOKEN.has(errorOf(error).reason)) throw error;
      // A confirmation has ended the session meanwhile; its successor calls in its place.
      if (logins.get(key) !== login) throw new LoginEndedError('the login has ended', { cause: error });
      if (login.accessToken === token) await renewOnce(key, login, peer);
      return await calls.call(method, request, { peer, token: login.accessToken });
    }
  };

  /** Checks the password of the login under a key. @returns the next id */
  const confirmOnce = async (
    key: string,
    login: Login,
    { password, peer }: Omit<Credentials, 'username'>,
  ): Promise<string> => {
    const credentials = { username: login.username, password, peer };
    const response = await requestLogin(credentials);
    if (logins.get(key) !== login) {
      await endSession(response, peer);
      throw new LoginEndedError('the login has ended');
    }
    const id = remember(credentials, response, login);
    replace(key, keyOf(id), clock.monotonicMs() + FORMER_ID_MS);
    await endSession(login, peer);
    return id;
  };

  const confirm: Operators['confirm'] = async (id, credentials) => {
    const passwordKey = createHmac('sha256', passwordSecret).update(credentials.password).digest('base64');
    for (;;) {
      const key = currentKey(keyOf(id));
      const login = loginFrom(key, credentials.peer);
      if (login === undefined) throw new LoginEndedError('the login has ended');
      const former = login.confirming;
      if (former === undefined) {
        const nextId = confirmOnce(key, login, credentials);
        const confirming = { passwordKey, nextId };
        login.confirming = confirming;
        // After a failure, the next form checks its password again.
        nextId.catch(() => {
          if (login.confirming === confirming) login.confirming = undefined;
        });
        return await nextId;
      }
      const nextId = await former.nextId.catch(() => undefined);
      if (nextId !== undefined && former.passwordKey === passwordKey) return nextId;
      // The other one has failed, or had another password: check this one.
    }
  };

  const operatorOf = (key: string, login: Login, peer: string): Operator => ({
    username: login.username,
    sessionId: login.sessionId,
    formToken: login.formToken,
    canRevoke: login.scopes.includes('auth.revoke'),
    canReadPolicy: login.scopes.includes('auth.policy.read'),
    isFresh: () => clock.monotonicMs() - login.freshMs <= FRESH_LOGIN_MS,
    call: async (method, request) => {
      const call = [method, request] as const;
      const caller = currentLogin(key);
      if (caller === undefined) throw new LoginEndedError('the login has ended');
      try {
        return await callAs(caller, peer, call);
      } catch (error) {
        const next = currentLogin(key);
        if (!(error instanceof LoginEndedError) || next === undefined || next[0] === caller[0]) throw error;
        return await callAs(next, peer, call);
      }
    },
  });

  return {
    logIn: async (credentials) => {
      const response = await requestLogin(credentials);
      return remember(credentials, response, { startMs: clock.monotonicMs(), formToken: randomText() });
    },
    find: (id, peer, isActive) => {
      const key = currentKey(keyOf(id));
      const login = loginFrom(key, peer);
      if (login === undefined) return undefined;
      if (isExpired(login)) {
        end(key, login);
        return undefined;
      }
      if (isActive) login.useMs = clock.monotonicMs();
      return operatorOf(key, login, peer);
    },
    confirm,
    logOut: async (id, peer, nextId) => {
      const key = currentKey(keyOf(id));
      const login = loginFrom(key, peer);
      if (login === undefined) return;
      if (nextId === undefined) logins.delete(key);
      else replace(key, keyOf(nextId), 0);
      await endSession(login, peer);
    },
    wasReplaced: (id) => successors.has(keyOf(id)),
    close: () => {
      clearInterval(sweep);
      logins.clear();
      successors.clear();
    },
  };
}

/** Whether a form has the token of its operator. */
export function hasFormToken({ formToken }: Pick<Operator, 'formToken'>, form: URLSearchParams): boolean {
  const [given = '', ...more] = form.getAll('form_token');
  const [expected, found] = [formToken, given].map((text) => createHash('sha256').update(text).digest());
  return (
    more.length === 0 && expected !== undefined && found !== undefined && timingSafeEqual(expected, found)
  );
}

/** Reasons that say that a token is good no more, though its session may be. */
const ENDED_TOKEN: ReadonlySet<string> = new Set(['TOKEN_EXPIRED', 'TOKEN_REVOKED']);

/** The peer of calls that no browser has asked for. */
const OWN_PEER = '127.0.0.1';

/** 256 random bits. */
function randomText(): string {
  return randomBytes(32).toString('base64url');
}

function keyOf(id: string): string {
  return createHash('sha256').update(id).digest('base64url');
}
