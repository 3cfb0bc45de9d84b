/** `portcullis review` and `portcullis doctor`. */

import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { type Finding, FindingGrade, SecurityServiceClient } from '../../gen/auth/v1/security_service.js';
import type { Cli } from '../cli.js';
import { instanceName } from '../directory.js';
import { CommandError, describeFailure, EXIT } from '../failures.js';
import { clockWarning, openSession, type Session } from '../session.js';
import { tableOf } from '../tables.js';
import { note, type Terminal, writeResult } from '../terminal.js';
import { instancesOf, standingOf } from './instances.js';

const GRADES: Readonly<Record<number, 'critical' | 'weak' | 'note'>> = {
  [FindingGrade.FINDING_GRADE_CRITICAL]: 'critical',
  [FindingGrade.FINDING_GRADE_WEAK]: 'weak',
  [FindingGrade.FINDING_GRADE_NOTE]: 'note',
};

export function addDoctorCommands(program: Command, cli: Cli): void {
  program
    .command('review')
    .description('review keys, listeners, clocks, instances and passwords of the running system')
    .action(() => review(cli));
  program
    .command('doctor')
    .description(
      'check what the commands need: the stored session, the connection, the clock, and the system behind it',
    )
    .action(() => doctor(cli));
}

async function findingsOf(session: Session): Promise<readonly Finding[]> {
  const client = session.client(SecurityServiceClient);
  const { findings } = await session.call(client.reviewSecurity.bind(client), {});
  return findings;
}

async function review(cli: Cli): Promise<void> {
  await cli.inSession(async (session, terminal) => {
    note(terminal, 'Reviewing the system; this may take a minute …');
    const findings = (await findingsOf(session)).map((one) => ({
      ...one,
      grade: GRADES[one.grade] ?? 'note',
    }));
    writeResult(terminal, { findings }, () =>
      findings.length === 0
        ? 'Nothing is weak.'
        : findings
            .map(
              (one) =>
                `${one.grade.toUpperCase().padEnd(9)} ${one.reason} (${one.subject})\n  ${one.fact}${one.remedy === '' ? '' : `\n  → ${one.remedy}`}`,
            )
            .join('\n\n'),
    );
    if (findings.some(({ grade }) => grade === 'critical')) {
      throw new CommandError('There are critical findings.', { exitCode: EXIT.checkFailed });
    }
  });
}

/** One check of the doctor. */
interface Check {
  readonly check: string;
  readonly isGood: boolean;
  readonly fact: string;
}

async function doctor(cli: Cli): Promise<void> {
  const checks: Check[] = [];
  /** Makes a check, and says whether it succeeded. */
  const attempt = async (check: string, work: () => Promise<string>): Promise<boolean> => {
    try {
      checks.push({ check, isGood: true, fact: await work() });
      return true;
    } catch (error) {
      checks.push({ check, isGood: false, fact: describeFailure(error).text.replaceAll('\n', ' ') });
      return false;
    }
  };
  const { store } = cli;
  await attempt('file', async () => {
    const { mode } = await stat(store.file);
    if ((mode & 0o077) !== 0)
      throw new CommandError(`others can read ${store.file}: chmod 600 ${store.file}`);
    return `${store.file}, only you can read it`;
  });
  const isLoggedIn = await attempt('session', async () => {
    const { name, context } = await store.load(cli.context());
    return `${context.username} at ${context.address} (context ${name}${context.caFile === undefined ? ', plaintext' : ', TLS'})`;
  });
  if (isLoggedIn) await checkSystem(cli, attempt);
  tell(cli.terminal(), checks);
}

async function checkSystem(
  cli: Cli,
  attempt: (check: string, work: () => Promise<string>) => Promise<boolean>,
): Promise<void> {
  let session: Session | undefined;
  try {
    const isOpen = await attempt('connection', async () => {
      session = await openSession(cli.store, cli.context());
      await session.renew();
      return 'auth answers, and the session is open';
    });
    if (!isOpen || session === undefined) return;
    const open = session;
    await attempt('clock', async () => {
      const warning = clockWarning(await open.token());
      if (warning !== undefined) throw new CommandError(warning);
      return "this machine's clock agrees with that of auth";
    });
    await attempt('instances', async () => {
      const instances = await instancesOf(open);
      const stale = instances.filter((one) => standingOf(one) === 'stale').map(instanceName);
      if (stale.length > 0) throw new CommandError(`${stale.join(', ')} refuse calls: their leases are over`);
      return `${instances.filter((one) => standingOf(one) === 'serving').length} serve, with current lists`;
    });
    await attempt('review', async () => {
      const findings = await findingsOf(open);
      const critical = reasonsOf(findings, FindingGrade.FINDING_GRADE_CRITICAL);
      const weak = reasonsOf(findings, FindingGrade.FINDING_GRADE_WEAK);
      if (critical !== '') throw new CommandError(`critical: ${critical} (portcullis review)`);
      return weak === '' ? 'nothing critical or weak' : `nothing critical; weak: ${weak} (portcullis review)`;
    });
  } finally {
    session?.close();
  }
}

/** The reasons of one grade, each once. */
function reasonsOf(findings: readonly Finding[], grade: FindingGrade): string {
  const reasons = findings.filter((one) => one.grade === grade).map(({ reason }) => reason);
  return [...new Set(reasons)].join(', ');
}

function tell(terminal: Terminal, checks: readonly Check[]): void {
  const isGood = checks.every((check) => check.isGood);
  writeResult(terminal, { good: isGood, checks }, () =>
    tableOf(
      ['', 'CHECK', 'FACT'],
      checks.map(({ check, isGood: good, fact }) => [
        { text: good ? '✓' : '✗', tone: good ? 'good' : 'bad' },
        check,
        fact,
      ]),
      terminal,
    ),
  );
  if (!isGood) throw new CommandError('A check has failed.', { exitCode: EXIT.checkFailed });
}
