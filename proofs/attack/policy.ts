/** Attacks by the policy: changing it without the right to, and gaining by a change what no administrator may give. */

import { randomUUID } from 'node:crypto';
import {
  ApplyPolicyRequest,
  GetPolicyRequest,
  type Policy,
  PolicyServiceClient,
  RegisterServiceRequest,
} from '../../proto/gen/auth/v1/policy_service.js';
import { ask } from '../../scripts/system/calls.js';
import { expectNotServed, runClass } from './attempts.js';
import type { Environment } from './environment.js';

const SERVICE = '/auth.v1.PolicyService';

export async function attackPolicy(environment: Environment): Promise<void> {
  await changeWithoutRight(environment);
  await gainByChange(environment);
}

/** Only an administrator whose token has the scope and the role reads and changes the policy. */
async function changeWithoutRight(environment: Environment): Promise<void> {
  const className = 'the policy without the right to change it';
  await runClass(environment, className, async () => {
    const policy = await read(environment);
    const { username, password } = environment.system.users.olga;
    const narrow = { username, password, audiences: [], scopes: ['auth.policy.write'], deviceName: 'attack' };
    const tokens = {
      alice: environment.alice.accessToken,
      bob: environment.bob.accessToken,
      // The scope without the role.
      'olga, narrowed': (await ask(environment.auth.login.bind(environment.auth), narrow)).accessToken,
    };
    const messages = {
      GetPolicy: GetPolicyRequest.encode({}).finish(),
      ApplyPolicy: applying({ ...policy, roles: richCustomer(policy) }),
      RegisterService: registering('customer'),
    };
    for (const [who, token] of Object.entries(tokens)) {
      for (const [method, message] of Object.entries(messages)) {
        await send(environment, className, { method, message, token, what: `${method} as ${who}` });
      }
    }
    await expectUnchanged(environment, className, policy);
  });
}

/** What not even an administrator may give. */
async function gainByChange(environment: Environment): Promise<void> {
  const className = 'a policy that gives what no administrator may give';
  await runClass(environment, className, async () => {
    const policy = await read(environment);
    const token = environment.olga.accessToken;
    const withService = (audience: string, ...scopes: string[]): Policy => ({
      ...policy,
      services: [...policy.services, { audience, description: '', clientIds: [], scopes }],
    });
    const withRole = (role: string, change: (scopes: readonly string[]) => string[]): Policy => ({
      ...policy,
      roles: policy.roles.map((one) => (one.role === role ? { ...one, scopes: change(one.scopes) } : one)),
    });
    const policies: Readonly<Record<string, Policy>> = {
      'a service below auth': withService('auth.more'),
      'a scope of auth for another service': withService('mallory', 'auth.revoke'),
      'a new scope below auth': withService('mallory', 'auth.everything'),
      "another service's scope": withService('mallory', 'inventory.manage'),
      "a scope named like another service's": withService('mallory', 'payment.everything'),
      'a client that serves auth': {
        ...policy,
        services: policy.services.map((service) =>
          service.audience === 'auth' ? { ...service, clientIds: ['payment'] } : service,
        ),
      },
      'auth with another scope': {
        ...policy,
        services: policy.services.map((service) =>
          service.audience === 'auth' ? { ...service, scopes: [...service.scopes, 'auth.x'] } : service,
        ),
      },
      'no way back': withRole('admin', (scopes) => scopes.filter((scope) => scope !== 'auth.policy.write')),
      'no roles of users': { ...policy, roles: policy.roles.filter(({ role }) => role !== 'customer') },
      'a scope of no service': withRole('customer', (scopes) => [...scopes, 'inventory.everything']),
      'a stale etag': { ...policy, etag: randomUUID(), roles: richCustomer(policy) },
    };
    for (const [what, wanted] of Object.entries(policies)) {
      await send(environment, className, { method: 'ApplyPolicy', message: applying(wanted), token, what });
    }
    for (const audience of ['auth', 'auth.more', '', 'Mallory']) {
      const message = registering('customer', audience);
      await send(environment, className, {
        method: 'RegisterService',
        message,
        token,
        what: `service ${audience}`,
      });
    }
    await expectUnchanged(environment, className, policy);
  });
}

function richCustomer({ roles }: Policy): Policy['roles'] {
  return roles.map((one) =>
    one.role === 'customer' ? { ...one, scopes: [...one.scopes, 'auth.users.write'] } : one,
  );
}

function applying(policy: Policy): Uint8Array {
  return ApplyPolicyRequest.encode({
    policy,
    dryRun: false,
    requestId: randomUUID(),
    reason: 'attack',
  }).finish();
}

function registering(role: string, audience = 'mallory'): Uint8Array {
  return RegisterServiceRequest.encode({
    audience,
    description: '',
    clientIds: ['mallory'],
    descriptorSet: Buffer.alloc(0),
    roles: [role],
    etag: '',
    dryRun: false,
    requestId: randomUUID(),
    reason: 'attack',
  }).finish();
}

async function send(
  environment: Environment,
  className: string,
  attempt: {
    readonly method: string;
    readonly message: Uint8Array;
    readonly token: string;
    readonly what: string;
  },
): Promise<void> {
  const { method, message, token, what } = attempt;
  const answer = await environment.send(environment.target.auth, {
    path: `${SERVICE}/${method}`,
    authorization: [`Bearer ${token}`],
    message,
  });
  expectNotServed(environment, className, what, answer);
}

async function read(environment: Environment): Promise<Policy> {
  const { system, olga } = environment;
  const client = new PolicyServiceClient(system.auth.address, system.credentials);
  try {
    const { policy } = await ask(client.getPolicy.bind(client), {}, { token: olga.accessToken });
    if (policy === undefined) throw new TypeError('auth has no policy');
    return policy;
  } finally {
    client.close();
  }
}

async function expectUnchanged(environment: Environment, className: string, before: Policy): Promise<void> {
  const { etag } = await read(environment);
  environment.board.holds(className, etag === before.etag, 'the policy has changed');
}
