/** What pages say of unusual states, with answers of auth that a test chooses. */

import { expect } from 'chai';
import {
  ListSecurityEventsResponse,
  SecurityEventType,
} from '../../../../proto/gen/auth/v1/security_service.js';
import {
  EnforcementState,
  GetRevocationResponse,
} from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { eventsSource } from '../../../../services/auth/console/events-page.js';
import type { ConsoleRequest } from '../../../../services/auth/console/http.js';
import { instancesPage } from '../../../../services/auth/console/instances-page.js';
import { policyPage } from '../../../../services/auth/console/policy-page.js';
import { revocationsPage, spreadSource } from '../../../../services/auth/console/revocations-page.js';
import { answeringOperator } from './answering-operator.js';

const {
  ENFORCEMENT_STATE_ENFORCED: ENFORCED,
  ENFORCEMENT_STATE_PENDING: PENDING,
  ENFORCEMENT_STATE_UNKNOWN: UNKNOWN,
} = EnforcementState;

describe('a page of the console', () => {
  it('says how many instances enforce a revocation, are silent and have stopped', async () => {
    const summaryOf = async (
      ...instances: { readonly state: EnforcementState; readonly left?: boolean }[]
    ): Promise<string> => {
      const response = GetRevocationResponse.encode(
        GetRevocationResponse.fromPartial({ instances }),
      ).finish();
      return (
        await spreadSource(
          answeringOperator(() => response),
          1n,
          () => 0,
        ).read()
      ).summary;
    };
    const [enforced, pending, silent] = [{ state: ENFORCED }, { state: PENDING }, { state: UNKNOWN }];
    const stopped = { state: UNKNOWN, left: true };
    expect(await summaryOf()).to.equal('No instance has synced, or held a lease, since the revocation.');
    expect(await summaryOf(enforced)).to.equal('The only instance enforces it.');
    expect(await summaryOf(enforced, enforced)).to.equal('All 2 instances enforce it.');
    expect(await summaryOf(enforced, pending)).to.equal(
      '1 of 2 instances enforce it. 1 instance has not confirmed it yet.',
    );
    expect(await summaryOf(silent, silent)).to.equal(
      'No instance has confirmed it. 2 instances are silent and refuse calls.',
    );
    expect(await summaryOf(enforced, stopped)).to.equal(
      '1 of 2 instances enforce it. 1 instance has stopped.',
    );
  });

  it('says so when a list is empty', async () => {
    const operator = answeringOperator(() => new Uint8Array());
    const request: ConsoleRequest = {
      method: 'GET',
      path: '/revocations',
      query: new URLSearchParams(),
      form: new URLSearchParams(),
      loginId: undefined,
      peer: '127.0.0.1',
    };
    expect((await revocationsPage(operator, request)).body.text)
      .to.include('There is no entry')
      .and.not.include('<table');
    expect((await instancesPage(operator)).body.text)
      .to.include('No instance has synced')
      .and.not.include('<table');
    expect((await policyPage(operator)).body.text)
      .to.include('The policy has no role.')
      .and.include('The policy has no service.')
      .and.not.include('<table');
  });

  it('counts the events that are new since it was opened, at least when it cannot have read all', async () => {
    let ids: readonly number[] = [2, 1];
    const operator = answeringOperator(() => {
      const events = ids.map((id) => ({
        eventId: String(id),
        type: SecurityEventType.SECURITY_EVENT_TYPE_LOGIN_FAILED,
      }));
      return ListSecurityEventsResponse.encode(ListSecurityEventsResponse.fromPartial({ events })).finish();
    });
    const request: ConsoleRequest = {
      method: 'GET',
      path: '/events/live',
      query: new URLSearchParams(),
      form: new URLSearchParams(),
      loginId: undefined,
      peer: '127.0.0.1',
    };
    const { read } = eventsSource(operator, request, () => 0);
    expect((await read()).summary).to.equal('No new event since 00:00:00 UTC.');
    ids = [3, 2, 1];
    expect((await read()).summary).to.equal('1 new event since 00:00:00 UTC, the newest: login-failed.');
    expect((await read()).summary).to.include('1 new event since');
    ids = Array.from({ length: 50 }, (_, at) => 100 - at);
    expect((await read()).summary).to.include('At least 51 new events since');
  });
});
