/** The rules for anomalies: when each fires, for which subject, and how often. */

import { expect } from 'chai';
import fc from 'fast-check';
import type { AnomalyRule, SecurityEvent } from '../../../../services/auth/records/security-events.js';
import { ANOMALY_RULES } from '../../../../services/auth/records/security-events.js';
import type { ReportedCaller, ServiceReport } from '../../../../services/auth/records/service-reports.js';
import {
  type AnomalyRules,
  createAnomalyRules,
  FAR_ABOVE_FACTOR,
  type Finding,
  SUBJECTS_PER_RULE_MAX,
  THRESHOLDS,
  USUAL_LEARNED_SECONDS,
} from '../../../../services/auth/security/anomaly-rules.js';

const START_MS = Date.UTC(2026, 0, 1);
/** Longer than the window of any rule. */
const ROUND_SECONDS = 7 * 86_400;
const ALICE: ReportedCaller = {
  issuer: '',
  subject: 'alice',
  clientId: 'direct',
  sessionId: 'session-of-alice',
  delegated: false,
};

describe('the rules for anomalies', () => {
  let rules: AnomalyRules;
  let count = 0;

  beforeEach(() => {
    rules = createAnomalyRules();
  });

  const eventAt = (
    seconds: number,
    event: Pick<SecurityEvent, 'type' | 'subject' | 'network' | 'details'>,
  ): readonly Finding[] => {
    count += 1;
    const time = new Date(START_MS + seconds * 1000);
    const rest = { eventId: String(count), actor: '', reason: '', source: 'auth', time };
    return rules.observe({ time, event: { ...event, ...rest } as SecurityEvent });
  };
  const failure = (seconds: number, name: string, network: string): readonly Finding[] =>
    eventAt(seconds, {
      type: 'login-failed',
      subject: { userId: name },
      network,
      details: { what: 'login' },
    });
  const reportAt = (
    seconds: number,
    what: Partial<Pick<ServiceReport, 'refused' | 'admitted' | 'service' | 'instance'>>,
  ): readonly Finding[] => {
    const time = new Date(START_MS + seconds * 1000);
    return rules.observe({
      time,
      report: {
        ...{ reportId: '', source: 'inventory', service: 'inventory', instance: '1' },
        ...{ beginTime: time, endTime: time, refused: [], admitted: [], refusedLeftOut: 0 },
        ...{ principalsLeftOut: 0, forgedBroadcasts: 0, lostReports: 0, plaintext: false },
        remotePlaintext: false,
        ...what,
      },
    });
  };
  const refused = (seconds: number, reason: string, calls: number, caller?: ReportedCaller) =>
    reportAt(seconds, { refused: [{ reason, network: '203.0.113.1', caller, calls }] });
  const admitted = (seconds: number, calls: number, networks: readonly string[], caller = ALICE) =>
    reportAt(seconds, { admitted: [{ caller, calls, networks }] });
  const rulesOf = (findings: readonly Finding[]): AnomalyRule[] =>
    findings.map(({ details }) => details.rule);

  it('have one threshold each, in one table', () => {
    expect(Object.keys(THRESHOLDS)).to.have.members([...ANOMALY_RULES]);
    for (const [rule, { count: threshold, windowSeconds, quietSeconds }] of Object.entries(THRESHOLDS)) {
      expect(threshold, rule).to.be.at.least(1);
      expect(quietSeconds, rule).to.be.at.least(windowSeconds);
    }
  });

  describe('for a guessed name', () => {
    const { count: threshold, windowSeconds, quietSeconds } = THRESHOLDS['name-guessed'];

    it('fire once at the threshold, with the name and the networks', () => {
      const findings: Finding[] = [];
      for (let time = 0; time < 3 * threshold; time += 1) {
        findings.push(...failure(time, 'alice', `198.51.100.${time % 2}`));
        if (time === threshold - 2) expect(findings).to.be.empty;
      }
      expect(findings).to.have.length(1);
      expect(findings[0]?.subject).to.deep.equal({ userId: 'alice' });
      expect(findings[0]?.details).to.deep.equal({
        ...{ rule: 'name-guessed', count: threshold, threshold, windowSeconds },
        evidence: ['from 198.51.100.0', 'from 198.51.100.1'],
      });
    });

    it('do not fire for as many failures in more than the window', () => {
      for (let time = 0; time < 5 * threshold; time += 1) {
        expect(failure((time * windowSeconds) / (threshold - 2), 'alice', '198.51.100.1')).to.be.empty;
      }
    });

    it('do not fire again while it continues, and fire again after the quiet time', () => {
      let seconds = 0;
      const guess = (times: number): AnomalyRule[] => {
        const found: Finding[] = [];
        for (let time = 0; time < times; time += 1) {
          seconds += 10;
          found.push(...failure(seconds, 'alice', '198.51.100.1'));
        }
        return rulesOf(found);
      };
      expect(guess(threshold)).to.deep.equal(['name-guessed']);
      expect(guess((4 * quietSeconds) / 10)).to.be.empty;
      seconds += quietSeconds - 10 * threshold - 20;
      expect(guess(threshold)).to.be.empty;
      seconds += quietSeconds + windowSeconds;
      expect(guess(threshold)).to.deep.equal(['name-guessed']);
    });

    it('count names separately', () => {
      for (let time = 0; time < 20 * threshold; time += 1) {
        // Many users of one network, as in an office, but few names within the window of the other rule.
        expect(failure(time * 25, `user-${time % 12}`, '192.0.2.1')).to.be.empty;
      }
    });
  });

  it('for sprayed names count each name once per network', () => {
    const { count: threshold } = THRESHOLDS['names-sprayed'];
    const found: Finding[] = [];
    for (let time = 0; time < threshold - 1; time += 1) {
      found.push(...failure(time, `user-${time}`, '198.51.100.1'));
      found.push(...failure(time, `user-${time}`, '198.51.100.1'));
      found.push(...failure(time, `other-${time}`, '198.51.100.2'));
    }
    expect(found).to.be.empty;
    found.push(...failure(threshold, 'one more', '198.51.100.1'));
    expect(rulesOf(found)).to.deep.equal(['names-sprayed']);
    expect(found[0]?.subject).to.deep.equal({ network: '198.51.100.1' });
    expect(failure(threshold, 'one more', '')).to.be.empty;
  });

  it('for a reused refresh token fire at once, and once per session', () => {
    const subject = { userId: 'alice', sessionId: 's1' };
    const reuse = { type: 'refresh-token-reused', subject, network: '198.51.100.1', details: {} } as const;
    const [found] = eventAt(0, reuse);
    expect(found?.subject).to.deep.equal(subject);
    expect(eventAt(1, reuse)).to.be.empty;
    expect(rulesOf(eventAt(2, { ...reuse, subject: { sessionId: 's2' } }))).to.deep.equal(['refresh-reused']);
  });

  describe('for a session in many networks', () => {
    it('sum the reports of several instances', () => {
      const found = [
        ...admitted(0, 5, ['198.51.100.1', '198.51.100.2']),
        ...reportAt(5, {
          service: 'payment',
          instance: '2',
          admitted: [{ caller: ALICE, calls: 1, networks: ['198.51.100.3'] }],
        }),
      ];
      expect(found).to.be.empty;
      const [finding] = admitted(10, 1, ['198.51.100.4']);
      expect(finding?.details.rule).to.equal('session-in-many-networks');
      expect(finding?.subject).to.deep.equal({ userId: 'alice', sessionId: 'session-of-alice' });
      expect(finding?.details.evidence).to.have.length(4);
      expect(admitted(15, 1, ['198.51.100.5'])).to.be.empty;
    });

    it('ignore services that act for the user, and networks outside the window', () => {
      const delegated = { ...ALICE, delegated: true };
      for (let time = 0; time < 12; time += 1) {
        expect(admitted(time * 5, 1, [`192.0.2.${time}`], delegated)).to.be.empty;
        expect(admitted(time * 30, 1, [`198.51.100.${time}`])).to.be.empty;
      }
    });
  });

  it('for a revoked token fire for many refusals in a short time, but not for those of a slow client', () => {
    const { count: threshold } = THRESHOLDS['revoked-token-hammered'];
    expect(refused(0, 'TOKEN_REVOKED', threshold - 1, ALICE)).to.be.empty;
    expect(refused(120, 'TOKEN_REVOKED', threshold - 1, ALICE)).to.be.empty;
    const [finding] = refused(125, 'TOKEN_REVOKED', 1, ALICE);
    expect(finding?.subject).to.deep.equal({ userId: 'alice', sessionId: 'session-of-alice' });
    expect(finding?.details.rule).to.equal('revoked-token-hammered');
    for (const reason of ['TOKEN_EXPIRED', 'SCOPE_MISSING', 'TOKEN_MISSING']) {
      expect(refused(130, reason, 1000, ALICE), reason).to.be.empty;
    }
  });

  it('for invalid tokens name the network, because no caller is known', () => {
    const { count: threshold } = THRESHOLDS['invalid-tokens-hammered'];
    expect(refused(0, 'TOKEN_INVALID', threshold - 1)).to.be.empty;
    const [finding] = refused(1, 'TOKEN_INVALID', 1);
    expect(finding?.subject).to.deep.equal({ network: '203.0.113.1' });
  });

  describe('for a principal far above its usual rate', () => {
    /** Calls at a steady rate, a report every five seconds. */
    const steady = (fromSeconds: number, toSeconds: number, perSecond: number): AnomalyRule[] => {
      const found: Finding[] = [];
      for (let at = fromSeconds; at < toSeconds; at += 5)
        found.push(...admitted(at, perSecond * 5, ['192.0.2.1']));
      return rulesOf(found);
    };

    it('fire when the rate of a known principal rises far above usual', () => {
      expect(steady(0, 2 * USUAL_LEARNED_SECONDS, 1)).to.be.empty;
      const burst = 2 * USUAL_LEARNED_SECONDS;
      expect(steady(burst, burst + 60, FAR_ABOVE_FACTOR - 1)).to.be.empty;
      expect(steady(burst + 60, burst + 180, 5 * FAR_ABOVE_FACTOR)).to.deep.equal(['far-above-usual']);
    });

    it('do not fire for a principal that is always busy, nor before its usual rate is known', () => {
      expect(steady(0, USUAL_LEARNED_SECONDS - 5, 5000)).to.be.empty;
      expect(steady(USUAL_LEARNED_SECONDS, 4 * USUAL_LEARNED_SECONDS, 5000)).to.be.empty;
    });

    it('do not fire for few calls, however unusual', () => {
      expect(steady(0, USUAL_LEARNED_SECONDS, 1)).to.be.empty;
      const later = 100 * USUAL_LEARNED_SECONDS;
      expect(steady(later, later + 600, 9)).to.be.empty;
    });
  });

  it('count late reports at the time that they cover, and ignore reports that are too old', () => {
    const { count: threshold } = THRESHOLDS['invalid-tokens-hammered'];
    expect(refused(1000, 'TOKEN_INVALID', 1)).to.be.empty;
    // Reports that the broker delayed: they exceed the threshold within a minute only by their time of arrival.
    for (let seconds = 0; seconds < 900; seconds += 60) {
      expect(refused(seconds, 'TOKEN_INVALID', threshold - 1)).to.be.empty;
    }
  });

  it('remember a bounded number of subjects, and continue when there are more', function () {
    this.timeout(180_000);
    for (let index = 0; index < SUBJECTS_PER_RULE_MAX + 100; index += 1) {
      failure(0, `user-${index}`, '');
    }
    const found: Finding[] = [];
    for (let time = 0; time < 20; time += 1) found.push(...failure(1, 'alice', ''));
    expect(rulesOf(found)).to.deep.equal(['name-guessed']);
  });

  it('find the same in the same order, for any input', () => {
    const events = fc.array(fc.tuple(fc.nat(2000), fc.nat(5), fc.nat(20)), { maxLength: 300 });
    // The same two for all rounds, because creating them takes longer than a round.
    const pair = [createAnomalyRules(), createAnomalyRules()];
    let round = 0;
    fc.assert(
      fc.property(events, (all) => {
        round += 1;
        const [findings, again] = pair.map((one) => {
          rules = one;
          const found = all.flatMap(([seconds, name, network]) =>
            failure(
              round * ROUND_SECONDS + seconds,
              `user-${round}-${name}`,
              `10.${round >> 8}.${round & 255}.${network}`,
            ),
          );
          return JSON.stringify(found);
        });
        expect(findings).to.equal(again);
      }),
      { numRuns: 50 },
    );
  });
});
