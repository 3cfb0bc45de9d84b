/** The handlers of AuthService that issue, exchange and introspect access tokens. */

import {
  bearerOf,
  certificateThumbprintOf,
  invalidField,
  principalOf,
  type ServiceHandlers,
} from '@portcullis/guard';
import type { AuthServiceService, IntrospectResponse } from '../../../proto/gen/auth/v1/auth_service.js';
import { Caller } from '../../../proto/gen/portcullis/access/v1/access.js';
import type { IssueServiceTokenRequest } from '../../../proto/gen/portcullis/token/v1/token.js';
import type { ClientCredential } from './client-authentication.js';
import type { Exchange } from './exchange.js';
import type { Introspection } from './introspect.js';
import type { ServiceTokens } from './service-tokens.js';
import type { MintedToken } from './tokens.js';

/** The methods of AuthService that concern access tokens. */
export function createTokenHandlers({
  serviceTokens,
  exchange,
}: {
  readonly serviceTokens: ServiceTokens;
  readonly exchange: Exchange;
}): Pick<ServiceHandlers<AuthServiceService>, 'issueServiceToken' | 'exchangeToken' | 'introspect'> {
  return {
    issueServiceToken: async (request, call) => {
      const { clientId, audiences, scopes } = request;
      const minted = await serviceTokens.issue({
        clientId,
        credential: credentialOf(request),
        audiences,
        scopes,
        peer: call.getPeer(),
        certificateThumbprint: certificateThumbprintOf(call),
      });
      return mintedMessageOf(minted);
    },
    exchangeToken: async (request, call) => {
      if (request.subjectToken === '') throw invalidField('subject_token', 'must be set');
      const minted = await exchange.exchange({
        ...request,
        callerToken: bearerOf(call),
        callerId: principalOf(call).clientId,
        certificateThumbprint: certificateThumbprintOf(call),
      });
      return mintedMessageOf(minted);
    },
    introspect: async ({ token }, call) =>
      introspectionOf(await exchange.introspect(token, principalOf(call).clientId)),
  };
}

function mintedMessageOf({ token, expireTime, scopes, audiences }: MintedToken) {
  return { accessToken: token, expireTime, scopes: [...scopes], audiences: [...audiences] };
}

function credentialOf({ credential }: IssueServiceTokenRequest): ClientCredential | undefined {
  switch (credential?.$case) {
    case 'clientAssertion':
      return { kind: 'assertion', assertion: credential.value };
    case 'clientSecret':
      return { kind: 'secret', secret: credential.value };
    case undefined:
      return undefined;
  }
}

function introspectionOf(token: Introspection | undefined): IntrospectResponse {
  return {
    active: token !== undefined,
    subject: token?.subject ?? '',
    clientId: token?.clientId ?? '',
    sessionId: token?.sessionId ?? '',
    scopes: [...(token?.scopes ?? [])],
    roles: [...(token?.roles ?? [])],
    audiences: [...(token?.audiences ?? [])],
    expireTime: timeOf(token?.expiresAtSeconds),
    tokenId: token?.tokenId ?? '',
    certificateThumbprint: token?.certificateThumbprint ?? '',
    issuer: token?.issuer ?? '',
    actors: [...(token?.actors ?? [])],
    issueTime: timeOf(token?.issuedAtSeconds),
    authTime: timeOf(token?.authTimeSeconds),
    caller: callerOf(token),
  };
}

function timeOf(seconds: number | undefined): Date | undefined {
  return seconds === undefined ? undefined : new Date(seconds * 1000);
}

function callerOf(token: Introspection | undefined): Caller {
  if (token === undefined) return Caller.CALLER_UNSPECIFIED;
  return token.kind === 'USER' ? Caller.CALLER_USER : Caller.CALLER_SERVICE;
}
