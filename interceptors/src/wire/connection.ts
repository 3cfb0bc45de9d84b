/** The connections on which tokens travel: private ones alone unless somebody says otherwise, and whose they are. */

import type { ChannelCredentials, ServerInterceptingCallInterface } from '@grpc/grpc-js';

/** Where tokens may travel without TLS: on loopback alone, or wherever the operator is sure of the network. */
export type Plaintext = 'loopback' | 'allow';

/** A channel that is to be opened. */
export interface Channel {
  /** A grpc-js target. */
  readonly address: string;
  readonly credentials: ChannelCredentials;
  readonly plaintext?: Plaintext | undefined;
}

/**
 * Demands that a channel on which tokens will travel is private. Whoever listens on the way could use them, and
 * whoever answers in the place of the issuer could hand out keys of its own.
 *
 * @throws TypeError when the channel is plaintext, leaves the machine, and `plaintext` does not allow it
 */
export function demandPrivateChannel(channel: Channel): void {
  const { address, credentials, plaintext = 'loopback' } = channel;
  if (plaintext === 'allow' || credentials._isSecure() || staysHere(address)) return;
  throw new TypeError(
    `no access token is sent to ${address} in plaintext: give TLS credentials, or plaintext: 'allow' for a network that nobody else can read`,
  );
}

/** Whether what is fetched from a URL comes from whom it names: over TLS, from this machine, or as it is allowed. */
export function isPrivateUrl(url: string, plaintext: Plaintext = 'loopback'): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, hostname } = new URL(url);
  if (protocol === 'https:') return true;
  const host = hostname.replace(/^\[|\]$/g, '');
  return protocol === 'http:' && (plaintext === 'allow' || isLoopbackHost(host));
}

/**
 * Whether nobody outside this machine can read the connection under a call. grpc-js offers no way to ask whether it is
 * encrypted (`getAuthContext` is empty unless the peer showed a certificate), hence the look behind its private names,
 * which a test pins. Should they ever change, the connection counts as plaintext.
 */
export function isPrivateConnection(call: ServerInterceptingCallInterface): boolean {
  return isPrivateSession(sessionOf(call));
}

/** The HTTP/2 session, as far as it matters here. */
interface Session {
  readonly encrypted?: boolean;
  readonly socket?: { readonly remoteAddress?: string };
  goaway?(code: number, lastStreamId: number): void;
  close?(): void;
  [ADDRESS]?: string;
}

/** HTTP/2 error code NO_ERROR (RFC 9113 §7), and the highest number of a stream: none is turned away. */
const HTTP2_NO_ERROR = 0;
const HTTP2_STREAM_ID_MAX = 2 ** 31 - 1;

const thumbprints = new WeakMap<Session, string>();

/**
 * The certificate that the peer has shown and the listener has verified, by the SHA-256 of its DER in base64url (RFC
 * 8705 §3.1); undefined when there is none. Taking a certificate out of a connection costs more than the rest of a
 * call, and no connection changes its own, so it is remembered.
 */
export function certificateThumbprintUnder(call: ServerInterceptingCallInterface): string | undefined {
  const session = sessionOf(call);
  const known = session && thumbprints.get(session);
  if (known !== undefined) return known;
  const fingerprint = call.getAuthContext().sslPeerCertificate?.fingerprint256;
  if (fingerprint === undefined) return undefined;
  const thumbprint = Buffer.from(fingerprint.replaceAll(':', ''), 'hex').toString('base64url');
  if (session !== undefined) thumbprints.set(session, thumbprint);
  return thumbprint;
}

/** Asks the peer to make a new connection: calls under way end as they would have, new ones go elsewhere. */
export function retireConnection(call: ServerInterceptingCallInterface): void {
  const session = sessionOf(call);
  session?.goaway?.(HTTP2_NO_ERROR, HTTP2_STREAM_ID_MAX);
  session?.close?.();
}

// Kept on the session itself: to be read with every call, from a map it would cost more than all of the rest.
const ADDRESS = Symbol('address');

/**
 * The IP address that a call comes from; empty when it cannot be told. The same text for the same connection.
 *
 * @param onNew - told of each connection once, whether it has no TLS, and if so whether it comes from elsewhere
 */
export function addressOf(
  call: ServerInterceptingCallInterface,
  onNew: (plaintext: 'none' | 'local' | 'remote') => void,
): string {
  const session = sessionOf(call);
  if (session === undefined) return '';
  const known = session[ADDRESS];
  if (known !== undefined) return known;
  const address = session.socket?.remoteAddress ?? '';
  session[ADDRESS] = address.replace(/^::ffff:(?=\d+\.)/, '');
  onNew(session.encrypted === true ? 'none' : isLoopbackHost(address) ? 'local' : 'remote');
  return session[ADDRESS];
}

const verdicts = new WeakMap<Session, boolean>();

function isPrivateSession(session: Session | undefined): boolean {
  if (session === undefined) return false;
  const known = verdicts.get(session);
  if (known !== undefined) return known;
  const verdict = session.encrypted === true || isLoopbackHost(session.socket?.remoteAddress ?? '');
  verdicts.set(session, verdict);
  return verdict;
}

function sessionOf(call: ServerInterceptingCallInterface): Session | undefined {
  let layer: unknown = call;
  for (let depth = 0; depth < 16 && typeof layer === 'object' && layer !== null; depth += 1) {
    const { stream, nextCall } = layer as { stream?: { session?: Session }; nextCall?: unknown };
    if (stream !== undefined) return stream.session;
    layer = nextCall;
  }
  return undefined;
}

/** Whether every address that a target names is on this machine. */
function staysHere(target: string): boolean {
  if (/^unix(-abstract)?:/.test(target)) return true;
  const addresses = target.replace(/^(dns|ipv4|ipv6):(\/\/[^/]*\/)?/, '').split(',');
  return addresses.every((address) => isLoopbackHost(hostIn(address.trim())));
}

function hostIn(address: string): string {
  const [, bracketed, plain] = /^(?:\[([^\]]+)\]|([^:]+))(?::\d+)?$/.exec(address) ?? [];
  return bracketed ?? plain ?? address;
}

function isLoopbackHost(host: string): boolean {
  const name = host.toLowerCase().replace(/^::ffff:/, '');
  return name === 'localhost' || name === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name);
}
