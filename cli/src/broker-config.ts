/** What nats-server must allow the services: a part of its configuration, and the same as a table in the documentation. */

/** The subjects of the protocol. */
const REVOCATIONS = 'portcullis.v1.revocations';
const APPLIED = 'portcullis.v1.applied';
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
  const publish = [`${APPLIED}.${clientId}`, `${REPORTS}.${clientId}`];
  return [
    `# ${clientId}`,
    '{',
    `  nkey: ${nkey}`,
    '  permissions: {',
    `    publish: [${publish.map(quoted).join(', ')}]`,
    `    subscribe: [${[REVOCATIONS, INBOX].map(quoted).join(', ')}]`,
    '  }',
    '}',
  ].join('\n');
}

function quoted(subject: string): string {
  return JSON.stringify(subject);
}
