/** Files with certificates and keys, which are read again when they change. */

import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { systemClock } from '@portcullis/guard/clock';
import type { GateLog } from './log.js';

/** The names of the files: own certificate and key, and the authorities of the peer. */
export interface TlsFiles {
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly ca: string | undefined;
}

/** One file and what is wrong with it. */
interface TlsFault {
  readonly file: keyof TlsFiles;
  /** The end of a sentence that begins with the name of the setting. */
  readonly problem: string;
}

/** Interval between two looks at the files, in milliseconds. */
const POLL_MS = 10_000;

const FILE_BYTES_MAX = 1024 * 1024;

/** Reads the files. The options are complete only when there are no faults. */
export function readTlsFiles(files: TlsFiles): {
  readonly options: SecureContextOptions;
  readonly faults: readonly TlsFault[];
} {
  const faults: TlsFault[] = [];
  const read = (file: keyof TlsFiles): Buffer | undefined => {
    const path = files[file];
    if (path === undefined) return undefined;
    try {
      const bytes = readFileSync(path);
      if (bytes.length <= FILE_BYTES_MAX) return bytes;
      faults.push({ file, problem: `names a file of more than ${FILE_BYTES_MAX} bytes: ${path}` });
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
      faults.push({ file, problem: `names a file that cannot be read: ${path} (${code})` });
    }
    return undefined;
  };
  const [cert, key, ca] = [read('cert'), read('key'), read('ca')];
  const options: SecureContextOptions = {
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    ...(ca !== undefined && { ca }),
    minVersion: 'TLSv1.2',
  };
  if (faults.length === 0) faults.push(...faultsOf(cert, key, ca));
  return { options, faults };
}

function faultsOf(cert: Buffer | undefined, key: Buffer | undefined, ca: Buffer | undefined): TlsFault[] {
  const faults: TlsFault[] = [];
  const certificate = cert && certificateIn(cert);
  if (cert !== undefined && certificate === undefined)
    faults.push({ file: 'cert', problem: 'names no certificate in PEM' });
  // OpenSSL accepts an empty list of authorities, and then every connection fails.
  if (ca !== undefined && certificateIn(ca) === undefined)
    faults.push({ file: 'ca', problem: 'names no certificate in PEM' });
  if (certificate !== undefined && Date.parse(certificate.validTo) < systemClock.wallMs()) {
    faults.push({ file: 'cert', problem: `names a certificate that expired on ${certificate.validTo}` });
  }
  if (key === undefined) return faults;
  try {
    const privateKey = createPrivateKey(key);
    if (certificate !== undefined && !certificate.checkPrivateKey(privateKey)) {
      faults.push({ file: 'key', problem: 'does not belong to the certificate' });
    }
  } catch {
    faults.push({
      file: 'key',
      problem: 'names no private key in PEM that can be read without a passphrase',
    });
  }
  if (faults.length > 0 || cert === undefined) return faults;
  try {
    createSecureContext({ cert, key });
    return [];
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    return [{ file: 'cert', problem: `is refused (${code})` }];
  }
}

function certificateIn(pem: Buffer): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

/** Certificates that follow their files. */
export interface TlsWatch {
  current(): SecureContextOptions;
  /** Reads the files now. Those that cannot be used are logged, and the former ones stay in use. */
  reload(): void;
  close(): void;
}

/**
 * Reads the files now and at regular intervals.
 *
 * @param onChange - called with new certificates that can be used
 * @throws Error when the files cannot be used at the start
 */
export function watchTlsFiles(
  files: TlsFiles,
  log: GateLog,
  onChange: (options: SecureContextOptions) => void,
): TlsWatch {
  const first = readTlsFiles(files);
  if (first.faults.length > 0) throw new Error(`certificates cannot be used: ${describe(first.faults)}`);
  let { options } = first;
  let digest = digestOf(options);
  let refused = '';
  const reload = (): void => {
    const next = readTlsFiles(files);
    const why = describe(next.faults);
    const nextDigest = digestOf(next.options);
    if (why !== '' && why !== refused) {
      log.error(
        { event: 'certificates_refused', why },
        'certificates cannot be used; those from before stay in use',
      );
    }
    refused = why;
    if (why !== '' || nextDigest === digest) return;
    ({ options } = next);
    digest = nextDigest;
    log.info({ event: 'certificates_changed', file: files.cert ?? files.ca }, 'new certificates are in use');
    onChange(options);
  };
  const timer = setInterval(reload, POLL_MS).unref();
  return { current: () => options, reload, close: () => clearInterval(timer) };
}

function describe(faults: readonly TlsFault[]): string {
  return faults.map(({ file, problem }) => `${file} ${problem}`).join('; ');
}

function digestOf({ cert, key, ca }: SecureContextOptions): string {
  const hash = createHash('sha256');
  for (const part of [cert, key, ca])
    hash
      .update(part instanceof Buffer ? `${part.length}:` : 'none:')
      .update(part instanceof Buffer ? part : '');
  return hash.digest('hex');
}
