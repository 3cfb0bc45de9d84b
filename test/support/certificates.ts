/** Certificate authorities and certificates for tests, made with the `openssl` program. */

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc'];

/** A certificate and its key, as files. */
export interface Identity {
  readonly certFile: string;
  readonly keyFile: string;
}

/** The contents of a certificate. */
interface IssueOptions {
  /** Alternative names. Default: `localhost` and both loopback addresses. */
  readonly names?: readonly string[];
  /** Counted from now; negative for an expired certificate. */
  readonly days?: number;
}

/** An authority of a test. */
export interface Authority {
  readonly certFile: string;
  issue(options?: IssueOptions): Promise<Identity>;
}

/** The names under which tests reach this machine. */
export const THIS_MACHINE = ['DNS:localhost', 'IP:127.0.0.1', 'IP:::1'];

/** Makes an authority that leaves its files in a folder. */
export async function createAuthority(folder: string): Promise<Authority> {
  const path = (name: string): string => join(folder, `${name}-${randomUUID()}.pem`);
  const certFile = path('authority');
  const caKeyFile = path('authority-key');
  const subject = ['-subj', `/CN=test authority ${randomUUID()}`];
  await openssl('req', '-x509', ...NEW_KEY, '-keyout', caKeyFile, '-out', certFile, '-days', '2', ...subject);

  async function issue({ names = THIS_MACHINE, days = 1 }: IssueOptions = {}): Promise<Identity> {
    const identity = { certFile: path('cert'), keyFile: path('key') };
    const requestFile = path('request');
    const extensionFile = path('extensions');
    await writeFile(extensionFile, `subjectAltName=${names.join(',')}\n`);
    await openssl(
      'req',
      '-new',
      ...NEW_KEY,
      '-keyout',
      identity.keyFile,
      '-out',
      requestFile,
      '-subj',
      '/CN=test',
    );
    const signed = [
      '-CA',
      certFile,
      '-CAkey',
      caKeyFile,
      '-set_serial',
      `0x${randomUUID().replaceAll('-', '')}`,
    ];
    const rest = ['-days', String(days), '-extfile', extensionFile, '-out', identity.certFile];
    await openssl('x509', '-req', '-in', requestFile, ...signed, ...rest);
    return identity;
  }
  return { certFile, issue };
}

async function openssl(...words: string[]): Promise<void> {
  await run('openssl', words);
}
