/** The logins of the console, with calls to a running auth that a test can hold up or lose. */

import { connect } from 'node:net';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { AuthServiceService, type RefreshResponse } from '../../../../proto/gen/auth/v1/auth_service.js';
import { UserServiceService } from '../../../../proto/gen/auth/v1/user_service.js';
import { CallError, type Calls, createCalls } from '../../../../services/auth/console/calls.js';
import { createOperators, type Operators } from '../../../../services/auth/console/operators.js';
import { MovableClock } from '../../../support/clock.js';
import { sharedSystem, type TestSystem } from '../../../support/system.js';

const PEER = '127.0.0.1';

describe('a login to the console', () => {
  let system: TestSystem;
  let calls: Calls;
  let operators: Operators;
  let clock: MovableClock;
  /** The paths of the calls. */
  let called: string[];
  /** What happens after a call. */
  let after: (path: string) => Promise<void>;
  /** Changes a response. */
  let change: (response: unknown) => void;

  beforeEach(async () => {
    system = await sharedSystem();
    const [host = '', port = ''] = system.auth.address.split(':');
    calls = createCalls({
      connect: (peer) =>
        new Promise((resolve, reject) => {
          const socket = connect({ host, port: Number(port), localAddress: peer });
          socket.once('connect', () => resolve(socket));
          socket.once('error', reject);
        }),
    });
    called = [];
    after = async () => {};
    change = () => {};
    clock = new MovableClock();
    const watched: Calls = {
      call: async (method, request, caller) => {
        called.push(method.path);
        const response = await calls.call(method, request, caller);
        await after(method.path);
        change(response);
        return response;
      },
      close: () => calls.close(),
    };
    operators = createOperators({ calls: watched, clock });
  });

  afterEach(() => {
    operators.close();
    calls.close();
  });

  const listUsers = async (id: string): Promise<void> => {
    const operator = operators.find(id, PEER, true);
    if (operator === undefined) throw new Error('the login has ended');
    await operator.call(UserServiceService.listUsers, { pageSize: 1, pageToken: '' });
  };

  it('is found by its former id while a confirmation ends the former session', async () => {
    const { password } = system.users.olga;
    const id = await operators.logIn({ ...system.users.olga, peer: PEER });
    const stream = operators.find(id, PEER, false);
    let reads = 0;
    after = async (path) => {
      if (path !== AuthServiceService.revokeToken.path) return;
      await listUsers(id);
      await stream?.call(UserServiceService.listUsers, { pageSize: 1, pageToken: '' });
      reads += 1;
    };
    const next = await operators.confirm(id, { password, peer: PEER });
    expect([reads, next === id]).to.deep.equal([1, false]);
    await listUsers(next);
  });

  it('is confirmed once by two forms at the same time, and by the second when the first has a wrong password', async () => {
    const { password } = system.users.olga;
    const id = await operators.logIn({ ...system.users.olga, peer: PEER });
    const wrong = operators.confirm(id, { password: 'not the password', peer: PEER }).catch(String);
    const [one, other] = await Promise.all([
      operators.confirm(id, { password, peer: PEER }),
      operators.confirm(id, { password, peer: PEER }),
    ]);
    expect(await wrong).to.include('CallError');
    expect(one).to.equal(other);
    expect(called.filter((path) => path === AuthServiceService.login.path)).to.have.length(3);
  });

  it('is not confirmed by a wrong password that is sent while the right one is checked', async () => {
    const { password } = system.users.olga;
    const id = await operators.logIn({ ...system.users.olga, peer: PEER });
    const right = operators.confirm(id, { password, peer: PEER });
    const wrong = operators.confirm(id, { password: 'not the password', peer: PEER });
    expect(await wrong.catch(String)).to.include('CallError');
    await listUsers(await right);
  });

  it('has the scopes of its last renewal', async () => {
    const id = await operators.logIn({ ...system.users.olga, peer: PEER });
    const operator = () => operators.find(id, PEER, true);
    expect(operator()?.canRevoke).to.equal(true);
    clock.pass(600_000);
    change = (response) => {
      if (isRefreshed(response)) response.scopes = response.scopes.filter((scope) => scope !== 'auth.revoke');
    };
    await listUsers(id);
    expect(operator()?.canRevoke).to.equal(false);
  });

  it('goes on after the response of a renewal was lost', async () => {
    const id = await operators.logIn({ ...system.users.olga, peer: PEER });
    clock.pass(600_000);
    after = async (path) => {
      if (path === AuthServiceService.refresh.path) throw new CallError(status.UNAVAILABLE, 'lost');
    };
    const lost = await listUsers(id).catch(String);
    expect(lost).to.include('lost');
    after = async () => {};
    await listUsers(id);
    expect(called.filter((path) => path === AuthServiceService.refresh.path)).to.have.length(2);
  });
});

/** Whether a response is that of a renewal. */
function isRefreshed(response: unknown): response is RefreshResponse {
  return (
    typeof response === 'object' &&
    response !== null &&
    'refreshToken' in response &&
    !('session' in response)
  );
}
