/** The gRPC client of the issuer: tokens for a service, and exchanged tokens. */

import {
  type CallOptions,
  type ChannelOptions,
  Client,
  type ServiceError as GrpcError,
  Metadata,
} from '@grpc/grpc-js';
import {
  ExchangeTokenRequest,
  ExchangeTokenResponse,
  IssueServiceTokenRequest,
  IssueServiceTokenResponse,
} from '../../gen/portcullis/token/v1/token.js';
import type { Clock } from '../clock.js';
import { type Channel, requirePrivateChannel } from '../wire/connection.js';
import { isSecure } from '../wire/grpc-js-internals.js';
import type { FetchedToken } from './token-source.js';

// The messages belong to this library; the service that uses them belongs to the issuer.
const ISSUE_SERVICE_TOKEN = '/auth.v1.AuthService/IssueServiceToken';
const EXCHANGE_TOKEN = '/auth.v1.AuthService/ExchangeToken';

/** Deadline of a call to the issuer, in milliseconds. */
const ISSUER_TIMEOUT_MS = 5000;

/** Calls go to all reachable addresses of the name in turn (https://github.com/grpc/grpc/blob/master/doc/service_config.md). */
const ROUND_ROBIN = JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] });

/**
 * Options of a channel that must reconnect quickly, also to another address. By default grpc-js waits up to two minutes
 * between attempts, asks DNS every 30 seconds at most, uses the first address that it reaches for good, and does not
 * detect a connection that was dropped without a packet.
 */
export const CHANNEL_OPTIONS = {
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.min_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.dns_min_time_between_resolutions_ms': 500,
  'grpc.service_config': ROUND_ROBIN,
  // Otherwise a TXT record of the name could change how calls are sent.
  'grpc.service_config_disable_resolution': 1,
  'grpc.keepalive_time_ms': 2000,
  'grpc.keepalive_timeout_ms': 1000,
  // By default all channels to an address share one connection, and its failures.
  'grpc.use_local_subchannel_pool': 1,
} as const;

/**
 * Options of a channel on which access tokens will travel.
 *
 * @throws TypeError as {@link requirePrivateChannel} does
 */
export function channelOptionsFor(channel: Channel): ChannelOptions {
  requirePrivateChannel(channel);
  // With `http_proxy` set, grpc-js would send even calls to loopback addresses to the proxy.
  return isSecure(channel.credentials)
    ? CHANNEL_OPTIONS
    : { ...CHANNEL_OPTIONS, 'grpc.enable_http_proxy': 0 };
}

/** A connection to the issuer. */
export class IssuerClient {
  readonly #channel: Channel;
  readonly #clock: Clock;
  #client: Client;

  constructor(channel: Channel, clock: Clock) {
    this.#channel = channel;
    this.#clock = clock;
    this.#client = connect(channel);
  }

  /**
   * Uses a new connection from the next call on; calls in progress end on the old one. The issuer binds tokens to the
   * client certificate of the connection, which may have been renewed since.
   */
  reconnect(): void {
    if (!isSecure(this.#channel.credentials)) return;
    const former = this.#client;
    this.#client = connect(this.#channel);
    former.close();
  }

  /** Requests a token for the client that the assertion names (RFC 7523). */
  async issueServiceToken(request: IssueServiceTokenRequest): Promise<FetchedToken> {
    const response = await this.#call(
      ISSUE_SERVICE_TOKEN,
      (message: IssueServiceTokenRequest) => Buffer.from(IssueServiceTokenRequest.encode(message).finish()),
      (bytes) => IssueServiceTokenResponse.decode(bytes),
      request,
      {},
    );
    return { token: response.accessToken, expireTimeMs: response.expireTime?.getTime() ?? 0 };
  }

  /** Exchanges a token for a narrower one (RFC 8693), as the client that `options` authenticates. */
  async exchangeToken(request: ExchangeTokenRequest, options: CallOptions): Promise<FetchedToken> {
    const response = await this.#call(
      EXCHANGE_TOKEN,
      (message: ExchangeTokenRequest) => Buffer.from(ExchangeTokenRequest.encode(message).finish()),
      (bytes) => ExchangeTokenResponse.decode(bytes),
      request,
      options,
    );
    return { token: response.accessToken, expireTimeMs: response.expireTime?.getTime() ?? 0 };
  }

  close(): void {
    this.#client.close();
  }

  #call<Request, Response>(
    path: string,
    encode: (message: Request) => Buffer,
    decode: (bytes: Buffer) => Response,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        encode,
        decode,
        request,
        new Metadata(),
        {
          deadline: this.#clock.wallMs() + ISSUER_TIMEOUT_MS,
          ...options,
          interceptors: [...(this.#channel.interceptors ?? []), ...(options.interceptors ?? [])],
        },
        (error: GrpcError | null, response?: Response) => {
          if (error !== null || response === undefined) reject(error ?? new Error('no response'));
          else resolve(response);
        },
      );
    });
  }
}

function connect(channel: Channel): Client {
  return new Client(channel.address, channel.credentials, channelOptionsFor(channel));
}
