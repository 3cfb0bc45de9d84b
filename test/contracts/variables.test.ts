/** The defaults of variables, as docs/operating/configure.md states them and as the services have them. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { VARIABLES as AUTH } from '../../services/auth/config.js';
import type { EnvironmentShape } from '../../services/common/config/env.js';
import { VARIABLES as INVENTORY } from '../../services/inventory/config.js';
import { VARIABLES as PAYMENT } from '../../services/payment/config.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';

const SHAPES: readonly EnvironmentShape[] = [AUTH, INVENTORY, PAYMENT];

/** The section about `npm start`, where the same names have other defaults. */
const OF_START = '## npm start';

/** What the page says of a variable whose default differs from service to service. */
const DIFFERS = 'see below';

describe('configure.md', () => {
  const page = readFileSync(join(PROJECT_FOLDER, 'docs', 'operating', 'configure.md'), 'utf8');
  const [before = '', after = ''] = page.split(OF_START);
  const rows = `${before}${after.slice(after.indexOf('\n## '))}`.split('\n').flatMap((line) => {
    const [, name, text = ''] = /^\| `([A-Z_]+)`(?: _secret_)? *\| ([^|]+?) *\|/.exec(line) ?? [];
    return name === undefined ? [] : [{ name, text: text.replaceAll('`', '') }];
  });

  it('states the default of every variable, and which are required', () => {
    expect(rows).to.have.length.above(70);
    for (const { name, text } of rows) {
      const defaults = new Set(
        SHAPES.flatMap((shape) => (shape[name] === undefined ? [] : [defaultOf(shape, name)])),
      );
      expect(defaults, name).to.not.be.empty;
      if (defaults.size > 1) expect(text, name).to.equal(DIFFERS);
      else expect(withoutDetails(text), name).to.equal([...defaults][0]);
    }
  });
});

/** In the words of the page. */
function defaultOf(shape: EnvironmentShape, name: string): string {
  const parsed = shape[name]?.parse(undefined);
  if (parsed === undefined || 'problem' in parsed) return 'required';
  const { value } = parsed;
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return 'none';
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return String(value);
}

/** `the system` is what Node does without the variable. */
function withoutDetails(text: string): string {
  return text === 'the system' ? 'none' : text;
}
