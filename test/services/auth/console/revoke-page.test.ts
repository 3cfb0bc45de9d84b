/** The form that ends sessions, with answers of auth that a test chooses. */

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
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
  RevokeWait,
} from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { createCalls } from '../../../../services/auth/console/calls.js';
import { type ConsoleResponse, createLoginCookies } from '../../../../services/auth/console/http.js';
import { createOperators } from '../../../../services/auth/console/operators.js';
import { revoke } from '../../../../services/auth/console/revoke-page.js';
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
});
