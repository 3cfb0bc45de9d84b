/** The guarded files, and the tests that must notice a change in them. */

/** Files that are mutated together, with the tests that run against them in one process. */
export interface Target {
  readonly name: string;
  /** Files, or folders with a slash at their end, from the root. */
  readonly sources: readonly string[];
  /** Test files, or folders of tests. */
  readonly tests: readonly string[];
  readonly needsDatabase?: boolean;
}

const GUARD_TESTS = ['test/interceptors/'];

/** Every target, by area. */
export const TARGETS: readonly Target[] = [
  { name: 'token', sources: ['interceptors/src/token/'], tests: GUARD_TESTS },
  // The fences are rows of a database.
  { name: 'server', needsDatabase: true, sources: ['interceptors/src/server/'], tests: GUARD_TESTS },
  {
    name: 'revocation',
    needsDatabase: true,
    sources: ['interceptors/src/revocation/'],
    tests: ['test/interceptors/revocation/'],
  },
  {
    name: 'sessions',
    needsDatabase: true,
    sources: ['services/auth/sessions/', 'services/auth/security/throttle.ts'],
    tests: [
      'test/services/auth/sessions/',
      'test/services/auth/revocation/session-search.test.ts',
      'test/services/auth/revocation/revocation-groups.test.ts',
      'test/services/auth/security/throttle.test.ts',
      'test/services/auth/security/events.test.ts',
      'test/services/auth/accounts/account-changes.test.ts',
      'test/services/auth/tokens/certificates.test.ts',
      'test/services/auth/housekeeping.test.ts',
    ],
  },
  {
    name: 'exchange',
    needsDatabase: true,
    sources: ['services/auth/tokens/exchange.ts'],
    tests: [
      'test/services/auth/tokens/',
      'test/services/auth/policy/policy-races.test.ts',
      'test/services/auth/policy/client-rights.test.ts',
    ],
  },
  {
    name: 'keys',
    needsDatabase: true,
    sources: ['services/auth/keys/'],
    tests: [
      'test/services/auth/keys/',
      // The keys of receipts.
      'test/services/auth/evidence/',
      'test/services/auth/adapters/well-known.test.ts',
      'test/services/auth/revocation/epochs.test.ts',
    ],
  },
  {
    name: 'clients',
    needsDatabase: true,
    sources: ['services/auth/clients/'],
    tests: [
      'test/services/auth/clients/',
      'test/services/auth/policy/client-rights.test.ts',
      'test/services/auth/policy/policy-races.test.ts',
      'test/services/auth/tokens/service-tokens.test.ts',
      'test/services/auth/tokens/certificates.test.ts',
    ],
  },
];

/** Tests that are left out: they start processes, compile, or take too long to run once for each mutant. */
export const TESTS_LEFT_OUT: readonly string[] = [
  'test/interceptors/readme.test.ts',
  'test/interceptors/reports/report-memory.test.ts',
  'test/interceptors/server/many-streams.test.ts',
  'test/services/auth/main.test.ts',
  'test/services/auth/operator-commands.test.ts',
  'test/services/auth/migrations.test.ts',
  'test/services/auth/tokens/other-verifiers.test.ts',
  'test/services/auth/sessions/session-races.test.ts',
  'test/services/auth/keys/key-rotation.test.ts',
];
