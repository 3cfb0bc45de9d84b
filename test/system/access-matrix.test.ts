/**
 * Every method found in the descriptor image, with every kind of credential, over real sockets against
 * real processes. The expected outcome is derived here from the rule in the image, by a second reader
 * that shares no code with the guard.
 */

import { generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DescMethod } from '@bufbuild/protobuf';
import { Client, credentials, type ServiceError as GrpcError, Metadata, status } from '@grpc/grpc-js';
import { createServiceTokenSource, errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { AuthServiceClient, type LoginResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { UserServiceClient } from '../../proto/gen/auth/v1/user_service.js';
import { ask } from '../../scripts/system/calls.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { type DeclaredRule, ownMethods, pathOf, ruleOf } from '../support/descriptor-image.js';

/** Short, so that a token expires during the test. */
const TOKEN_SECONDS = 10;
const SKEW_SECONDS = 5;
const LEASE_MS = 1500;
const PASSWORD = 'correct horse battery staple';
const ROLES = ['customer', 'operator', 'security', 'admin'] as const;

/** The kinds of callers in the image's numbers. */
const CALLER_USER = 1;
const CALLER_SERVICE = 2;
const ON_STALE_ALLOW = 2;

/** The status and reason of a call. */
interface Outcome {
  readonly code: status;
  readonly reason: string;
}

/** A token, with the rights of its bearer. */
interface Bearer {
  readonly token: string;
  readonly scopes: readonly string[];
  readonly roles: readonly string[];
  readonly kind: 'USER' | 'SERVICE';
}

const GUARD_REASONS = [
  'TOKEN_MISSING',
  'TOKEN_INVALID',
  'TOKEN_EXPIRED',
  'TOKEN_REVOKED',
  'SCOPE_MISSING',
  'ROLE_MISSING',
  'CALLER_KIND',
  'LOGIN_TOO_OLD',
  'REVOCATION_STATE_STALE',
];

describe('every method with every kind of credential', function () {
  this.timeout(120_000);

  let folder: TemporaryFolder;
  let system: System;
  let auth: AuthServiceClient;
  const clients = new Map<string, Client>();
  let cells = 0;

  before(async () => {
    folder = await makeTemporaryFolder();
    system = await startSystem({
      dataDir: folder.path,
      ports: 'free',
      ephemeral: true,
      leaseMs: LEASE_MS,
      environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(TOKEN_SECONDS) },
    });
    auth = new AuthServiceClient(system.auth.address, credentials.createInsecure());
    const users = new UserServiceClient(system.auth.address, credentials.createInsecure());
    const { accessToken } = await login(system.users.olga.username, system.users.olga.password);
    for (const role of ROLES) {
      await ask(
        users.createUser.bind(users),
        { username: `only-${role}`, password: PASSWORD, roles: [role], requestId: randomUUID() },
        { token: accessToken },
      );
    }
    users.close();
  });

  after(async () => {
    for (const client of clients.values()) client.close();
    auth?.close();
    await system?.stop();
    await folder?.remove();
  });

  function login(
    username: string,
    password: string,
    wanted: Partial<Record<'audiences' | 'scopes', string[]>> = {},
  ) {
    const request = { username, password, audiences: [], scopes: [], deviceName: 'matrix', ...wanted };
    return ask<typeof request, LoginResponse>(auth.login.bind(auth), request);
  }

  async function bearerOf(role: (typeof ROLES)[number], scopes: string[] = []): Promise<Bearer> {
    const { accessToken } = await login(`only-${role}`, PASSWORD, { scopes });
    return { token: accessToken, ...said(accessToken), kind: 'USER' };
  }

  function targetsOf(method: DescMethod): string[] {
    const [name] = method.parent.typeName.split('.');
    if (name === 'inventory') return system.inventory.map(({ address }) => address);
    return [name === 'payment' ? system.payment.address : system.auth.address];
  }

  /** Calls a method with an empty request: access is checked before the request. */
  function call(address: string, method: DescMethod, authorization: string | undefined): Promise<Outcome> {
    let client = clients.get(address);
    if (client === undefined) {
      client = new Client(address, credentials.createInsecure());
      clients.set(address, client);
    }
    const identity = (bytes: Buffer): Buffer => bytes;
    const metadata = new Metadata();
    if (authorization !== undefined) metadata.set('authorization', authorization);
    const options = { deadline: Date.now() + 10_000 };
    const empty = Buffer.alloc(0);
    cells += 1;
    return new Promise((resolve) => {
      const ended = (error: GrpcError | null): void =>
        resolve(
          error === null
            ? { code: status.OK, reason: '' }
            : { code: error.code, reason: errorOf(error).reason },
        );
      if (method.methodKind === 'unary') {
        client.makeUnaryRequest(pathOf(method), identity, identity, empty, metadata, options, ended);
        return;
      }
      const stream = client.makeServerStreamRequest(
        pathOf(method),
        identity,
        identity,
        empty,
        metadata,
        options,
      );
      stream.on('error', ended);
      stream.on('end', () => ended(null));
      stream.on('data', () => {
        ended(null);
        stream.cancel();
      });
    });
  }

  /** Calls every method at every instance, and returns where the outcome differs from the expected one. */
  async function walk(
    authorizationFor: (method: DescMethod) => string | undefined,
    expected: (rule: DeclaredRule, method: DescMethod) => Partial<Outcome> | 'ADMITTED',
  ): Promise<string[]> {
    const differences: string[] = [];
    // Logout ends the session it is called with, so it comes last.
    const methods = [...ownMethods].sort((a, b) => Number(a.name === 'Logout') - Number(b.name === 'Logout'));
    for (const method of methods) {
      const rule = ruleOf(method);
      if (rule === undefined) throw new Error(`${pathOf(method)} has no rule`);
      for (const address of targetsOf(method)) {
        const outcome = await call(address, method, authorizationFor(method));
        const wanted = rule.public ? 'ADMITTED' : expected(rule, method);
        const holds =
          wanted === 'ADMITTED'
            ? !GUARD_REASONS.includes(outcome.reason)
            : Object.entries(wanted).every(([name, value]) => outcome[name as keyof Outcome] === value);
        if (!holds) {
          differences.push(`${pathOf(method)}: ${JSON.stringify(outcome)}, not ${JSON.stringify(wanted)}`);
        }
      }
    }
    return differences;
  }

  const always = (code: status, reason: string) => () => ({ code, reason });

  it('rejects a call without a token', async () => {
    expect(await walk(() => undefined, always(status.UNAUTHENTICATED, 'TOKEN_MISSING'))).to.deep.equal([]);
  });

  it('rejects malformed and altered tokens, and those of another issuer', async () => {
    const { token } = await bearerOf('customer');
    const [header = '', payload = '', signature = ''] = token.split('.');
    const { privateKey } = generateKeyPairSync('ed25519');
    const forged = sign(null, Buffer.from(`${header}.${payload}`), privateKey).toString('base64url');
    const none = Buffer.from('{"alg":"none"}').toString('base64url');
    for (const text of [
      'nonsense',
      `${header}.${payload}.${forged}`,
      `${header}.${payload}.${signature.slice(1)}A`,
      `${none}.${payload}.`,
      `${token}.`,
    ]) {
      expect(
        await walk(() => `Bearer ${text}`, always(status.UNAUTHENTICATED, 'TOKEN_INVALID')),
      ).to.deep.equal([]);
    }
    expect(await walk(() => `Basic ${token}`, always(status.UNAUTHENTICATED, 'TOKEN_INVALID'))).to.deep.equal(
      [],
    );
  });

  it('rejects a valid token for another service', async () => {
    const elsewhere: Record<string, string> = {};
    for (const [service, audience] of [
      ['auth', 'inventory'],
      ['inventory', 'payment'],
      ['payment', 'auth'],
    ] as const) {
      const { username, password } = system.users.olga;
      elsewhere[service] = (await login(username, password, { audiences: [audience] })).accessToken;
    }
    const authorization = (method: DescMethod): string => {
      const [name = ''] = method.parent.typeName.split('.');
      return `Bearer ${elsewhere[name === 'portcullis' ? 'auth' : name]}`;
    };
    expect(await walk(authorization, always(status.UNAUTHENTICATED, 'TOKEN_INVALID'))).to.deep.equal([]);
  });

  it('rejects a refresh token', async () => {
    const { refreshToken } = await login('only-customer', PASSWORD);
    const differences = await walk(
      () => `Bearer ${refreshToken}`,
      always(status.UNAUTHENTICATED, 'TOKEN_INVALID'),
    );
    expect(differences).to.deep.equal([]);
  });

  for (const role of ROLES) {
    it(`admits a ${role} to exactly what the rules allow`, async () => {
      const bearer = await bearerOf(role);
      expect(bearer.roles).to.deep.equal([role]);
      const differences = await walk(
        () => `Bearer ${bearer.token}`,
        (rule, method) =>
          bearerReaches(bearer, method) ? verdictOf(rule, bearer) : { reason: 'TOKEN_INVALID' },
      );
      expect(differences).to.deep.equal([]);
    });
  }

  it('admits a user who asked for few scopes to no more than those', async () => {
    for (const scopes of [
      ['inventory.read', 'auth.self'],
      ['payment.pay', 'inventory.reserve', 'auth.self'],
    ]) {
      const bearer = await bearerOf('operator', scopes);
      expect([...bearer.scopes].sort()).to.deep.equal([...scopes].sort());
      const differences = await walk(
        () => `Bearer ${bearer.token}`,
        (rule, method) =>
          bearerReaches(bearer, method) ? verdictOf(rule, bearer) : { reason: 'TOKEN_INVALID' },
      );
      expect(differences).to.deep.equal([]);
    }
  });

  it('admits a service to methods for services, and never as a user', async () => {
    const source = createServiceTokenSource({
      address: system.auth.address,
      credentials: credentials.createInsecure(),
      clientId: 'payment',
      clientKey: await readFile(system.secrets.clientKeyFiles.payment, 'utf8'),
      issuer: system.issuer,
    });
    const token = await source.get();
    source.close();
    const bearer: Bearer = { token, ...said(token), kind: 'SERVICE' };
    const differences = await walk(
      () => `Bearer ${token}`,
      (rule, method) =>
        bearerReaches(bearer, method) ? verdictOf(rule, bearer) : { reason: 'TOKEN_INVALID' },
    );
    expect(differences).to.deep.equal([]);
  });

  it('rejects a revoked token everywhere', async () => {
    const { username, password } = system.users.olga;
    const opened = await login(username, password);
    await ask(
      auth.revokeSession.bind(auth),
      { sessionId: opened.session?.sessionId ?? '' },
      { token: opened.accessToken },
    );
    await sleep(200);
    const differences = await walk(
      () => `Bearer ${opened.accessToken}`,
      always(status.UNAUTHENTICATED, 'TOKEN_REVOKED'),
    );
    expect(differences).to.deep.equal([]);
  });

  it('rejects an expired token everywhere', async () => {
    const { username, password } = system.users.olga;
    const { accessToken } = await login(username, password);
    await sleep((TOKEN_SECONDS + SKEW_SECONDS + 1) * 1000);
    const differences = await walk(
      () => `Bearer ${accessToken}`,
      always(status.UNAUTHENTICATED, 'TOKEN_EXPIRED'),
    );
    expect(differences).to.deep.equal([]);
  });

  it('rejects every call while the list is stale, except where the rule allows it', async () => {
    const { username, password } = system.users.olga;
    const { accessToken } = await login(username, password);
    const bearer: Bearer = { token: accessToken, ...said(accessToken), kind: 'USER' };
    system.auth.kill('SIGSTOP');
    try {
      await sleep(LEASE_MS + 300);
      const differences: string[] = [];
      for (const method of ownMethods) {
        const rule = ruleOf(method);
        const [name] = method.parent.typeName.split('.');
        if (rule === undefined || rule.public || (name !== 'inventory' && name !== 'payment')) continue;
        for (const address of targetsOf(method)) {
          const outcome = await call(address, method, `Bearer ${accessToken}`);
          const wanted = rule.onStale === ON_STALE_ALLOW ? verdictOf(rule, bearer) : 'REVOCATION_STATE_STALE';
          const holds =
            wanted === 'ADMITTED'
              ? !GUARD_REASONS.includes(outcome.reason)
              : outcome.code === status.UNAVAILABLE && outcome.reason === wanted;
          if (!holds)
            differences.push(`${pathOf(method)}: ${JSON.stringify(outcome)}, not ${String(wanted)}`);
        }
      }
      expect(differences).to.deep.equal([]);
    } finally {
      system.auth.kill('SIGCONT');
    }
  });

  it('has tried every method with every credential', () => {
    expect(cells).to.be.greaterThan(ownMethods.length * 15);
  });
});

/** The expected decision on a bearer, derived only from the rule. */
function verdictOf(rule: DeclaredRule, bearer: Bearer): 'ADMITTED' | Partial<Outcome> {
  const isMet =
    rule.scopes.every((scope) => bearer.scopes.includes(scope)) &&
    (rule.roles.length === 0 || rule.roles.some((role) => bearer.roles.includes(role))) &&
    !(rule.caller === CALLER_USER && bearer.kind !== 'USER') &&
    !(rule.caller === CALLER_SERVICE && bearer.kind !== 'SERVICE');
  return isMet ? 'ADMITTED' : { code: status.PERMISSION_DENIED };
}

/** The rights in a token, read without verification, because it comes from auth. */
function said(token: string): { scopes: string[]; roles: string[]; audiences: string[] } {
  const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as {
    scope: string;
    roles?: string[];
    aud: string[];
  };
  return { scopes: claims.scope.split(' '), roles: claims.roles ?? [], audiences: claims.aud };
}

function bearerReaches(bearer: Bearer, method: DescMethod): boolean {
  const [name = ''] = method.parent.typeName.split('.');
  return said(bearer.token).audiences.includes(name === 'portcullis' ? 'auth' : name);
}
