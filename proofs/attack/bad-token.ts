/** The entries of the catalogue of bad tokens, and the material that they are made from. */

import type { KeyObject } from 'node:crypto';
import type { Forge } from './forge.js';
import type { StolenKeys } from './stolen-keys.js';

export interface BadToken {
  readonly className: string;
  /** What is wrong with the token. */
  readonly what: string;
  /** The token; a function when it depends on the audience of the service that receives it. */
  readonly token: string | ((audience: string) => string);
}

export interface TokenMaterial {
  readonly forge: Forge;
  readonly keys: StolenKeys;
  /** A valid token. */
  readonly good: string;
  /** A valid token of another user. */
  readonly other: string;
  /** The refresh token of the same login. */
  readonly refreshToken: string;
  /** The private key with which a service authenticates at the issuer. */
  readonly clientKey: KeyObject;
  /** The address of a server that no process may connect to. */
  readonly listenerUrl: string;
  /** The issuer's published key set, as text. */
  readonly keySetText: string;
  readonly nowSeconds: number;
}

export function entry(className: string, what: string, token: BadToken['token']): BadToken {
  return { className, what, token };
}
