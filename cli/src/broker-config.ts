/** What nats-server must allow the services, as a part of its configuration. The documentation has the same as a table. */

/** The subjects of the protocol. */
const REVOCATIONS = 'portcullis.v1.revocations';
const REPORTS = 'portcullis.v1.security';
const INBOX = '_INBOX.>';

/** A service at the broker. */
export interface BrokerUser {
  readonly clientId: string;
  /** The public nkey (`U…`). */
  readonly nkey: string;
}

/** One user of nats-server's `authorization { users: [ … ] }`. */
export function brokerUserConfig({ clientId, nkey }: BrokerUser): string {
  return [
    `# ${clientId}`,
    '{',
    `  nkey: ${nkey}`,
    '  permissions: {',
    `    publish: [${quoted(`${REPORTS}.${clientId}`)}]`,
    `    subscribe: [${[REVOCATIONS, INBOX].map(quoted).join(', ')}]`,
    '  }',
    '}',
  ].join('\n');
}

function quoted(subject: string): string {
  return JSON.stringify(subject);
}
