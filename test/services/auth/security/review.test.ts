/** The review: it reports every weakness of a weak set-up, and none of a good one. */

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { infinityPem, pemOf, weakKeys } from '../../../../proofs/attack/weak-keys.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../../scripts/system/temporary-folder.js';
import { applyBootstrap } from '../../../../services/auth/accounts/bootstrap.js';
import { parseConfig, reviewSettingsOf } from '../../../../services/auth/config.js';
import type { ServiceReport } from '../../../../services/auth/records/service-reports.js';
import { createSecurityReview, findingsOf } from '../../../../services/auth/security/review.js';
import { createReviewFacts } from '../../../../services/auth/security/review-facts.js';
import type { ReviewFacts, ReviewFinding } from '../../../../services/auth/security/review-findings.js';
import { createReviewStore } from '../../../../services/auth/security/review-store.js';
import { type FreshDatabase, freshDatabase } from '../../../support/postgres.js';
import { type AuthInstance, addUser, logIn, openAuth } from '../instance.js';

const NOW = new Date('2026-01-01T00:00:00Z');
const DAY_MS = 86_400_000;

const GOOD: ReviewFacts = {
  settings: {
    signingAlgorithm: 'EdDSA',
    keyRotationDays: 30,
    accessTokenSeconds: 300,
    leaseMs: 5000,
    loginLimits: { failuresPerName: 20, failuresPerPeer: 300, windowSeconds: 300 },
    reflection: false,
    logLevel: 'info',
    allowsPlaintext: false,
    listeners: [{ address: '0.0.0.0:50051', isLoopback: false, isEncrypted: true }],
    asksForCertificates: true,
    broker: { address: 'nats:4222', isLoopback: false, isEncrypted: true, hasPassword: true },
    database: { address: 'db:5432', isLoopback: false, isEncrypted: true },
    issuers: [
      { issuer: 'https://other', isSymmetric: false, algorithms: ['ES256'], lifetimeMaxSeconds: 300 },
    ],
    bootstrapUsers: ['olga'],
  },
  now: NOW,
  clockDifferenceMs: 20,
  keys: (['token', 'broadcast'] as const).flatMap((purpose) => [
    {
      ...{
        kid: `${purpose}-1`,
        purpose,
        algorithm: 'EdDSA',
        rsaBits: undefined,
        fault: undefined,
        state: 'signing',
      },
      signTime: new Date(NOW.getTime() - 10 * DAY_MS),
    } as const,
    {
      ...{
        kid: `${purpose}-2`,
        purpose,
        algorithm: 'EdDSA',
        rsaBits: undefined,
        fault: undefined,
        state: 'next',
      },
      signTime: undefined,
    } as const,
  ]),
  clients: [
    { clientId: 'direct', proof: 'none' },
    { clientId: 'payment', proof: { algorithm: 'other', rsaBits: undefined, fault: undefined } },
  ],
  users: [{ username: 'olga', isPrivileged: true, hasFirstPassword: false, isGuessable: false }],
  admins: ['olga', 'otto'],
  instances: [
    {
      ...{ service: 'inventory', instance: Buffer.alloc(16, 1), lastSyncAgeMs: 100, applied: 3n },
      ...{ lag: 0n, leaseLeftMs: 4900, currentEpoch: true, description: undefined, left: false },
    },
  ],
  reporting: [
    {
      ...{ service: 'inventory', instance: '01', clockDifferenceMs: -30 },
      ...{ plaintext: false, remotePlaintext: false },
    },
  ],
  lostEvents: 0,
  changedLogs: 0,
};

const linesOf = (findings: readonly ReviewFinding[]): string[] =>
  findings.map(({ grade, reason, subject }) => `${grade} ${reason} ${subject}`).sort();

describe('the review', () => {
  it('finds nothing where nothing is weak', () => {
    expect(findingsOf(GOOD)).to.deep.equal([]);
  });

  it('names each weakness separately, with grade, fact and remedy', () => {
    const { settings } = GOOD;
    const [key, ...keys] = GOOD.keys;
    const [instance] = GOOD.instances;
    const [reporting] = GOOD.reporting;
    if (key === undefined || instance === undefined || reporting === undefined) throw new Error('incomplete');
    const remote = { isLoopback: false, isEncrypted: false };
    const local = { isLoopback: true, isEncrypted: false };
    const cases: readonly (readonly [Partial<ReviewFacts>, readonly string[]])[] = [
      [
        { settings: { ...settings, signingAlgorithm: 'RS256' } },
        ['note ALGORITHM_NOT_YET_IN_USE token-1', 'weak ALGORITHM_WEAK RS256'],
      ],
      [
        { keys: [{ ...key, algorithm: 'RS256', rsaBits: 3072 }, ...keys] },
        ['note ALGORITHM_NOT_YET_IN_USE token-1', 'weak ALGORITHM_WEAK RS256'],
      ],
      [{ keys: [{ ...key, rsaBits: 2048 }, ...keys] }, ['weak KEY_SMALL token-1']],
      [{ keys: [{ ...key, fault: 'must have another exponent' }, ...keys] }, ['critical KEY_UNSAFE token-1']],
      [
        { keys: [{ ...key, signTime: new Date(NOW.getTime() - 32 * DAY_MS) }, ...keys] },
        ['weak KEY_OLD token-1'],
      ],
      [{ keys: GOOD.keys.filter(({ kid }) => kid !== 'broadcast-2') }, ['weak KEY_NEXT_MISSING broadcast']],
      [
        { settings: { ...settings, keyRotationDays: 366 } },
        ['weak KEY_ROTATION_SELDOM PORTCULLIS_KEY_ROTATION_DAYS'],
      ],
      [
        { settings: { ...settings, accessTokenSeconds: 3600 } },
        ['weak ACCESS_TOKEN_LONG PORTCULLIS_ACCESS_TOKEN_SECONDS'],
      ],
      [{ settings: { ...settings, leaseMs: 60_000 } }, ['weak LEASE_LONG PORTCULLIS_LEASE_MS']],
      [
        {
          settings: {
            ...settings,
            loginLimits: { failuresPerName: 1000, failuresPerPeer: 1_000_000, windowSeconds: 60 },
          },
        },
        [
          'weak LOGIN_LIMIT_LOOSE PORTCULLIS_LOGIN_FAILURES_PER_NAME',
          'weak LOGIN_LIMIT_LOOSE PORTCULLIS_LOGIN_FAILURES_PER_PEER',
        ],
      ],
      [
        { settings: { ...settings, listeners: [{ address: 'a', ...remote }] } },
        ['critical PLAINTEXT_LISTENER auth a'],
      ],
      [
        { settings: { ...settings, listeners: [{ address: 'a', ...local }] } },
        ['note PLAINTEXT_LISTENER auth a'],
      ],
      [{ settings: { ...settings, allowsPlaintext: true } }, ['weak PLAINTEXT_ALLOWED PORTCULLIS_PLAINTEXT']],
      [
        { settings: { ...settings, asksForCertificates: false } },
        ['note CERTIFICATES_NOT_ASKED PORTCULLIS_TLS_CLIENT_AUTH'],
      ],
      [{ settings: { ...settings, broker: undefined } }, ['note BROKER_MISSING NATS_URL']],
      [
        { settings: { ...settings, broker: { address: 'b', ...remote, hasPassword: false } } },
        ['critical BROKER_OPEN b', 'critical BROKER_PLAINTEXT b'],
      ],
      [
        { settings: { ...settings, database: { address: 'd', ...remote } } },
        ['critical DATABASE_PLAINTEXT d'],
      ],
      [{ settings: { ...settings, database: { address: 'd', ...local } } }, ['note DATABASE_PLAINTEXT d']],
      [
        { settings: { ...settings, reflection: true, logLevel: 'trace' } },
        ['note LOG_TALKATIVE PORTCULLIS_LOG_LEVEL', 'note REFLECTION_ON PORTCULLIS_REFLECTION'],
      ],
      [{ settings: { ...settings, logLevel: 'silent' } }, ['weak LOG_QUIET PORTCULLIS_LOG_LEVEL']],
      [
        {
          settings: {
            ...settings,
            issuers: [
              { issuer: 'old', isSymmetric: true, algorithms: [], lifetimeMaxSeconds: 300 },
              { issuer: 'new', isSymmetric: false, algorithms: ['RS256'], lifetimeMaxSeconds: 3600 },
            ],
          },
        },
        ['note ACCESS_TOKEN_LONG new', 'note ALGORITHM_WEAK new', 'weak ISSUER_SYMMETRIC old'],
      ],
      [{ clients: [{ clientId: 'c', proof: 'secret' }] }, ['weak CLIENT_SECRET c']],
      [
        { clients: [{ clientId: 'c', proof: { algorithm: 'RSA', rsaBits: 2048, fault: undefined } }] },
        ['weak KEY_SMALL c'],
      ],
      [
        {
          clients: [
            { clientId: 'c', proof: { algorithm: 'RSA', rsaBits: undefined, fault: 'must be good' } },
          ],
        },
        ['critical KEY_UNSAFE c'],
      ],
      [
        { users: [{ username: 'olga', isPrivileged: true, hasFirstPassword: true, isGuessable: true }] },
        ['critical PASSWORD_GUESSABLE olga', 'weak PASSWORD_FROM_BOOTSTRAP olga'],
      ],
      [{ admins: ['olga'] }, ['note ADMIN_SINGLE olga']],
      [{ admins: [] }, ['critical ADMIN_NONE users']],
      [{ clockDifferenceMs: 6000 }, ['critical CLOCK_DIFFERS auth']],
      [{ reporting: [{ ...reporting, clockDifferenceMs: -2000 }] }, ['weak CLOCK_DIFFERS inventory 01']],
      [{ reporting: [{ ...reporting, plaintext: true }] }, ['note PLAINTEXT_LISTENER inventory 01']],
      [
        { reporting: [{ ...reporting, plaintext: true, remotePlaintext: true }] },
        ['critical PLAINTEXT_LISTENER inventory 01'],
      ],
      [{ instances: [{ ...instance, lag: 7n }] }, [`weak INSTANCE_BEHIND inventory ${'01'.repeat(16)}`]],
      [
        { instances: [{ ...instance, currentEpoch: false }] },
        [`weak INSTANCE_BEHIND inventory ${'01'.repeat(16)}`],
      ],
      [
        { instances: [{ ...instance, leaseLeftMs: -1, lastSyncAgeMs: 9000 }] },
        [`note INSTANCE_SILENT inventory ${'01'.repeat(16)}`],
      ],
      [{ lostEvents: 3 }, ['weak EVENTS_LOST security events']],
      [{ changedLogs: 1 }, ['critical LOG_CHANGED revocation log']],
    ];
    for (const [weakness, expected] of cases) {
      const findings = findingsOf({ ...GOOD, ...weakness });
      expect(linesOf(findings), JSON.stringify(expected)).to.deep.equal(expected);
      for (const { fact, remedy } of findings) {
        expect(fact).to.match(/^\S.{10,}[^.]$/);
        expect(remedy).to.match(/^\S.{8,}[^.]$/);
      }
    }
  });

  it('lists the most severe findings first', () => {
    const findings = findingsOf({
      ...GOOD,
      lostEvents: 1,
      changedLogs: 1,
      settings: { ...GOOD.settings, reflection: true },
    });
    expect(findings.map(({ grade }) => grade)).to.deep.equal(['critical', 'weak', 'note']);
  });

  describe('of a database', () => {
    let folder: TemporaryFolder;
    let fresh: FreshDatabase;
    let auth: AuthInstance;

    before(async () => {
      [folder, fresh] = await Promise.all([makeTemporaryFolder(), freshDatabase()]);
    });

    after(async () => {
      await auth.close();
      await Promise.all([fresh.drop(), folder.remove()]);
    });

    it('finds every weakness of a weak set-up where it is', async () => {
      const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const bootstrapFile = join(folder.path, 'bootstrap.json');
      const publicKeyPem = publicKey.export({ type: 'spki', format: 'pem' });
      writeFileSync(
        bootstrapFile,
        JSON.stringify({
          users: [
            { username: 'admin', password: 'admin123', roles: ['admin'] },
            { username: 'carol', password: 'password', roles: ['customer'] },
          ],
          clients: [
            { client_id: 'old', secret: 'x'.repeat(32), audiences: ['auth'], scopes: [] },
            { client_id: 'short', public_key_pem: publicKeyPem, audiences: ['auth'], scopes: [] },
          ],
        }),
      );
      const config = parseConfig({
        DATABASE_URL: 'postgresql://auth:secret@db.example/auth',
        NATS_URL: 'nats://broker.example:4222',
        PORTCULLIS_ISSUER: 'http://auth.example',
        PORTCULLIS_LISTEN: '0.0.0.0:50051',
        PORTCULLIS_OPS_LISTEN: '0.0.0.0:51051',
        PORTCULLIS_KEY_ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64url'),
        PORTCULLIS_PLAINTEXT: 'allow',
        PORTCULLIS_REFLECTION: 'on',
        PORTCULLIS_LOG_LEVEL: 'debug',
        PORTCULLIS_SIGNING_ALGORITHM: 'RS256',
        PORTCULLIS_KEY_ROTATION_DAYS: '366',
        PORTCULLIS_ACCESS_TOKEN_SECONDS: '3600',
        PORTCULLIS_LEASE_MS: '60000',
        PORTCULLIS_LOGIN_FAILURES_PER_NAME: '100000',
        PORTCULLIS_LOGIN_FAILURES_PER_PEER: '1000000',
        PORTCULLIS_LOGIN_WINDOW_SECONDS: '1',
        PORTCULLIS_BOOTSTRAP_FILE: bootstrapFile,
        PORTCULLIS_TRUSTED_ISSUERS: JSON.stringify([
          { issuer: 'legacy', legacy_secret: Buffer.alloc(32, 5).toString('base64url') },
        ]),
      });
      auth = await openAuth(fresh.url, { algorithm: 'RS256' });
      await applyBootstrap(config.bootstrap, auth);
      // Keys from before they were checked.
      const weak = weakKeys().find(({ name }) => name === 'RSA, exponent 1');
      if (weak === undefined) throw new Error('there is no such key');
      for (const [id, pem] of Object.entries({ 'exponent-1': pemOf(weak.jwk), infinity: infinityPem() })) {
        await auth.database.query('INSERT INTO clients (client_id, public_key_pem) VALUES ($1, $2)', [
          id,
          pem,
        ]);
      }
      await auth.database.query(
        "UPDATE signing_keys SET sign_time = sign_time - interval '400 days' WHERE purpose = 'token' AND sign_time IS NOT NULL",
      );
      // An instance whose clock is ahead, and which is called in plaintext from elsewhere.
      const report: ServiceReport = {
        ...{ reportId: randomUUID(), source: 'payment', service: 'payment', instance: '02', refused: [] },
        ...{ beginTime: new Date(), endTime: new Date(Date.now() + 60_000), refusedLeftOut: 0, admitted: [] },
        ...{
          principalsLeftOut: 0,
          forgedBroadcasts: 0,
          lostReports: 2,
          plaintext: true,
          remotePlaintext: true,
        },
      };
      await auth.events.recordReport(report);
      auth.instances.answered(
        {
          ...{ service: 'inventory', instance: Buffer.alloc(16, 3), epoch: Buffer.alloc(16, 9), applied: 0n },
          ...{ entryIdAtApplied: Buffer.alloc(0), keySetVersion: Buffer.alloc(0), seen: [], fences: [] },
          ...{ heldTo: 0n, heldDigest: Buffer.alloc(0) },
        },
        systemClock.monotonicMs(),
        {
          ...{ epoch: Buffer.alloc(16, 9), head: 5n, headEntryId: Buffer.alloc(16), horizon: new Date(0) },
          ...{
            leaseMs: 60_000,
            epochNumber: 1n,
            fenceWanted: 0n,
            entries: [],
            pull: false,
            keySet: undefined,
            broadcastKeys: [],
          },
        },
      );
      // This process's own clock is ten seconds behind.
      const clock: Clock = { ...systemClock, wallMs: () => Date.now() - 10_000 };
      const gather = createReviewFacts({
        store: createReviewStore(auth.database),
        settings: reviewSettingsOf(config),
        instances: auth.instances,
        passwords: auth.passwords,
        clock,
      });
      const { findings, lookedAt } = await createSecurityReview(gather).run();
      const reasons = linesOf(findings).map((line) => line.replace(/ [\w-]{22}$| [0-9a-f]{32}$/, ' …'));
      expect(reasons).to.deep.equal([
        'critical BROKER_OPEN broker.example:4222',
        'critical BROKER_PLAINTEXT broker.example:4222',
        'critical CLOCK_DIFFERS auth',
        'critical CLOCK_DIFFERS payment 02',
        'critical DATABASE_PLAINTEXT db.example',
        'critical KEY_UNSAFE exponent-1',
        'critical KEY_UNSAFE infinity',
        'critical PASSWORD_GUESSABLE admin',
        'critical PLAINTEXT_LISTENER auth 0.0.0.0:50051',
        'critical PLAINTEXT_LISTENER auth 0.0.0.0:51051',
        'critical PLAINTEXT_LISTENER payment 02',
        'note ACCESS_TOKEN_LONG legacy',
        'note ADMIN_SINGLE admin',
        'note LOG_TALKATIVE PORTCULLIS_LOG_LEVEL',
        'note PASSWORD_FROM_BOOTSTRAP carol',
        'note REFLECTION_ON PORTCULLIS_REFLECTION',
        'weak ACCESS_TOKEN_LONG PORTCULLIS_ACCESS_TOKEN_SECONDS',
        'weak ALGORITHM_WEAK RS256',
        'weak CLIENT_SECRET old',
        'weak EVENTS_LOST security events',
        'weak INSTANCE_BEHIND inventory …',
        'weak ISSUER_SYMMETRIC legacy',
        'weak KEY_OLD …',
        'weak KEY_ROTATION_SELDOM PORTCULLIS_KEY_ROTATION_DAYS',
        'weak KEY_SMALL short',
        'weak LEASE_LONG PORTCULLIS_LEASE_MS',
        'weak LOGIN_LIMIT_LOOSE PORTCULLIS_LOGIN_FAILURES_PER_NAME',
        'weak LOGIN_LIMIT_LOOSE PORTCULLIS_LOGIN_FAILURES_PER_PEER',
        'weak PASSWORD_FROM_BOOTSTRAP admin',
        'weak PLAINTEXT_ALLOWED PORTCULLIS_PLAINTEXT',
      ]);
      expect(lookedAt).to.include.members(['clocks', 'passwords', 'signing keys']);
      expect(JSON.stringify(findings)).to.not.match(/secret@|admin123|xxxx/);
    });

    it('runs once for concurrent calls', async () => {
      let gathered = 0;
      const review = createSecurityReview(() => {
        gathered += 1;
        return Promise.resolve(GOOD);
      });
      await Promise.all([review.run(), review.run(), review.run()]);
      await review.run();
      expect(gathered).to.equal(2);
    });

    it('no longer names a bootstrap password that was changed', async () => {
      const user = await addUser(auth, ['security']);
      await logIn(auth, user);
      await auth.accountChanges.changePassword({
        ...{ userId: user.userId, oldPassword: user.password, newPassword: 'quite another one', peer: '' },
      });
      const settings = { ...GOOD.settings, bootstrapUsers: [user.username] };
      const parts = { instances: auth.instances, passwords: auth.passwords, clock: systemClock };
      const gather = createReviewFacts({ store: createReviewStore(auth.database), settings, ...parts });
      const findings = findingsOf(await gather());
      expect(findings.filter(({ subject }) => subject === user.username)).to.be.empty;
    });
  });
});
