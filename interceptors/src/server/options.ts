/** The options of a guard, and of an engine. */

import type { ChannelCredentials } from '@grpc/grpc-js';
import type { ClientKey } from '../client/client-key.js';
import type { Clock } from '../clock.js';
import type { GuardErrorCode } from '../errors.js';
import type { GuardLog } from '../log.js';
import type { SendReport } from '../reports/report-sender.js';
import type { BrokerFiles } from '../revocation/broker.js';
import type { RevocationSource } from '../revocation/feed-runner.js';
import type { FenceDatabase } from '../revocation/fences.js';
import type { TrustedIssuer } from '../token/trusted-issuers.js';
import type { Plaintext } from '../wire/connection.js';
import type { GuardLimits, LimitName } from './guard-limits.js';

/** Options of `createEngine`. */
export interface EngineOptions {
  /** The issuer (`iss`) whose tokens are accepted, and whose revocation log is followed. */
  readonly issuer: string;
  /** The audience (`aud`) of this service. */
  readonly audience: string;
  /** The issuer's gRPC address and this service's client there; or, in the issuer's own process, the log itself. */
  readonly auth:
    | {
        /** The issuer's address, as a grpc-js target. */
        readonly address: string;
        /** TLS credentials that verify the issuer. Plaintext is accepted where `plaintext` allows it. */
        readonly credentials: ChannelCredentials;
        /** The client identifier of this service at the issuer. */
        readonly clientId: string;
        /** The client's private key: PKCS #8 PEM, or a KeyObject. */
        readonly clientKey: ClientKey;
        /** Where this connection may be plaintext; default: as for callers. */
        readonly plaintext?: Plaintext;
      }
    | {
        readonly source: RevocationSource;
        /** Receives the security reports of this process, which other processes send over the broker. Default: none. */
        readonly report?: SendReport | undefined;
      };
  /**
   * Other issuers whose tokens are accepted, each with its own keys. Their tokens can be revoked through the same log.
   * An unreachable issuer affects only calls with its own tokens.
   */
  readonly trustedIssuers?: readonly TrustedIssuer[] | undefined;
  /**
   * The NATS server: `nats://` or `tls://`, optionally with user and password, and the files of a TLS connection.
   * Without it, revocations arrive with the next sync.
   */
  readonly nats?: { readonly url: string; readonly files?: BrokerFiles | undefined } | undefined;
  /**
   * Where access tokens may travel in plaintext, to this server and from it to the issuer. A call that sends a token over
   * any other plaintext connection fails with TLS_REQUIRED. Default: `loopback`.
   */
  readonly plaintext?: Plaintext | undefined;
  /**
   * Maximum number of entries in the revocation list. Entries are never evicted: when the list is full, calls fail with
   * REVOCATION_STATE_STALE. Default: 20 million.
   */
  readonly listEntriesMax?: number | undefined;
  /** What a peer can make this process hold. Those that are missing have safe defaults. */
  readonly limits?: Partial<GuardLimits> | undefined;
  /** Full paths of methods without a rule that need no token, such as those of the health service. */
  readonly publicMethods?: Iterable<string>;
  /** Default: the clocks of this machine. */
  readonly clock?: Clock;
  /** Where refusals, faults and changes of state are logged. `silent`: nowhere. Default: lines on standard error. */
  readonly log?: GuardLog | 'silent' | undefined;
  /**
   * `observe` refuses nothing because of tokens and rules: it logs and counts what `enforce` would refuse or cut. It is
   * for services that begin to use the guard, and protects nothing. A fence of a database that this instance lags behind
   * still stops transactions. Default: `enforce`.
   */
  readonly mode?: 'enforce' | 'observe' | undefined;
  readonly observer?: GuardObserver;
}

/** Options of `createGuard`. */
export interface GuardOptions extends EngineOptions {
  /**
   * The databases of this service that have a fence. The guard keeps them where the issuer wants them; transactions pass
   * them with `passFence`.
   */
  readonly fences?: readonly FenceDatabase[] | undefined;
  /** Makes `currentCall()` work in handlers, for frameworks that do not hand them the call. Default: false. */
  readonly callContext?: boolean | undefined;
}

/** Upper bounds of the buckets in which histograms count what `GuardObserver.verified` reports, in seconds. */
export const VERIFY_SECONDS_BUCKETS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2,
];

/** Observes a guard, for metrics. Its methods must not throw. */
export interface GuardObserver {
  /** A call was admitted, or refused or cut for a reason. */
  decided?(path: string, outcome: 'ADMITTED' | GuardErrorCode): void;
  /** In mode `observe`: a call was let through that `enforce` would refuse or cut for this reason. */
  observed?(path: string, reason: GuardErrorCode): void;
  /** A token was rejected. The fault names the cause, which the caller does not receive. */
  tokenInvalid?(fault: string): void;
  /** A transaction of an admitted call was stopped at a fence. */
  fenceRefused?(reason: GuardErrorCode): void;
  /** A limit has refused or ended a call or a connection. */
  limited?(limit: LimitName): void;
  /** A message on the broker was not signed by the issuer. */
  broadcastForged?(): void;
  /** The signature of a new token was verified in `ms` milliseconds, including the wait for a thread. */
  verified?(ms: number): void;
}
