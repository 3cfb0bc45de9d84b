/** Credentials for the broker out of files: the seed of an nkey, or the JWT and the seed of a user. */

import { readFileSync } from 'node:fs';
import { type Authenticator, jwtAuthenticator, nkeyAuthenticator, nkeys } from 'nats';

/** Longest file with credentials, in bytes. */
const CREDENTIALS_BYTES_MAX = 64 * 1024;

/** The seed of a user's nkey, in base32. */
const USER_SEED = /\bSU[A-Z2-7]{56}\b/;

/** The JWT of a user, between the marks that `nsc` writes. */
const USER_JWT = /-{3,}BEGIN NATS USER JWT-{3,}\s*([\w-]+\.[\w-]+\.[\w-]+)\s*-{3,}\s*END NATS USER JWT-{3,}/;

/** Files with credentials for the broker. At most one of them is used. */
export interface BrokerCredentialFiles {
  /** The seed of the user's nkey, `SU…`. */
  readonly nkeyFile?: string | undefined;
  /** The user's JWT and the seed of its nkey, as `nsc` writes them. */
  readonly credsFile?: string | undefined;
}

/** A fault of one file: the end of a sentence that begins with the name of its setting. */
interface BrokerCredentialFault {
  readonly file: keyof BrokerCredentialFiles;
  readonly problem: string;
}

/** A file with credentials cannot be read, or contains something else. Never repeats a credential. */
export class BrokerCredentialsError extends Error {
  constructor(problem: string) {
    super(`the file with the credentials for the broker ${problem}`);
    this.name = 'BrokerCredentialsError';
  }
}

type Read<T> = { readonly value: T } | { readonly problem: string };

/**
 * Reads the credentials.
 *
 * @returns undefined when no file is named
 * @throws BrokerCredentialsError when the file cannot be used
 */
export function readBrokerCredentials(files: BrokerCredentialFiles): Authenticator | undefined {
  const { nkeyFile, credsFile } = files;
  if (nkeyFile === undefined && credsFile === undefined) return undefined;
  const read = credsFile === undefined ? readNkey(nkeyFile ?? '') : readCreds(credsFile);
  if ('problem' in read) throw new BrokerCredentialsError(read.problem);
  return read.value;
}

/** What is wrong with the files, without opening a connection. */
export function brokerCredentialFaults(files: BrokerCredentialFiles): readonly BrokerCredentialFault[] {
  const { nkeyFile, credsFile } = files;
  const faults: BrokerCredentialFault[] = [];
  const check = (file: keyof BrokerCredentialFiles, read: Read<Authenticator>): void => {
    if ('problem' in read) faults.push({ file, problem: read.problem });
  };
  if (nkeyFile !== undefined) check('nkeyFile', readNkey(nkeyFile));
  if (credsFile !== undefined) check('credsFile', readCreds(credsFile));
  return faults;
}

function readNkey(path: string): Read<Authenticator> {
  const read = readText(path);
  if ('problem' in read) return read;
  const seed = userSeedIn(read.value);
  return seed === undefined
    ? { problem: 'contains no seed of a user (SU…)' }
    : { value: nkeyAuthenticator(seed.bytes) };
}

function readCreds(path: string): Read<Authenticator> {
  const read = readText(path);
  if ('problem' in read) return read;
  const jwt = USER_JWT.exec(read.value)?.[1];
  if (jwt === undefined) return { problem: 'contains no NATS USER JWT' };
  const seed = userSeedIn(read.value);
  if (seed === undefined) return { problem: 'contains no seed of a user (SU…)' };
  if (subjectOf(jwt) !== seed.publicKey) return { problem: 'contains a seed that is not the key of its JWT' };
  return { value: jwtAuthenticator(jwt, seed.bytes) };
}

function readText(path: string): Read<string> {
  // The path is not repeated: an operator may have put the seed itself there.
  try {
    const bytes = readFileSync(path);
    if (bytes.length <= CREDENTIALS_BYTES_MAX) return { value: bytes.toString('utf8') };
    return { problem: `has more than ${CREDENTIALS_BYTES_MAX} bytes` };
  } catch (error) {
    const { code = 'unknown error' } = error as NodeJS.ErrnoException;
    return { problem: `cannot be read (${code})` };
  }
}

function userSeedIn(text: string): { bytes: Uint8Array; publicKey: string } | undefined {
  const seed = USER_SEED.exec(text)?.[0];
  if (seed === undefined) return undefined;
  try {
    const bytes = Buffer.from(seed, 'latin1');
    return { bytes, publicKey: nkeys.fromSeed(bytes).getPublicKey() };
  } catch {
    // The checksum is wrong.
    return undefined;
  }
}

function subjectOf(jwt: string): unknown {
  try {
    const { sub }: { sub?: unknown } = JSON.parse(
      Buffer.from(jwt.split('.')[1] ?? '', 'base64url').toString('utf8'),
    );
    return sub;
  } catch {
    return undefined;
  }
}
