/** The connections on which access tokens travel: whether others can read them, and which peer is at their end. */

import type { ChannelCredentials, Interceptor, ServerInterceptingCallInterface } from '@grpc/grpc-js';
import { requireOwnCredentials } from './copies.js';
import { type Http2Session, isSecure, sessionUnder } from './grpc-js-internals.js';

/** Where access tokens may travel without TLS: on loopback only, or on every network. */
export type Plaintext = 'loopback' | 'allow';

/** A channel that is to be opened. */
export interface Channel {
  /** A grpc-js target. */
  readonly address: string;
  readonly credentials: ChannelCredentials;
  /** Default: `loopback`. */
  readonly plaintext?: Plaintext | undefined;
  /** Interceptors of the calls on this channel, such as that of a trace. Default: none. */
  readonly interceptors?: readonly Interceptor[] | undefined;
}

/**
 * Rejects a channel that others on the network could read or answer. Access tokens will travel on it: a reader could use
 * them, and an impostor of the issuer could hand out keys of its own.
 *
 * @throws TypeError when the channel is plaintext, leaves this machine, and `plaintext` does not allow it; when the
 *   credentials cannot be used
 */
export function requirePrivateChannel(channel: Channel): void {
  requireOwnCredentials(channel.credentials);
  const { address, credentials, plaintext = 'loopback' } = channel;
  if (plaintext === 'allow' || isSecure(credentials) || isLoopbackTarget(address)) return;
  throw new TypeError(
    `refusing to send an access token to ${address} in plaintext: use TLS credentials, or set plaintext: 'allow' if attackers cannot read the network`,
  );
}

/** Whether the response from a URL cannot be forged on the network: HTTPS, or HTTP where plaintext is allowed. */
export function isPrivateUrl(url: string, plaintext: Plaintext = 'loopback'): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, hostname } = new URL(url);
  if (protocol === 'https:') return true;
  const host = hostname.replace(/^\[|\]$/g, '');
  return protocol === 'http:' && (plaintext === 'allow' || isLoopbackHost(host));
}

const privacy = new WeakMap<Http2Session, boolean>();

/**
 * Whether the connection under a call is encrypted, or stays on this machine. A connection that cannot be inspected
 * counts as plaintext.
 */
export function isPrivateConnection(call: ServerInterceptingCallInterface): boolean {
  const session = sessionUnder(call);
  if (session === undefined) return false;
  const known = privacy.get(session);
  if (known !== undefined) return known;
  const isPrivate = session.encrypted === true || isLoopbackHost(session.socket?.remoteAddress ?? '');
  privacy.set(session, isPrivate);
  return isPrivate;
}

/** HTTP/2 error code NO_ERROR (RFC 9113 §7), and the highest stream identifier: no stream is refused. */
const HTTP2_NO_ERROR = 0;
const HTTP2_STREAM_ID_MAX = 2 ** 31 - 1;

const thumbprints = new WeakMap<Http2Session, string>();

/**
 * The peer's verified TLS certificate, as the SHA-256 of its DER in base64url (RFC 8705 §3.1); undefined when the peer
 * showed none. Cached by connection: reading the certificate costs more than the rest of a call, and it never changes.
 */
export function certificateThumbprintUnder(call: ServerInterceptingCallInterface): string | undefined {
  const session = sessionUnder(call);
  const known = session && thumbprints.get(session);
  if (known !== undefined) return known;
  const fingerprint = call.getAuthContext().sslPeerCertificate?.fingerprint256;
  if (fingerprint === undefined) return undefined;
  const thumbprint = Buffer.from(fingerprint.replaceAll(':', ''), 'hex').toString('base64url');
  if (session !== undefined) thumbprints.set(session, thumbprint);
  return thumbprint;
}

/** Asks the peer to open a new connection (GOAWAY): calls in progress continue, new ones use the new connection. */
export function retireConnection(call: ServerInterceptingCallInterface): void {
  const session = sessionUnder(call);
  session?.goaway?.(HTTP2_NO_ERROR, HTTP2_STREAM_ID_MAX);
  session?.close?.();
}

// A property of the session: it is read on every call, and a WeakMap would cost more than the rest of the check.
const ADDRESS = Symbol('address');

interface AddressedSession extends Http2Session {
  [ADDRESS]?: string;
}

/** Whether a connection is plaintext, and if so whether its peer is on this machine. */
export type PlaintextUse = 'none' | 'local' | 'remote';

/**
 * The IP address of a call's peer; empty when it is unknown. The same string object for every call of a connection.
 *
 * @param onConnection - called once for each connection
 */
export function addressOf(
  call: ServerInterceptingCallInterface,
  onConnection: (plaintext: PlaintextUse) => void,
): string {
  const session: AddressedSession | undefined = sessionUnder(call);
  if (session === undefined) return '';
  const known = session[ADDRESS];
  if (known !== undefined) return known;
  const address = session.socket?.remoteAddress ?? '';
  session[ADDRESS] = address.replace(/^::ffff:(?=\d+\.)/, '');
  onConnection(session.encrypted === true ? 'none' : isLoopbackHost(address) ? 'local' : 'remote');
  return session[ADDRESS];
}

/** Whether every address of a grpc-js target is on this machine. */
function isLoopbackTarget(target: string): boolean {
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
