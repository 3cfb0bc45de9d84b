/** What the library asks of an issuer by gRPC: tokens for a service, and tokens to act for a user. */

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

// The issuer's service is no package of this library: its messages are, and its paths stand here.
const ISSUE_SERVICE_TOKEN = '/auth.v1.AuthService/IssueServiceToken';
const EXCHANGE_TOKEN = '/auth.v1.AuthService/ExchangeToken';

/** How long the issuer may take to answer, in milliseconds. */
export const ISSUER_TIMEOUT_MS = 5000;

/**
 * Options of a channel that must come back quickly after its peer was away: grpc-js waits for up to
 * two minutes otherwise, and does not notice a connection that was cut without a word.
 */
export const CHANNEL_OPTIONS = {
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.min_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.keepalive_time_ms': 2000,
  'grpc.keepalive_timeout_ms': 1000,
  // Channels to one address are shared otherwise, and so would be their fate.
  'grpc.use_local_subchannel_pool': 1,
} as const;

/**
 * Options of a channel on which access tokens will travel.
 *
 * @throws TypeError when it is not private, see {@link requirePrivateChannel}
 */
export function channelOptionsFor(channel: Channel): ChannelOptions {
  requirePrivateChannel(channel);
  // A proxy that the environment names would take even what is addressed to this machine to another one.
  return isSecure(channel.credentials)
    ? CHANNEL_OPTIONS
    : { ...CHANNEL_OPTIONS, 'grpc.enable_http_proxy': 0 };
}

/** A connection to an issuer. */
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
   * Makes the next call over a new connection; calls under way end over the one that they are on. The issuer binds
   * tokens to the certificate that the connection was made with, which may have been renewed since.
   */
  reconnect(): void {
    if (!isSecure(this.#channel.credentials)) return;
    const former = this.#client;
    this.#client = connect(this.#channel);
    former.close();
  }

  /** Gets a token for the client that the assertion names. */
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

  /** Trades a user's token for a narrower one, as the caller that `options` authenticates. */
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
        { deadline: this.#clock.wallMs() + ISSUER_TIMEOUT_MS, ...options },
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
