/** Certificates from files: read, checked, and read again when the files change. */
import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions, type SecureVersion } from 'node:tls';
import { type Clock, systemClock } from '../clock.js';

/** The oldest accepted version, whatever Node's own default is. */
const TLS_VERSION_MIN: SecureVersion = 'TLSv1.2';
/** The cipher suites: only ephemeral keys and authenticated encryption, as HTTP/2 requires. */
const TLS_CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');
/** How often the files are read. */
const TLS_POLL_MS = 10_000;
/** The longest file; enough for the certificate authorities of an operating system. */
const TLS_FILE_BYTES_MAX = 1024 * 1024;

/** The files. A certificate, followed by its chain, needs its key. */
export interface TlsFiles {
  /** The certificate presented to the peer. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** The certificate authorities of the peer. */
  readonly ca?: string | undefined;
}

/** What is wrong with one of the files. */
export interface TlsFault {
  readonly file: keyof TlsFiles;
  /** The end of a sentence that begins with the name of the variable; repeats nothing of the file's contents. */
  readonly problem: string;
}

/** The faults, one or more, because of which certificates cannot be used. */
export class TlsFilesError extends Error {
  readonly faults: readonly TlsFault[];

  constructor(faults: readonly TlsFault[], options: ErrorOptions = {}) {
    super(faults.map(({ file, problem }) => `${file} ${problem}`).join('; '), options);
    this.name = 'TlsFilesError';
    this.faults = faults;
  }
}

/**
 * The faults because of which the files cannot be used now.
 *
 * @returns every fault, none when the files are good
 */
export function tlsFaultsOf(files: TlsFiles, clock: Clock = systemClock): readonly TlsFault[] {
  try {
    readTlsFiles(files, clock);
    return [];
  } catch (error) {
    if (error instanceof TlsFilesError) return error.faults;
    throw error;
  }
}

/** Where a watch logs new certificates, and those that it cannot use. */
export interface TlsLog {
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Certificates that follow their files. */
export interface TlsWatch {
  /** The current certificates. */
  current(): SecureContextOptions;
  /** Calls the listener with every new set of certificates. @returns a function that ends that */
  onChange(listener: (next: SecureContextOptions) => void): () => void;
  /** Reads the files at once. Never rejects. */
  reload(): Promise<void>;
  close(): void;
}

/**
 * Reads the files now and at regular intervals. It compares their contents, not their times, so it also notices a
 * symbolic link that points elsewhere. Files that cannot be used are logged once, and the previous certificates stay in
 * use: a new certificate beside the old key becomes complete at a later read.
 *
 * @throws TlsFilesError when the files cannot be used at the start
 */
export function watchTlsFiles(options: {
  files: TlsFiles;
  log: TlsLog;
  clock?: Clock;
  pollMs?: number;
}): TlsWatch {
  const { files, log, clock = systemClock, pollMs = TLS_POLL_MS } = options;
  const listeners = new Set<(next: SecureContextOptions) => void>();
  let used = readTlsFiles(files, clock);
  let refused = '';
  let refreshing = Promise.resolve();

  const refresh = async (): Promise<void> => {
    try {
      const contents = await readAll(files);
      const digest = digestOf(contents);
      if (digest === used.digest) {
        refused = '';
        return;
      }
      used = { options: usable(contents, clock), digest };
      refused = '';
      log.info(
        { event: 'certificates_changed', files, ...describe(contents) },
        'new certificates are in use',
      );
      for (const listener of listeners) tell(listener);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why === refused) return;
      refused = why;
      log.error(
        { event: 'certificates_refused', files, why },
        'certificates have changed and cannot be used; those from before stay in use',
      );
    }
  };
  /** A listener that fails must not keep the others from the new certificates. */
  const tell = (listener: (next: SecureContextOptions) => void): void => {
    try {
      listener(used.options);
    } catch (error) {
      log.error({ event: 'certificates_not_used', files, err: error }, 'new certificates could not be used');
    }
  };
  // One after the other, because a read that has begun may have missed a later change.
  const reload = (): Promise<void> => {
    refreshing = refreshing.then(refresh);
    return refreshing;
  };
  const timer = setInterval(() => void reload(), pollMs).unref();
  return {
    current: () => used.options,
    onChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    reload,
    close: () => clearInterval(timer),
  };
}

type Contents = { readonly [File in keyof TlsFiles]: Buffer };

function readTlsFiles(files: TlsFiles, clock: Clock): { options: SecureContextOptions; digest: string } {
  const faults: TlsFault[] = [];
  const read = pathsOf(files).map(([file, path]) => {
    try {
      return [file, readFileSync(path)] as const;
    } catch (error) {
      faults.push(unreadable(file, error));
      return [file, undefined] as const;
    }
  });
  if (faults.length > 0) throw new TlsFilesError(faults);
  const contents: Contents = Object.fromEntries(read);
  return { options: usable(contents, clock), digest: digestOf(contents) };
}

async function readAll(files: TlsFiles): Promise<Contents> {
  const read = await Promise.all(
    pathsOf(files).map(async ([file, path]) => {
      try {
        return [file, await readFile(path)] as const;
      } catch (error) {
        throw new TlsFilesError([unreadable(file, error)], { cause: error });
      }
    }),
  );
  return Object.fromEntries(read);
}

function pathsOf({ cert, key, ca }: TlsFiles): (readonly [keyof TlsFiles, string])[] {
  const all = [['cert', cert] as const, ['key', key] as const, ['ca', ca] as const];
  return all.flatMap(([file, path]) => (path === undefined ? [] : [[file, path] as const]));
}

function unreadable(file: keyof TlsFiles, error: unknown): TlsFault {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
  return { file, problem: `names a file that cannot be read (${code})` };
}

function digestOf({ cert, key, ca }: Contents): string {
  const hash = createHash('sha256');
  // The lengths keep the files apart.
  for (const part of [cert, key, ca]) hash.update(`${part?.length ?? 'none'}:`).update(part ?? '');
  return hash.digest('hex');
}

/**
 * The options for TLS. OpenSSL accepts an expired certificate and an empty list of authorities, and then every
 * connection fails.
 *
 * @throws TlsFilesError with every fault
 */
function usable(contents: Contents, clock: Clock): SecureContextOptions {
  const { cert, key, ca } = contents;
  const faults = [...sizeFaults(contents), ...identityFaults(cert, key, clock), ...authorityFaults(ca)];
  if (faults.length > 0) throw new TlsFilesError(faults);
  const options: SecureContextOptions = {
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(ca === undefined ? {} : { ca }),
    minVersion: TLS_VERSION_MIN,
    ciphers: TLS_CIPHERS,
    honorCipherOrder: true,
  };
  try {
    createSecureContext(options);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    const file = cert === undefined ? 'ca' : 'cert';
    throw new TlsFilesError([{ file, problem: `is refused (${code})` }], { cause: error });
  }
  return options;
}

function sizeFaults(contents: Contents): TlsFault[] {
  return Object.entries(contents)
    .filter(([, bytes]) => bytes !== undefined && bytes.length > TLS_FILE_BYTES_MAX)
    .map(([file]) => ({
      file: file as keyof TlsFiles,
      problem: `names a file of more than ${TLS_FILE_BYTES_MAX} bytes`,
    }));
}

function identityFaults(cert: Buffer | undefined, key: Buffer | undefined, clock: Clock): TlsFault[] {
  if (cert === undefined && key === undefined) return [];
  const certificate = cert && parseCertificates(cert)?.[0];
  const privateKey = key && parseKey(key);
  const faults: TlsFault[] = [];
  if (certificate === undefined) faults.push({ file: 'cert', problem: 'names no certificate in PEM' });
  if (privateKey === undefined) {
    faults.push({
      file: 'key',
      problem: 'names no private key in PEM that can be used without a passphrase',
    });
  }
  if (certificate === undefined || privateKey === undefined) return faults;
  if (!certificate.checkPrivateKey(privateKey)) {
    faults.push({ file: 'key', problem: 'does not belong to the certificate' });
  }
  const now = clock.wallMs();
  if (Date.parse(certificate.validTo) < now) {
    faults.push({ file: 'cert', problem: `names a certificate that expired on ${certificate.validTo}` });
  }
  if (Date.parse(certificate.validFrom) > now) {
    faults.push({
      file: 'cert',
      problem: `names a certificate that is not valid before ${certificate.validFrom}`,
    });
  }
  return faults;
}

function authorityFaults(ca: Buffer | undefined): TlsFault[] {
  if (ca === undefined || parseCertificates(ca) !== undefined) return [];
  return [{ file: 'ca', problem: 'names no certificates in PEM' }];
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/** All certificates of a file; undefined when there is none or one of them cannot be read. */
function parseCertificates(pem: Buffer): [X509Certificate, ...X509Certificate[]] | undefined {
  try {
    const [first, ...others] = (pem.toString('latin1').match(CERTIFICATE) ?? []).map(
      (block) => new X509Certificate(block),
    );
    return first === undefined ? undefined : [first, ...others];
  } catch {
    return undefined;
  }
}

function parseKey(pem: Buffer): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}

function describe({ cert }: Contents): { serialNumber?: string; validTo?: string } {
  const certificate = cert && parseCertificates(cert)?.[0];
  if (certificate === undefined) return {};
  return { serialNumber: certificate.serialNumber, validTo: certificate.validTo };
}
