/** `npm run review`: prints weak settings and keys of a running system; exits 1 when a finding is critical. */

import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { Command } from 'commander';
import { AuthServiceClient } from '../proto/gen/auth/v1/auth_service.js';
import { FindingGrade, SecurityServiceClient } from '../proto/gen/auth/v1/security_service.js';
import { ask } from './system/calls.js';
import { DATA_FOLDER_DEFAULT } from './system/project.js';

/** Auth tries common passwords on privileged users, which takes a while. */
const REVIEW_TIMEOUT_MS = 60_000;
const GRADES = {
  [FindingGrade.FINDING_GRADE_CRITICAL]: 'CRITICAL',
  [FindingGrade.FINDING_GRADE_WEAK]: 'weak',
  [FindingGrade.FINDING_GRADE_NOTE]: 'note',
} as const;

interface Options {
  readonly address: string;
  readonly ca?: string;
  readonly tokenFile?: string;
}

const options = new Command('npm run review --')
  .description('Prints weak settings and keys of a running system.')
  .option('--address <host:port>', 'address of auth', '127.0.0.1:50051')
  .option('--ca <file>', 'CA certificate of auth (PEM); plaintext without it')
  .option(
    '--token-file <file>',
    'file with an access token that has the scope auth.security.read; without it, the demo user olga logs in',
  )
  .parse()
  .opts<Options>();

try {
  process.exitCode = (await review(options)) ? 0 : 1;
} catch (error) {
  const { reason, message } = errorOf(error);
  console.error(`The review failed: ${message === '' ? String(error) : `${reason} ${message}`}`);
  process.exitCode = 1;
}

async function review({ address, ca, tokenFile }: Options): Promise<boolean> {
  const channel = ca === undefined ? credentials.createInsecure() : credentials.createSsl(await readFile(ca));
  const auth = new AuthServiceClient(address, channel);
  const security = new SecurityServiceClient(address, channel);
  try {
    const token = tokenFile === undefined ? await logIn(auth) : (await readFile(tokenFile, 'utf8')).trim();
    console.log('Reviewing the system; this may take a minute …');
    const { findings, lookedAt } = await ask(
      security.reviewSecurity.bind(security),
      {},
      { token, timeoutMs: REVIEW_TIMEOUT_MS },
    );
    console.log(`Reviewed: ${lookedAt.join(', ')}.\n`);
    for (const { grade, reason, subject, fact, remedy } of findings) {
      const name = GRADES[grade as keyof typeof GRADES] ?? 'unknown';
      console.log(`${name.padEnd(8)} ${reason} (${subject})\n         ${fact}\n         → ${remedy}\n`);
    }
    const count = (wanted: FindingGrade): number => findings.filter(({ grade }) => grade === wanted).length;
    const critical = count(FindingGrade.FINDING_GRADE_CRITICAL);
    console.log(
      `${critical} critical, ${count(FindingGrade.FINDING_GRADE_WEAK)} weak, ${count(FindingGrade.FINDING_GRADE_NOTE)} worth knowing.`,
    );
    return critical === 0;
  } finally {
    auth.close();
    security.close();
  }
}

/** Logs in as the demo's security officer, with the password that `npm start` has created. */
async function logIn(auth: AuthServiceClient): Promise<string> {
  const folder = resolve(process.env['PORTCULLIS_DATA_DIR'] || DATA_FOLDER_DEFAULT);
  const file = join(folder, 'secrets', 'bootstrap.json');
  const { users } = JSON.parse(await readFile(file, 'utf8')) as {
    users: { username: string; password: string }[];
  };
  const olga = users.find(({ username }) => username === 'olga');
  if (olga === undefined) throw new Error(`${file} has no user olga: use --token-file`);
  const request = { ...olga, audiences: [], scopes: ['auth.security.read'], deviceName: 'review' };
  return (await ask(auth.login.bind(auth), request)).accessToken;
}
