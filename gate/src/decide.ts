/** Decisions on requests that another proxy asks about: once, when they begin. */

import { createHash, X509Certificate } from 'node:crypto';
import type { Principal } from '@portcullis/guard';
import type { Decision, Engine, EngineCaller, ReadyStatus } from '@portcullis/guard/engine';
import { LRUCache } from 'lru-cache';

/** A request as a proxy describes it. */
export interface AskedRequest {
  /** The path of the method, exactly. */
  readonly path: string;
  /** Every value of `authorization`. */
  readonly authorizations: readonly string[];
  /** IP address of the caller; empty when the proxy names none. */
  readonly address: string;
  readonly port: number;
  /** Whether the caller's connection to the proxy is encrypted, or stays on this machine. */
  readonly isPrivate: boolean;
  /** The caller's verified certificate, PEM in URL encoding; undefined when it has none. */
  readonly certificate: string | undefined;
}

/** The answer to a proxy. */
export type Answer =
  | { readonly isAdmitted: true; readonly principal: Principal | undefined }
  | { readonly isAdmitted: false; readonly status: ReadyStatus };

/** Decides requests for other proxies. */
export interface Asked {
  decide(request: AskedRequest): Answer | Promise<Answer>;
}

/** Thumbprints of certificates that are kept: callers have few, and decoding one takes longer than a decision. */
const THUMBPRINTS_MAX = 1_000;

/** Maximum length of a certificate in URL encoding, in characters. */
const CERTIFICATE_LENGTH_MAX = 64 * 1024;

/** A certificate that cannot be read is one that no token is bound to. */
const UNREADABLE = '';

/** Decides with an engine. Calls are not followed after their admission: the proxy does not ask again. */
export function createAsked(engine: Pick<Engine, 'admit'>): Asked {
  const thumbprints = new LRUCache<string, string>({ max: THUMBPRINTS_MAX });
  const thumbprintOf = (certificate: string | undefined): string | undefined => {
    if (certificate === undefined || certificate === '') return undefined;
    let thumbprint = thumbprints.get(certificate);
    if (thumbprint === undefined) {
      thumbprint = computeThumbprint(certificate);
      thumbprints.set(certificate, thumbprint);
    }
    return thumbprint;
  };
  return {
    decide(request) {
      const caller: EngineCaller = {
        peer: `${request.address}:${request.port}`,
        address: request.address,
        isPrivate: request.isPrivate,
        certificateThumbprint: thumbprintOf(request.certificate),
        retireConnection: () => {},
      };
      const decision = engine.admit(request.path, request.authorizations, caller);
      return decision instanceof Promise ? decision.then(answerOf) : answerOf(decision);
    },
  };
}

function answerOf(decision: Decision): Answer {
  if (decision.kind === 'refused') return { isAdmitted: false, status: decision.status };
  const { principal } = decision.call;
  // Its end will not be known here.
  decision.call.unlink();
  return { isAdmitted: true, principal };
}

function computeThumbprint(certificate: string): string {
  if (certificate.length > CERTIFICATE_LENGTH_MAX) return UNREADABLE;
  try {
    const { raw } = new X509Certificate(decodeURIComponent(certificate));
    return createHash('sha256').update(raw).digest('base64url');
  } catch {
    return UNREADABLE;
  }
}

/** Whether an IP address is of this machine alone. */
export function isLoopbackAddress(address: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '');
  return plain === '' || plain === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(plain);
}
