/** Revocations by the kit's issuer. */

import { EntryKind } from '../../gen/portcullis/revocation/v1/revocation.js';
import { payloadOf } from '../token/compact.js';
import { parseJsonObject } from '../token/strict-json.js';
import type { Accounts } from './accounts.js';
import type { IssuerLog } from './issuer-log.js';
import type { Persona } from './personas.js';

/** What is revoked: that of a persona, or one that is named. */
export type RevokeTarget =
  /** A token, by its text or its `jti`, and all that were exchanged for it. */
  | { readonly token: Persona | string }
  /** A session, by its `sid`, with all its tokens. */
  | { readonly session: Persona | string }
  /** All tokens of a user, by the identifier. Later logins are valid. */
  | { readonly user: Persona | string }
  /** All tokens that were issued through a client, by its id. Later ones are valid. */
  | { readonly client: Persona | string };

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** @throws TypeError when the target does not exist */
export function revokeIn(log: IssuerLog, accounts: Accounts, target: RevokeTarget): void {
  if ('token' in target) {
    log.append(EntryKind.ENTRY_KIND_TOKEN, bytesOf('token', tokenIdOf(target.token)));
  } else if ('session' in target) {
    log.append(EntryKind.ENTRY_KIND_SESSION, bytesOf('session', sessionIdOf(target.session)));
  } else if ('user' in target) {
    const id = userIdOf(target.user);
    const generation = required('user', id, accounts.raiseUser(id));
    log.append(EntryKind.ENTRY_KIND_USER, Buffer.from(id), generation);
  } else {
    const id = typeof target.client === 'string' ? target.client : target.client.clientId;
    const generation = required('client', id, accounts.raiseClient(id));
    log.append(EntryKind.ENTRY_KIND_CLIENT, Buffer.from(id), generation);
  }
}

function tokenIdOf(token: Persona | string): string {
  if (typeof token !== 'string') return token.tokenId;
  const payload = payloadOf(token);
  if (payload === undefined) return token;
  const tokenId = parseJsonObject(payload)?.['jti'];
  return typeof tokenId === 'string' ? tokenId : '';
}

function sessionIdOf(session: Persona | string): string {
  if (typeof session === 'string') return session;
  if (session.sessionId !== undefined) return session.sessionId;
  throw new TypeError(`service ${session.id} has no session: revoke its token or its client`);
}

function userIdOf(user: Persona | string): string {
  if (typeof user === 'string') return user;
  if (user.kind === 'USER') return user.id;
  throw new TypeError(`${user.id} is a service, not a user: revoke its token or its client`);
}

function required(what: string, id: string, generation: bigint | undefined): bigint {
  if (generation !== undefined) return generation;
  throw new TypeError(`no ${what} ${JSON.stringify(id)}: no persona of this kit is one`);
}

function bytesOf(what: string, uuid: string): Buffer {
  if (UUID.test(uuid)) return Buffer.from(uuid.replaceAll('-', ''), 'hex');
  // The text may be a token.
  throw new TypeError(`expected a persona or the UUID of a ${what}, got a text of ${uuid.length} characters`);
}
