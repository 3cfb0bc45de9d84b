/** The examples of the page about the policy, read as auth and the command line read them. */

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parsePolicy } from '../../cli/src/policy-text.js';
import { parseBootstrap } from '../../services/auth/config.js';

const PAGE = readFileSync(new URL('../../docs/operating/policy.md', import.meta.url), 'utf8');

/** The blocks of code in a language. */
function blocksOf(language: string): readonly string[] {
  return [...PAGE.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].flatMap(([, name, text = '']) =>
    name === language ? [text] : [],
  );
}

describe('the examples of the page about the policy', () => {
  it('are in the languages that are read here', () => {
    const languages = [...PAGE.matchAll(/^```(\w+)$/gm)].map(([, name]) => name);
    expect(new Set(languages)).to.deep.equal(new Set(['json', 'yaml']));
  });

  it('are policies of a bootstrap file, if they are JSON', () => {
    const policies = blocksOf('json').map((text): unknown => JSON.parse(text));
    expect(policies).to.not.be.empty;
    for (const policy of policies) {
      const parsed = parseBootstrap(JSON.stringify({ policy }));
      expect('faults' in parsed ? parsed.faults : []).to.deep.equal([]);
    }
  });

  it('are files that portcullis policy apply reads, if they are YAML', () => {
    const files = blocksOf('yaml').map((text) => parsePolicy(text, 'docs/operating/policy.md'));
    expect(files).to.not.be.empty;
    const [{ clients } = { clients: [] }] = files;
    expect(clients).to.deep.equal([
      {
        clientId: 'shop',
        audiences: ['auth'],
        scopes: ['auth.sync', 'auth.exchange'],
        exchangeAudiences: ['stock'],
        exchangeScopes: ['stock.take'],
      },
    ]);
  });
});
