/** The table of NATS subjects in the documentation, compared with the rights that the code grants. */

import { readFileSync } from 'node:fs';
import { BROADCAST_SUBJECT, REPORT_SUBJECT } from '@portcullis/guard/internal';
import { expect } from 'chai';
import { brokerUserConfig } from '../../cli/src/broker-config.js';
import { type Permissions, permissionsOf } from '../../scripts/system/nats.js';

const PAGE = new URL('../../docs/operating/deploy.md', import.meta.url);

/** Stands for the name of a service's user, in the table and here. */
const SERVICE = 'SERVICE';

/** What follows the user who may publish only in response to a message. */
const IN_RESPONSE = '`auth`, only by a response';

interface Row {
  readonly subject: string;
  readonly publishes: string;
  readonly subscribes: string;
  readonly without: string;
}

/** The rows of the first table of the section NATS. */
function documentedRows(): readonly Row[] {
  const section = /\n## NATS\n([\s\S]*?)\n## /.exec(readFileSync(PAGE, 'utf8'))?.[1] ?? '';
  const lines = section.split('\n').filter((line) => line.startsWith('| `'));
  return lines.map((line) => {
    const [, subject = '', publishes = '', subscribes = '', without = ''] = line
      .split('|')
      .map((cell) => cell.trim());
    return { subject: subject.replaceAll('`', ''), publishes, subscribes, without };
  });
}

/** The rights that the table gives a user. */
function documentedRights(user: string): Permissions {
  const isNamed = (cell: string): boolean => cell.includes(`\`${user}\``);
  const rows = documentedRows();
  const published = rows.filter(({ publishes }) => isNamed(publishes) && publishes !== IN_RESPONSE);
  const subscribed = rows.filter(({ subscribes }) => isNamed(subscribes));
  const responds = rows.some(({ publishes }) => isNamed(publishes) && publishes === IN_RESPONSE);
  return {
    publish: published.map(({ subject }) => subject),
    // Auth receives the reports of all services.
    subscribe: subscribed.map(({ subject }) => (user === 'auth' ? subject.replace(SERVICE, '*') : subject)),
    ...(responds && { allow_responses: true }),
  };
}

describe('the table of NATS subjects', () => {
  it('has the rights that npm start and npm run credentials give, and no others', () => {
    expect(documentedRights('auth')).to.deep.equal(permissionsOf('auth'));
    expect(documentedRights(SERVICE)).to.deep.equal(permissionsOf(SERVICE));
  });

  it('has the rights that portcullis service broker-config prints for a service', () => {
    const printed = brokerUserConfig({ clientId: SERVICE, nkey: 'U' });
    const listOf = (right: string): unknown =>
      JSON.parse(new RegExp(`${right}: (\\[.*\\])`).exec(printed)?.[1] ?? 'null');
    const { publish, subscribe } = documentedRights(SERVICE);
    expect({ publish: listOf('publish'), subscribe: listOf('subscribe') }).to.deep.equal({
      publish,
      subscribe,
    });
  });

  it('names the subjects of the library, and what is lost without each', () => {
    const rows = documentedRows();
    expect(rows.map(({ subject }) => subject)).to.include.members([
      BROADCAST_SUBJECT,
      `${REPORT_SUBJECT}.${SERVICE}`,
    ]);
    for (const { subject, without } of rows) expect(without, subject).to.not.equal('');
  });
});
