/** Who asks for a change, and from where: what every event and revocation of an operator has. */

import { networkOfPeer } from '@portcullis/guard/networks';

/** The caller of an operator's method, as events and revocations name it. */
export interface Admin {
  /** The subject of the caller's token. */
  readonly actor: string;
  /** The network of the caller: an IPv4 address, or the /64 of an IPv6 one. */
  readonly network: string;
}

/** The caller of a guarded call. */
export function adminOf(principal: { readonly subject: string }, call: { getPeer(): string }): Admin {
  return { actor: principal.subject, network: networkOfPeer(call.getPeer()) };
}
