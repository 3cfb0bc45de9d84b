/** Tests of auth as a process: its services over real sockets, and its failures to start. */

import { generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Client, credentials, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import pg from 'pg';
import { AuthServiceClient } from '../../../proto/gen/auth/v1/auth_service.js';
import { PolicyChangeKind, PolicyServiceClient } from '../../../proto/gen/auth/v1/policy_service.js';
import { UserServiceClient, UserState } from '../../../proto/gen/auth/v1/user_service.js';
import { Caller } from '../../../proto/gen/portcullis/access/v1/access.js';
import {
  RevocationServiceClient,
  RevokeWait,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../../scripts/system/calls.js';
import { readDemoPolicy } from '../../../scripts/system/demo-policy.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { outcomeOf, refusalOf } from '../../support/outcomes.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { killPrograms, type Program, startProgram } from '../../support/programs.js';
import { until } from '../../support/waiting.js';
import { signAssertion } from './instance.js';

const ISSUER = 'https://auth.example';
const PASSWORD = 'long enough for olga';

describe('auth main', function () {
  this.timeout(180_000);
  const keyEncryptionKey = randomBytes(32).toString('base64url');
  const keyOf: Record<string, KeyObject> = {};
  let folder: TemporaryFolder;
  let fresh: FreshDatabase;

  before(async () => {
    folder = await makeTemporaryFolder();
    fresh = await freshDatabase();
    const clientOf = (clientId: string, rest: object): object => {
      const { publicKey, privateKey } = generateKeyPairSync('ed25519');
      keyOf[clientId] = privateKey;
      const publicKeyPem = publicKey.export({ type: 'spki', format: 'pem' });
      return { client_id: clientId, public_key_pem: publicKeyPem, audiences: ['auth'], ...rest };
    };
    const bootstrap = {
      policy: readDemoPolicy(),
      users: [{ username: 'olga', password: PASSWORD, roles: ['customer', 'security', 'admin'] }],
      clients: [
        clientOf('payment', { scopes: ['auth.sync', 'auth.exchange'], exchange_audiences: ['inventory'] }),
        clientOf('watcher', { scopes: ['auth.introspect'] }),
      ],
    };
    writeFileSync(join(folder.path, 'bootstrap.json'), JSON.stringify(bootstrap));
  });
  after(async () => {
    await killPrograms();
    await folder.remove();
    await fresh.drop();
  });

  const query = <Row extends object>(sql: string) => queryOn<Row>(fresh.url, sql);

  /** Starts auth without a broker, which is optional. */
  function start(change: Record<string, string> = {}): Program {
    return startProgram(['services/auth/main'], {
      env: {
        DATABASE_URL: fresh.url,
        PORTCULLIS_LISTEN: '127.0.0.1:0',
        PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
        PORTCULLIS_ISSUER: ISSUER,
        PORTCULLIS_LEASE_MS: '1500',
        PORTCULLIS_KEY_ENCRYPTION_KEY: keyEncryptionKey,
        PORTCULLIS_BOOTSTRAP_FILE: join(folder.path, 'bootstrap.json'),
        ...change,
      },
    });
  }

  /** Waits until auth is ready, and returns its addresses. */
  async function addressesOf(auth: Program): Promise<{ address: string; opsAddress: string }> {
    await auth.logged('ready');
    const { address, opsAddress } = await auth.logged('listening');
    return { address: String(address), opsAddress: String(opsAddress) };
  }

  describe('serves', () => {
    const clients: Client[] = [];
    let running: Program;
    let opsAddress: string;
    let auth: AuthServiceClient;
    let users: UserServiceClient;
    let revocations: RevocationServiceClient;
    let policies: PolicyServiceClient;

    before(async () => {
      running = start();
      const addresses = await addressesOf(running);
      ({ opsAddress } = addresses);
      const insecure = credentials.createInsecure();
      auth = new AuthServiceClient(addresses.address, insecure);
      users = new UserServiceClient(addresses.address, insecure);
      revocations = new RevocationServiceClient(addresses.address, insecure);
      policies = new PolicyServiceClient(addresses.address, insecure);
      clients.push(auth, users, revocations, policies);
    });
    after(async () => {
      for (const client of clients) client.close();
      running.child.kill('SIGTERM');
      expect((await running.ended).code).to.equal(0);
    });

    const logIn = (over: { username?: string; password?: string } = {}) =>
      ask(auth.login.bind(auth), {
        username: 'olga',
        password: PASSWORD,
        audiences: [],
        scopes: [],
        deviceName: 'test',
        ...over,
      });
    const serviceToken = async (clientId: string): Promise<string> => {
      const privateKey = keyOf[clientId];
      if (privateKey === undefined) throw new Error('no such client');
      const value = await signAssertion({ clientId, privateKey });
      const credential = { $case: 'clientAssertion', value } as const;
      const request = { clientId, credential, audiences: [], scopes: [] };
      return (await ask(auth.issueServiceToken.bind(auth), request)).accessToken;
    };

    it('a whole session: login, list, refresh, logout, and refusal afterwards', async () => {
      const login = await logIn();
      const { session } = login;
      expect(session).to.include({ clientId: 'direct', deviceName: 'test', current: true });
      expect(login.audiences).to.deep.equal(['auth', 'inventory', 'payment']);
      expect(login.scopes).to.include.members(['auth.self', 'auth.users.write', 'payment.pay']);
      expect(login.refreshTokenExpireTime?.getTime()).to.be.above(
        login.accessTokenExpireTime?.getTime() ?? 0,
      );
      const list = (token: string) =>
        ask(auth.listSessions.bind(auth), { pageSize: 0, pageToken: '' }, { token });
      const { sessions } = await list(login.accessToken);
      expect(sessions.find(({ current }) => current)?.sessionId).to.equal(session?.sessionId);

      const request = { refreshToken: login.refreshToken, requestId: randomUUID() };
      const refreshed = await ask(auth.refresh.bind(auth), request);
      expect(refreshed).to.deep.include({ scopes: login.scopes, audiences: login.audiences });
      await ask(auth.logout.bind(auth), {}, { token: refreshed.accessToken });
      for (const token of [login.accessToken, refreshed.accessToken]) {
        await until(async () => (await outcomeOf(list(token))) === 'UNAUTHENTICATED TOKEN_REVOKED');
      }
      const next = { refreshToken: refreshed.refreshToken, requestId: randomUUID() };
      const { code, reason } = await refusalOf(ask(auth.refresh.bind(auth), next));
      expect([code, reason]).to.deep.equal([status.UNAUTHENTICATED, 'REFRESH_INVALID']);
    });

    it('the same error for a wrong password and an unknown name', async () => {
      const errors = [
        await refusalOf(logIn({ password: 'wrong password' })),
        await refusalOf(logIn({ username: 'nobody-here' })),
      ];
      for (const { code, reason, message } of errors) {
        expect([code, reason, message]).to.deep.equal([
          status.UNAUTHENTICATED,
          'LOGIN_FAILED',
          'username or password is wrong',
        ]);
      }
    });

    it('a receipt for the end of another session', async () => {
      const [here, there] = [await logIn(), await logIn()];
      const request = { sessionId: there.session?.sessionId ?? '' };
      const receipt = await ask(auth.revokeSession.bind(auth), request, { token: here.accessToken });
      expect(receipt.sequence > 0n).to.equal(true);
      expect(receipt.enforcedEverywhereBy?.getTime()).to.be.within(Date.now(), Date.now() + 5000);
    });

    it('users', async () => {
      const { accessToken: token } = await logIn();
      const request = {
        username: 'new.user',
        password: 'long enough',
        roles: ['customer'],
        requestId: randomUUID(),
      };
      const { user } = await ask(users.createUser.bind(users), request, { token });
      expect(user).to.include({ username: 'new.user' });
      const found = await ask(
        users.getUser.bind(users),
        { userId: user?.userId ?? '', username: '' },
        { token },
      );
      expect(found.user).to.deep.equal(user);
      const { users: page } = await ask(
        users.listUsers.bind(users),
        { pageSize: 0, pageToken: '' },
        { token },
      );
      expect(page.map(({ username }) => username)).to.include.members(['new.user', 'olga']);
      const { code, violations } = await refusalOf(
        ask(users.createUser.bind(users), { ...request, username: 'x' }, { token }),
      );
      expect(code).to.equal(status.INVALID_ARGUMENT);
      expect(violations.map(({ field }) => field)).to.deep.equal(['username']);
      expect(
        (await refusalOf(ask(users.getUser.bind(users), { userId: 'x', username: '' }, { token }))).code,
      ).to.equal(status.NOT_FOUND);
    });

    it('changes of a user who is logged in', async () => {
      const { accessToken: token } = await logIn();
      const username = 'changing';
      const request = { username, password: 'long enough', roles: ['customer'], requestId: randomUUID() };
      const { user } = await ask(users.createUser.bind(users), request, { token });
      expect(user?.state).to.equal(UserState.USER_STATE_ACTIVE);
      const userId = user?.userId ?? '';
      const first = await logIn({ username, password: 'long enough' });
      const isRefused = (login: { accessToken: string }) =>
        until(async () => {
          const page = { pageSize: 0, pageToken: '' };
          const call = ask(auth.listSessions.bind(auth), page, { token: login.accessToken });
          return (await outcomeOf(call)) === 'UNAUTHENTICATED TOKEN_REVOKED';
        });

      const roles = { userId, roles: ['customer', 'security'], requestId: randomUUID() };
      const restamped = await ask(users.setUserRoles.bind(users), roles, { token });
      expect(restamped.user?.roles).to.deep.equal(['customer', 'security']);
      await isRefused(first);
      const second = await ask(auth.refresh.bind(auth), {
        refreshToken: first.refreshToken,
        requestId: randomUUID(),
      });

      const page = { userId, pageSize: 0, pageToken: '' };
      const { sessions } = await ask(users.listUserSessions.bind(users), page, { token });
      expect(sessions).to.have.length(1);
      expect(sessions[0]).to.include({ deviceName: 'test', current: false });
      expect(sessions[0]?.lastUseTime?.getTime()).to.be.above(sessions[0]?.createTime?.getTime() ?? 0);

      const passwords = { oldPassword: 'wrong password', newPassword: 'longer than enough' };
      const wrong = ask(auth.changePassword.bind(auth), passwords, { token: second.accessToken });
      expect((await refusalOf(wrong)).reason).to.equal('LOGIN_FAILED');
      const right = { ...passwords, oldPassword: 'long enough' };
      const receipt = await ask(auth.changePassword.bind(auth), right, { token: second.accessToken });
      expect(receipt.sequence > restamped.sequence).to.equal(true);
      expect(receipt.enforcedEverywhereBy?.getTime()).to.be.within(Date.now(), Date.now() + 5000);
      await isRefused(second);
      const third = await logIn({ username, password: 'longer than enough' });

      const account = { userId, requestId: randomUUID() };
      const disabled = await ask(users.disableUser.bind(users), { ...account, reason: 'left' }, { token });
      expect(disabled.user?.state).to.equal(UserState.USER_STATE_DISABLED);
      await isRefused(third);
      const refused = await refusalOf(logIn({ username, password: 'longer than enough' }));
      expect([refused.reason, refused.message]).to.deep.equal([
        'LOGIN_FAILED',
        'username or password is wrong',
      ]);
      const enabled = await ask(users.enableUser.bind(users), account, { token });
      expect(enabled.user?.state).to.equal(UserState.USER_STATE_ACTIVE);
      await logIn({ username, password: 'longer than enough' });
    });

    it('the policy: read, planned, applied, and a service from its descriptor set', async () => {
      const { accessToken: token } = await logIn();
      const { policy } = await ask(policies.getPolicy.bind(policies), {}, { token });
      if (policy === undefined) throw new Error('there is no policy');
      expect(policy.services.map(({ audience }) => audience)).to.deep.equal(['auth', 'inventory', 'payment']);
      expect(policy.roles.map(({ role }) => role)).to.deep.equal([
        'admin',
        'customer',
        'operator',
        'security',
      ]);
      const guest = { role: 'guest', description: 'A guest', scopes: ['inventory.read'] };
      const wanted = {
        policy: { ...policy, roles: [...policy.roles, guest] },
        dryRun: true,
        requestId: '',
        reason: '',
      };
      const planned = await ask(policies.applyPolicy.bind(policies), wanted, { token });
      const added = {
        kind: PolicyChangeKind.POLICY_CHANGE_KIND_ADDED,
        audience: '',
        role: 'guest',
        clientId: '',
        right: 0,
      };
      expect(planned.changes).to.deep.equal([
        { ...added, scope: '' },
        { ...added, scope: 'inventory.read' },
      ]);
      const request = { ...wanted, dryRun: false, requestId: randomUUID() };
      const applied = await ask(policies.applyPolicy.bind(policies), request, { token });
      expect(applied.policy?.etag).to.not.equal(policy.etag);
      expect(applied).to.deep.include({ narrowedUsers: 0n, sequence: 0n, enforcedEverywhereBy: undefined });
      const stale = { ...request, requestId: randomUUID() };
      const refused = await refusalOf(ask(policies.applyPolicy.bind(policies), stale, { token }));
      expect([refused.code, refused.reason]).to.deep.equal([status.ABORTED, 'ETAG_MISMATCH']);
      const image = readFileSync(new URL('../../../proto/gen/image.binpb', import.meta.url));
      const registration = {
        audience: 'greeter',
        description: '',
        clientIds: [],
        descriptorSet: image,
        roles: [],
        etag: '',
        dryRun: true,
        requestId: '',
        reason: '',
      };
      const { code, violations } = await refusalOf(
        ask(policies.registerService.bind(policies), registration, { token }),
      );
      expect(code).to.equal(status.INVALID_ARGUMENT);
      expect(violations.map(({ field }) => field)).to.include('descriptor_set');
      const customer = await logIn({ username: 'new.user', password: 'long enough' });
      const missing = await refusalOf(
        ask(policies.getPolicy.bind(policies), {}, { token: customer.accessToken }),
      );
      expect([missing.code, missing.reason]).to.deep.equal([status.PERMISSION_DENIED, 'SCOPE_MISSING']);
    });

    it('the end of a session by its refresh token alone, and of all other sessions', async () => {
      const listOf = (token: string) =>
        outcomeOf(ask(auth.listSessions.bind(auth), { pageSize: 0, pageToken: '' }, { token }));
      const [here, there] = [await logIn(), await logIn()];
      expect(await ask(auth.revokeToken.bind(auth), { token: there.refreshToken })).to.deep.equal({});
      await until(async () => (await listOf(there.accessToken)) === 'UNAUTHENTICATED TOKEN_REVOKED');
      expect(await ask(auth.revokeToken.bind(auth), { token: there.refreshToken })).to.deep.equal({});
      const wrongKind = await refusalOf(ask(auth.revokeToken.bind(auth), { token: here.accessToken }));
      expect(wrongKind.violations.map(({ field }) => field)).to.deep.equal(['token']);

      const elsewhere = await logIn();
      const target = { $case: 'token', value: elsewhere.refreshToken } as const;
      const wait = RevokeWait.REVOKE_WAIT_EVERYWHERE;
      const request = { target, targets: [], dryRun: false, fences: [], reason: 'leaked', wait };
      await ask(revocations.revoke.bind(revocations), request, { token: here.accessToken });
      expect(await listOf(elsewhere.accessToken)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');

      await logIn();
      const revokeOthers = () => ask(auth.revokeOtherSessions.bind(auth), {}, { token: here.accessToken });
      const ended = await revokeOthers();
      expect(ended.endedSessions).to.be.at.least(1);
      expect(ended.enforcedEverywhereBy?.getTime()).to.be.within(Date.now(), Date.now() + 5000);
      expect(await revokeOthers()).to.deep.equal({
        endedSessions: 0,
        sequence: 0n,
        enforcedEverywhereBy: undefined,
      });
      expect(await listOf(here.accessToken)).to.equal('OK');
    });

    it('a new password by reset token, an unlocked name, and the end of the account', async () => {
      const { accessToken: token } = await logIn();
      const username = 'forgetful';
      const request = { username, password: 'long enough', roles: ['customer'], requestId: randomUUID() };
      const { user } = await ask(users.createUser.bind(users), request, { token });
      const account = { userId: user?.userId ?? '', reason: 'phone call', requestId: randomUUID() };
      const reset = await ask(users.resetPassword.bind(users), account, { token });
      expect(reset.expireTime?.getTime()).to.be.above(Date.now());
      const wanted = { resetToken: reset.resetToken, newPassword: 'longer than enough' };
      const receipt = await ask(auth.setPassword.bind(auth), wanted);
      expect(receipt.sequence > 0n).to.equal(true);
      expect(await refusalOf(ask(auth.setPassword.bind(auth), wanted))).to.deep.include({
        code: status.UNAUTHENTICATED,
        reason: 'RESET_TOKEN_INVALID',
      });
      await logIn({ username, password: 'longer than enough' });
      const unlocked = await ask(users.unlockUser.bind(users), account, { token });
      expect(unlocked.user).to.deep.equal(user);
      const deleted = await ask(users.deleteUser.bind(users), account, { token });
      expect(deleted.enforcedEverywhereBy?.getTime()).to.be.above(Date.now());
      expect((await refusalOf(logIn({ username, password: 'longer than enough' }))).reason).to.equal(
        'LOGIN_FAILED',
      );
      const { rows } = await query<{ network: string }>(
        `SELECT network FROM security_events WHERE type = 'account-purged' AND '${account.userId}' = ANY (subjects)`,
      );
      expect(rows).to.deep.equal([{ network: '127.0.0.1' }]);
    });

    it('no end of the last administrator', async () => {
      const { accessToken: token, session } = await logIn();
      const { users: page } = await ask(
        users.listUsers.bind(users),
        { pageSize: 0, pageToken: '' },
        { token },
      );
      const userId = page.find(({ username }) => username === 'olga')?.userId ?? '';
      const account = { userId, reason: '', requestId: '' };
      const changes = [
        () => ask(users.setUserRoles.bind(users), { ...account, roles: ['customer'] }, { token }),
        () => ask(users.disableUser.bind(users), account, { token }),
        () => ask(users.deleteUser.bind(users), account, { token }),
      ];
      for (const change of changes) {
        expect(await outcomeOf(change())).to.equal('FAILED_PRECONDITION LAST_ADMIN');
      }
      const { sessions } = await ask(auth.listSessions.bind(auth), { pageSize: 0, pageToken: '' }, { token });
      expect(sessions.map(({ sessionId }) => sessionId)).to.include(session?.sessionId);
    });

    it('token exchange and introspection, each only to permitted callers', async () => {
      const login = await ask(auth.login.bind(auth), {
        username: 'olga',
        password: PASSWORD,
        audiences: ['payment'],
        scopes: [],
        deviceName: '',
      });
      const [payment, watcher] = [await serviceToken('payment'), await serviceToken('watcher')];
      const request = { subjectToken: login.accessToken, audience: 'inventory', scopes: [] };
      const exchanged = await ask(auth.exchangeToken.bind(auth), request, { token: payment });
      const introspect = (token: string) => ask(auth.introspect.bind(auth), { token }, { token: watcher });
      const answer = await introspect(exchanged.accessToken);
      expect(answer).to.include({ active: true, clientId: 'payment', sessionId: login.session?.sessionId });
      expect(answer).to.deep.include({
        audiences: ['inventory'],
        actors: ['payment'],
        caller: Caller.CALLER_USER,
      });
      expect([answer.issuer, answer.issueTime, answer.authTime, answer.expireTime].every(Boolean)).to.equal(
        true,
      );
      const own = await introspect(watcher);
      expect(own).to.deep.include({
        active: true,
        actors: [],
        caller: Caller.CALLER_SERVICE,
        authTime: undefined,
      });
      expect(await introspect('nonsense')).to.deep.include({ active: false, subject: '', scopes: [] });
      const others = [
        refusalOf(ask(auth.exchangeToken.bind(auth), request, { token: watcher })),
        refusalOf(ask(auth.introspect.bind(auth), { token: watcher }, { token: payment })),
      ];
      for (const { code, reason } of await Promise.all(others)) {
        expect([code, reason]).to.deep.equal([status.PERMISSION_DENIED, 'SCOPE_MISSING']);
      }
      // The audience of the user's token is payment only, so auth rejects it.
      const sessions = ask(
        auth.listSessions.bind(auth),
        { pageSize: 0, pageToken: '' },
        { token: login.accessToken },
      );
      expect((await refusalOf(sessions)).reason).to.equal('TOKEN_INVALID');
    });

    it('revocation of a user with the caller as actor: sessions end and tokens are revoked', async () => {
      const { accessToken: token } = await logIn();
      const request = {
        username: 'victim',
        password: 'long enough',
        roles: ['customer'],
        requestId: randomUUID(),
      };
      const { user } = await ask(users.createUser.bind(users), request, { token });
      const login = await logIn({ username: 'victim', password: 'long enough' });
      const target = { $case: 'userId', value: user?.userId ?? '' } as const;
      const revoke = {
        target,
        reason: 'test',
        wait: RevokeWait.REVOKE_WAIT_UNSPECIFIED,
        targets: [],
        dryRun: false,
        fences: [],
      };
      await ask(revocations.revoke.bind(revocations), revoke, { token });
      const list = () =>
        ask(auth.listSessions.bind(auth), { pageSize: 0, pageToken: '' }, { token: login.accessToken });
      await until(async () => (await outcomeOf(list())) === 'UNAUTHENTICATED TOKEN_REVOKED');
    });

    it('keys with which any JWT library can verify its tokens', async () => {
      const { accessToken } = await logIn();
      const keys = createRemoteJWKSet(new URL(`http://${opsAddress}/.well-known/jwks.json`));
      const { payload } = await jwtVerify(accessToken, keys, {
        issuer: ISSUER,
        audience: 'auth',
        typ: 'at+jwt',
      });
      expect(payload['client_id']).to.equal('direct');
      const published = await ask(auth.getKeys.bind(auth), {});
      const served = (await (await fetch(`http://${opsAddress}/.well-known/jwks.json`)).json()) as {
        keys: { kid: string; d?: string }[];
      };
      expect(served.keys.map(({ kid }) => kid)).to.deep.equal(published.keySet?.keys.map(({ kid }) => kid));
      for (const key of served.keys) expect(key).to.not.have.property('d');
      expect(published.epoch).to.have.length(16);
    });

    it('its metadata (RFC 8414)', async () => {
      const response = await fetch(`http://${opsAddress}/.well-known/oauth-authorization-server`);
      expect(response.headers.get('content-type')).to.contain('application/json');
      expect(await response.json()).to.include({
        issuer: ISSUER,
        jwks_uri: `${ISSUER}/.well-known/jwks.json`,
      });
    });

    it('without a secret in its log', async () => {
      const { accessToken, refreshToken } = await logIn();
      await refusalOf(ask(auth.refresh.bind(auth), { refreshToken: `${refreshToken}x`, requestId: '' }));
      for (const secret of [PASSWORD, accessToken, refreshToken, keyEncryptionKey, 'PRIVATE KEY']) {
        expect(running.output().includes(secret), secret.slice(0, 8)).to.equal(false);
      }
    });
  });

  it('keeps users, sessions and keys over a restart', async () => {
    const running = start();
    const { address } = await addressesOf(running);
    const auth = new AuthServiceClient(address, credentials.createInsecure());
    const request = { username: 'olga', password: PASSWORD, audiences: [], scopes: [], deviceName: '' };
    await ask(auth.login.bind(auth), request);
    auth.close();
    running.child.kill('SIGTERM');
    expect((await running.ended).code).to.equal(0);
  });

  it('refuses to start with another key-encryption key, naming the variable and the key', async () => {
    const other = randomBytes(32).toString('base64url');
    const running = start({ PORTCULLIS_KEY_ENCRYPTION_KEY: other });
    expect((await running.ended).code).to.equal(1);
    expect(running.output()).to.match(
      /PORTCULLIS_KEY_ENCRYPTION_KEY does not fit the database: signing key \S{22} /,
    );
    expect(running.output()).to.not.contain(other);
    expect(running.output()).to.not.contain('"msg":"ready"');
  });

  it('refuses to start with a tampered key row, names the key, loses nothing, and starts once the row is restored', async () => {
    const { rows } = await query<{ kid: string; sealed: string }>(
      `SELECT kid, encode(sealed_private_key, 'hex') AS sealed FROM signing_keys
       WHERE purpose = 'token' AND state = 'signing'`,
    );
    const [{ kid, sealed }] = rows as [{ kid: string; sealed: string }];
    const state = () => query('SELECT * FROM signing_keys ORDER BY kid');
    await query(
      `UPDATE signing_keys SET sealed_private_key = set_bit(sealed_private_key, 400,
         1 - get_bit(sealed_private_key, 400)) WHERE kid = '${kid}'`,
    );
    const before = (await state()).rows;
    const refusing = start();
    expect((await refusing.ended).code).to.equal(1);
    expect(refusing.output()).to.contain(`signing key ${kid} cannot be used`);
    expect(refusing.output()).to.not.contain('"msg":"ready"');
    expect((await state()).rows).to.deep.equal(before);
    await query(
      `UPDATE signing_keys SET sealed_private_key = decode('${sealed}', 'hex') WHERE kid = '${kid}'`,
    );
    const mended = start();
    await addressesOf(mended);
    mended.child.kill('SIGTERM');
    expect((await mended.ended).code).to.equal(0);
  });

  it('encrypts the keys under another key-encryption key, and then needs the former one no more', async () => {
    const another = randomBytes(32).toString('base64url');
    const steps = [
      { PORTCULLIS_KEY_ENCRYPTION_KEY: another, PORTCULLIS_KEY_ENCRYPTION_KEY_PREVIOUS: keyEncryptionKey },
      { PORTCULLIS_KEY_ENCRYPTION_KEY: another },
      { PORTCULLIS_KEY_ENCRYPTION_KEY_PREVIOUS: another },
    ];
    for (const step of steps) {
      const running = start(step);
      const { opsAddress } = await addressesOf(running);
      const metrics = await (await fetch(`http://${opsAddress}/metrics`)).text();
      expect(metrics).to.contain('portcullis_keys_under_other_key_encryption_key 0');
      running.child.kill('SIGTERM');
      expect((await running.ended).code).to.equal(0);
      const isReplaced = running.output().includes('key_encryption_key_replaced');
      expect(isReplaced).to.equal('PORTCULLIS_KEY_ENCRYPTION_KEY_PREVIOUS' in step);
    }
  });

  it('refuses to start without the file of the key-encryption key, naming the variable', async () => {
    const running = start({
      PORTCULLIS_KEY_ENCRYPTION_KEY: '',
      PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: join(folder.path, 'not-there'),
    });
    expect((await running.ended).code).to.equal(1);
    expect(running.output()).to.contain('PORTCULLIS_KEY_ENCRYPTION_KEY_FILE');
    expect(running.output()).to.not.contain('listening');
  });

  it('reports all faults of its configuration together', async () => {
    const running = start({ DATABASE_URL: '', PORTCULLIS_KEY_ENCRYPTION_KEY: 'short', PORTCULLIS_OOPS: '1' });
    expect((await running.ended).code).to.equal(1);
    for (const name of ['DATABASE_URL', 'PORTCULLIS_KEY_ENCRYPTION_KEY', 'PORTCULLIS_OOPS']) {
      expect(running.output()).to.contain(name);
    }
    expect(running.output()).to.not.contain('listening');
  });

  it('listens without its database, reports what is missing, and fails every call', async () => {
    const running = start({ DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing' });
    const { address, opsAddress } = await running.logged('listening');
    const response = await fetch(`http://${opsAddress}/readyz`);
    expect(response.status).to.equal(503);
    expect(await response.text())
      .to.contain('database')
      .and.to.contain('keys')
      .and.to.contain('revocations');
    const auth = new AuthServiceClient(String(address), credentials.createInsecure());
    const request = { username: 'olga', password: PASSWORD, audiences: [], scopes: [], deviceName: '' };
    const error = await ask(auth.login.bind(auth), request).catch(errorOf);
    expect(error).to.deep.include({ code: status.UNAVAILABLE, reason: 'DEPENDENCY_UNAVAILABLE' });
    auth.close();
    running.child.kill('SIGTERM');
    expect((await running.ended).code).to.equal(0);
  });
});

async function queryOn<Row extends object>(url: string, sql: string): Promise<{ rows: Row[] }> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await client.query<Row>(sql);
  } finally {
    await client.end();
  }
}
