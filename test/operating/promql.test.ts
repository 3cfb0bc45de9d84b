/** How queries and scrapes are read, on which the tests of rules and dashboards rest. */

import { expect } from 'chai';
import { readQuery, readScrapes } from '../../proofs/interop/promql.js';

describe('the reader of queries', () => {
  it('finds selectors, matchers and labels, and no functions or words of the language', () => {
    const query =
      readQuery(`histogram_quantile(0.99, sum by (le, service) (rate(a_bucket{le="0.25", b!~"x|y"}[5m])))
      > on (job) group_left () 14.4 * clamp_min(c, 0) and d or count(e == 0) or vector(0)`);
    expect(query.selectors).to.deep.equal([
      {
        metric: 'a_bucket',
        matchers: [
          { label: 'le', operator: '=', value: '0.25' },
          { label: 'b', operator: '!~', value: 'x|y' },
        ],
      },
      { metric: 'c', matchers: [] },
      { metric: 'd', matchers: [] },
      { metric: 'e', matchers: [] },
    ]);
    expect(query.labels).to.deep.equal(['le', 'service', 'job']);
  });

  it('rejects what it does not understand', () => {
    expect(() => readQuery('1 + 1')).to.throw('reads series');
    expect(() => readQuery('a{b}')).to.throw('label, operator and value');
  });

  it('reads names, labels and values of a scrape', () => {
    const scraped = readScrapes(['# TYPE a counter\na{b="c",d="e \\" f"} 1\na{b="g"} 2\n', 'h 3\n']);
    expect([...scraped.keys()]).to.deep.equal(['a', 'h']);
    expect(scraped.get('a')?.get('b')).to.deep.equal(new Set(['c', 'g']));
    expect(scraped.get('a')?.get('d')).to.deep.equal(new Set(['e \\" f']));
  });
});
