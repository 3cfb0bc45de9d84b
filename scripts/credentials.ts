/** `npm run credentials`: makes the keys, certificates and passwords of a deployment, each in a file. */

import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { makeCredentials } from './credentials/make.js';
import { PARTIES, type Party } from './credentials/parties.js';
import { SystemError } from './system/system-error.js';

interface Options {
  readonly out: string;
  readonly name: Partial<Record<Party, readonly string[]>>;
  readonly database: string;
}

const program = new Command('npm run credentials --')
  .description(
    'Makes the keys, certificates and passwords of a deployment. Files that are there are kept, so a missing one is made by running it again.',
  )
  .requiredOption('--out <folder>', 'where to write the files')
  .option(
    '--name <part=names>',
    `further host names in the certificate of ${Object.keys(PARTIES).join(', ')}, separated by commas; may be repeated`,
    addNames,
    {},
  )
  .option('--database <host:port>', 'the address of PostgreSQL in the database URLs', 'postgres:5432');

try {
  const { out, name, database } = program.parse().opts<Options>();
  const { made, kept } = await makeCredentials({ folder: out, names: name, database });
  for (const file of made) console.log(`made ${file}`);
  if (kept > 0) console.log(`kept ${kept} files`);
  console.log(`\nThe first user is admin; the password is in ${join(out, 'admin-password')}`);
} catch (error) {
  if (!(error instanceof SystemError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

function addNames(text: string, former: Options['name']): Options['name'] {
  const [part = '', list = ''] = text.split('=');
  const party = (Object.keys(PARTIES) as Party[]).find((one) => one === part);
  const names = list.split(',');
  if (party === undefined || names.some((name) => !/^[A-Za-z0-9*][A-Za-z0-9.-]*$/.test(name))) {
    throw new InvalidArgumentError('Expected PART=HOST,HOST.');
  }
  return { ...former, [party]: [...(former[party] ?? []), ...names] };
}
