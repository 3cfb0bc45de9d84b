/** The review: finds what is weak in the present set-up, by stated rules. */

import { checkAdmins, checkClients, checkIssuers, checkPasswords } from './review-accounts.js';
import { checkLimits, checkListeners, checkServers, checkShown } from './review-exposure.js';
import type { Grade, ReviewFacts, ReviewFinding } from './review-findings.js';
import { checkAlgorithms, checkKeys, checkLifetimes } from './review-keys.js';
import { checkClocks, checkInstances, checkRecord } from './review-operation.js';

/** The result of a review. */
interface ReviewReport {
  readonly findings: readonly ReviewFinding[];
  readonly reviewTime: Date;
  readonly lookedAt: readonly string[];
}

/** Reviews the set-up. */
export interface SecurityReview {
  /** Runs all checks. Calls that arrive while a review is under way share its result. */
  run(): Promise<ReviewReport>;
}

/** Creates the review; `gather` reads its input. */
export function createSecurityReview(gather: () => Promise<ReviewFacts>): SecurityReview {
  let underWay: Promise<ReviewReport> | undefined;
  const review = async (): Promise<ReviewReport> => {
    const facts = await gather();
    return { findings: findingsOf(facts), reviewTime: facts.now, lookedAt: Object.keys(CHECKS) };
  };
  return {
    run: () => {
      underWay ??= review().finally(() => {
        underWay = undefined;
      });
      return underWay;
    },
  };
}

const ORDER: Readonly<Record<Grade, number>> = { critical: 0, weak: 1, note: 2 };

/** All findings, the most severe first. */
export function findingsOf(facts: ReviewFacts): readonly ReviewFinding[] {
  return Object.values(CHECKS)
    .flatMap((check) => check(facts))
    .sort((one, other) => ORDER[one.grade] - ORDER[other.grade]);
}

type Check = (facts: ReviewFacts) => readonly ReviewFinding[];

const CHECKS: Readonly<Record<string, Check>> = {
  'signing algorithms': checkAlgorithms,
  'signing keys': checkKeys,
  lifetimes: checkLifetimes,
  'limits on guessing': checkLimits,
  'plaintext listeners': checkListeners,
  'broker and database': checkServers,
  'what is shown': checkShown,
  clients: checkClients,
  'other issuers': checkIssuers,
  administrators: checkAdmins,
  passwords: checkPasswords,
  clocks: checkClocks,
  instances: checkInstances,
  'the record': checkRecord,
};
