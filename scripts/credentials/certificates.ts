/** The certificate authority of a deployment and the certificates of its parts, made with the `openssl` program. */

import { execFile } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { exists } from '../system/files.js';
import { SystemError } from '../system/system-error.js';
import { makeTemporaryFolder } from '../system/temporary-folder.js';
import type { CredentialFolder } from './folder.js';
import { PARTIES, type Party } from './parties.js';

const AUTHORITY_DAYS = 3_650;
const CERTIFICATE_DAYS = 397;
const NEW_KEY_PARAMETERS = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'];
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc'];

/** Makes the missing certificates: `ca.crt`, and for each part `PART.crt` and `PART.key`. */
export async function makeCertificates(
  folder: CredentialFolder,
  names: Partial<Record<Party, readonly string[]>>,
): Promise<void> {
  const scratch = await makeTemporaryFolder();
  try {
    await makeAuthority(folder, scratch.path);
    for (const [party, own] of Object.entries(PARTIES)) {
      const all = [...own, ...(names[party as Party] ?? [])];
      await makeCertificate(folder, scratch.path, { party, names: all });
    }
  } finally {
    await scratch.remove();
  }
}

async function makeAuthority(folder: CredentialFolder, scratch: string): Promise<void> {
  const [cert, key] = [join(scratch, 'ca.crt'), join(scratch, 'ca.key')];
  await folder.readOrMake('ca.key', async () => {
    await openssl(['genpkey', ...NEW_KEY_PARAMETERS, '-out', key]);
    return await readFile(key, 'utf8');
  });
  // From the key that there is: a certificate that was lost can be made again, and what the key has issued stays valid.
  await folder.readOrMake('ca.crt', async () => {
    await openssl([
      ...['req', '-x509', '-key', folder.file('ca.key'), '-out', cert, '-days', String(AUTHORITY_DAYS)],
      ...['-subj', '/CN=Portcullis deployment CA', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    ]);
    return await readFile(cert, 'utf8');
  });
}

/** A part without a certificate gets a new key as well. To renew a certificate, remove its file and run the command again. */
async function makeCertificate(
  folder: CredentialFolder,
  scratch: string,
  { party, names }: { readonly party: string; readonly names: readonly string[] },
): Promise<void> {
  const [cert, key] = [`${party}.crt`, `${party}.key`];
  const at = (name: string): string => join(scratch, name);
  if (!(await exists(folder.file(cert)))) {
    await rm(folder.file(key), { force: true });
    const addresses = names.includes('localhost') ? ['IP:127.0.0.1', 'IP:::1'] : [];
    const extensions = [
      `subjectAltName=${[...names.map((name) => `DNS:${name}`), ...addresses].join(',')}`,
      'basicConstraints=critical,CA:FALSE',
      'keyUsage=critical,digitalSignature',
      // Services show them to each other, too.
      'extendedKeyUsage=serverAuth,clientAuth',
    ];
    await writeFile(at('extensions'), `${extensions.join('\n')}\n`);
    await openssl([
      ...['req', '-new', ...NEW_KEY, '-keyout', at(key), '-out', at('request'), '-subj', `/CN=${party}`],
    ]);
    await openssl([
      ...[
        'x509',
        '-req',
        '-in',
        at('request'),
        '-CA',
        folder.file('ca.crt'),
        '-CAkey',
        folder.file('ca.key'),
      ],
      ...['-CAserial', at('serial'), '-CAcreateserial', '-days', String(CERTIFICATE_DAYS)],
      ...['-extfile', at('extensions'), '-out', at(cert)],
    ]);
  }
  await folder.readOrMake(key, () => readFile(at(key), 'utf8'));
  await folder.readOrMake(cert, () => readFile(at(cert), 'utf8'));
}

async function openssl(words: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)('openssl', words);
  } catch (cause) {
    const { code, stderr = '' } = cause as { code?: unknown; stderr?: string };
    const why = code === 'ENOENT' ? 'install the program openssl' : stderr.trim();
    throw new SystemError(`Certificates cannot be made: ${why}`, { cause });
  }
}
