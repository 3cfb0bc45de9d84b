/** The form that ends sessions, with answers of auth that a test chooses. */

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { ClientServiceService, GetClientResponse } from '../../../../proto/gen/auth/v1/client_service.js';
import { KeyServiceService, ListKeysResponse } from '../../../../proto/gen/auth/v1/key_service.js';
import {
  GetUserResponse,
  ListUserSessionsResponse,
  UserServiceService,
} from '../../../../proto/gen/auth/v1/user_service.js';
import {
  ListRevocationsResponse,
  RevocationServiceService,
  RevokeRequest,
  RevokeResponse,
  RevokeSessionsRequest,
  RevokeSessionsResponse,
  RevokeWait,
} from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { createCalls } from '../../../../services/auth/console/calls.js';
import {
  type ConsoleRequest,
  type ConsoleResponse,
  createLoginCookies,
} from '../../../../services/auth/console/http.js';
import { createOperators } from '../../../../services/auth/console/operators.js';
import { revoke, revokePage } from '../../../../services/auth/console/revoke-page.js';
import { MovableClock } from '../../../support/clock.js';
import { answeringOperator } from './answering-operator.js';

const USER = '11111111-1111-4111-8111-111111111111';
const SESSIONS = ['a', 'b'].map((digit) => `${digit.repeat(8)}-1111-4111-8111-111111111111`);

/** Slower than a form waits. */
const SLOW_MS = 800;

describe('the form of a revocation', () => {
  let written = false;

  /** Auth, where the first session cannot be ended. Waiting for the instances takes long. */
  const answer = async (path: string, request: Buffer): Promise<Uint8Array> => {
    switch (path) {
      case UserServiceService.getUser.path:
        return GetUserResponse.encode(
          GetUserResponse.fromPartial({ user: { userId: USER, username: 'bob' } }),
        ).finish();
      case UserServiceService.listUserSessions.path: {
        const sessions = SESSIONS.map((sessionId) => ({ sessionId }));
        return ListUserSessionsResponse.encode(ListUserSessionsResponse.fromPartial({ sessions })).finish();
      }
      case RevocationServiceService.listRevocations.path: {
        const revocations = written ? [{ sequence: 7n }] : [];
        return ListRevocationsResponse.encode(ListRevocationsResponse.fromPartial({ revocations })).finish();
      }
      case RevocationServiceService.revoke.path: {
        written = true;
        if (RevokeRequest.decode(request).wait !== RevokeWait.REVOKE_WAIT_NONE) await sleep(SLOW_MS);
        const results = [{ errorReason: 'UNAVAILABLE', errorMessage: 'a lock' }, {}];
        return RevokeResponse.encode(RevokeResponse.fromPartial({ sequence: 7n, results })).finish();
      }
      default:
        throw new Error(`not expected: ${path}`);
    }
  };

  const operator = answeringOperator(answer);

  it('shows which of several sessions could not be ended, however slow the instances are', async () => {
    const calls = createCalls({ connect: () => Promise.reject(new Error('not expected')) });
    const operators = createOperators({ calls, clock: new MovableClock() });
    const form = new URLSearchParams({ user: 'bob', reason: 'a test' });
    for (const session of SESSIONS) form.append('session', session);
    try {
      const response: ConsoleResponse = await revoke(
        operator,
        {
          method: 'POST',
          path: '/revoke',
          query: new URLSearchParams(),
          form,
          loginId: 'x',
          peer: '127.0.0.1',
        },
        { operators, cookies: createLoginCookies('http://127.0.0.1:1') },
      );
      expect('page' in response ? response.page.text : '')
        .to.include('1 session could not be ended')
        .and.include(SESSIONS[0]);
    } finally {
      operators.close();
      calls.close();
    }
  });

  it('revokes a client or a key by the names that its preview had', async () => {
    const revoked: (RevokeRequest['target'] | undefined)[] = [];
    const answering = answeringOperator((path, request) => {
      switch (path) {
        case ClientServiceService.getClient.path:
          return GetClientResponse.encode(GetClientResponse.fromPartial({ client: {} })).finish();
        case RevocationServiceService.revokeSessions.path: {
          expect(RevokeSessionsRequest.decode(request).dryRun).to.equal(true);
          const sessions = [{ username: '<b>eve', sessionId: SESSIONS[0] ?? '' }];
          return RevokeSessionsResponse.encode(
            RevokeSessionsResponse.fromPartial({ sessionCount: 300n, sessions }),
          ).finish();
        }
        case KeyServiceService.listKeys.path: {
          const keys = [{ kid: 'key-1' }, { kid: 'key-12' }, { kid: 'other' }];
          return ListKeysResponse.encode(ListKeysResponse.fromPartial({ keys })).finish();
        }
        case RevocationServiceService.revoke.path:
          revoked.push(RevokeRequest.decode(request).target);
          return RevokeResponse.encode(RevokeResponse.fromPartial({ sequence: 9n })).finish();
        default:
          throw new Error(`not expected: ${path}`);
      }
    });
    const requestOf = (parameters: Readonly<Record<string, string>>): ConsoleRequest => ({
      method: 'POST',
      path: '/revoke',
      query: new URLSearchParams(parameters),
      form: new URLSearchParams(parameters),
      loginId: 'x',
      peer: '127.0.0.1',
    });
    const previewOf = async (parameters: Readonly<Record<string, string>>): Promise<string> => {
      const response = await revokePage(answering, requestOf(parameters));
      return 'page' in response ? response.page.text : '';
    };
    expect(await previewOf({ client: 'shop' }))
      .to.include('300 sessions are open now')
      .and.include('The first 1 of 300 sessions')
      .and.include('&lt;b&gt;eve')
      .and.include('<input type="hidden" name="client" value="shop">');
    expect(await previewOf({ key: 'key-1' })).to.include('<input type="hidden" name="key" value="key-1">');
    expect(await previewOf({ key: 'oth' })).to.include('<input type="hidden" name="key" value="other">');
    for (const key of ['key', '', 'nothing']) expect(await previewOf({ key })).to.include('There is no key');
    expect(revoked).to.deep.equal([]);
    const calls = createCalls({ connect: () => Promise.reject(new Error('not expected')) });
    const operators = createOperators({ calls, clock: new MovableClock() });
    const cookies = createLoginCookies('http://127.0.0.1:1');
    try {
      for (const target of [{ client: 'shop' }, { key: 'key-12' }]) {
        const form = requestOf({ ...target, reason: 'a test' });
        const response = await revoke(answering, form, { operators, cookies });
        expect(response).to.deep.equal({ redirectTo: '/revocations/9' });
      }
    } finally {
      operators.close();
      calls.close();
    }
    expect(revoked).to.deep.equal([
      { $case: 'clientId', value: 'shop' },
      { $case: 'keyId', value: 'key-12' },
    ]);
  });
});
