/** The settings of the connection to the broker; those of its TLS are beside the other certificates. */
import { type BrokerCredentialFiles, brokerCredentialFaults } from '@portcullis/guard';
import {
  type ConfigurationFault,
  type EnvironmentValues,
  type EnvironmentVariable,
  optional,
  secret,
  text,
} from './env.js';

/** URLs of the broker with commas between them; behind the first, hosts will do. */
function brokerUrl(): EnvironmentVariable<string> {
  const host = String.raw`(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?`;
  const first = new RegExp(`^(?:nats|tls)://(?:[^@/,\\s]+@)?${host}/?$`);
  const other = new RegExp(`^(?:(?:nats|tls)://)?(?:[^@/,\\s]+@)?${host}/?$`);
  return {
    secret: false,
    parse: (given) => {
      if (given === undefined) return { problem: 'is required' };
      if (isBrokerList(given, first, other)) return { value: given };
      return {
        problem:
          'must be nats://[USER:PASSWORD@|TOKEN@]HOST:PORT or tls://…, and may name more hosts with commas between them; ' +
          'write @ / , % in a password as %40 %2F %2C %25',
      };
    },
  };
}

function isBrokerList(given: string, first: RegExp, other: RegExp): boolean {
  const parts = given.split(',').map((part) => part.trim());
  return parts.every(
    (part, index) => (index === 0 ? first : other).test(part) && !/%(?![0-9A-Fa-f]{2})/.test(part),
  );
}

/** The variables. The names of files are kept, because they are read again at every attempt to connect. */
export function brokerVariables(broker: 'required' | 'optional') {
  const natsUrl: EnvironmentVariable<string | undefined> = secret(brokerUrl());
  return {
    NATS_URL: broker === 'required' ? natsUrl : optional(natsUrl),
    PORTCULLIS_NATS_NKEY_FILE: optional(text()),
    PORTCULLIS_NATS_CREDS_FILE: optional(text()),
  };
}

type Values = EnvironmentValues<ReturnType<typeof brokerVariables>>;

/** The faults of the files, and of credentials that are given twice. */
export function brokerConfigFaults(good: Partial<Values>): readonly ConfigurationFault[] {
  const files = brokerCredentialsOf(good);
  const { nkeyFile, credsFile } = files;
  const faults: ConfigurationFault[] = brokerCredentialFaults(files).map(({ file, problem }) => ({
    variable: file === 'nkeyFile' ? 'PORTCULLIS_NATS_NKEY_FILE' : 'PORTCULLIS_NATS_CREDS_FILE',
    problem: `names a file that ${problem}`,
  }));
  const variable = credsFile === undefined ? 'PORTCULLIS_NATS_NKEY_FILE' : 'PORTCULLIS_NATS_CREDS_FILE';
  const isGiven = nkeyFile !== undefined || credsFile !== undefined;
  if (nkeyFile !== undefined && credsFile !== undefined) {
    faults.push({ variable, problem: 'and PORTCULLIS_NATS_NKEY_FILE are both set: keep one' });
  }
  if (isGiven && good.NATS_URL === undefined) {
    faults.push({ variable, problem: 'has no effect without NATS_URL' });
  }
  if (isGiven && good.NATS_URL?.includes('@')) {
    faults.push({ variable, problem: 'and a user or token in NATS_URL are both set: keep one' });
  }
  return faults;
}

/** The files with credentials out of the values of the variables. */
export function brokerCredentialsOf(values: Partial<Values>): BrokerCredentialFiles {
  return {
    nkeyFile: values.PORTCULLIS_NATS_NKEY_FILE,
    credsFile: values.PORTCULLIS_NATS_CREDS_FILE,
  };
}
