/** The metrics that alerts and dashboards read are those of running processes: auth, services and a gate. */

import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import {
  DASHBOARDS,
  filledIn,
  queriesOf,
  readDashboard,
  readRules,
} from '../../proofs/interop/monitoring-files.js';
import { type Query, readQuery, readScrapes, type Scraped } from '../../proofs/interop/promql.js';
import { startWatched, type Watched } from '../../proofs/interop/watched-system.js';
import { until } from '../support/waiting.js';

/** What Prometheus itself adds, and what it computes from rules. */
const OF_PROMETHEUS = ['up', 'ALERTS'];
const LABELS_OF_PROMETHEUS = ['job', 'instance', 'alertname', 'alertstate'];

/** Labels whose values appear only after something has gone wrong, each with the page that lists them. */
const LISTED_VALUES: Readonly<Record<string, string>> = {
  outcome: 'docs/reference/errors.md',
  grpc_code: 'node_modules/@grpc/grpc-js/build/src/constants.d.ts',
};

describe('the metrics of a running system', function () {
  this.timeout(180_000);
  let watched: Watched;
  let scraped: Scraped;
  let queries: { readonly from: string; readonly query: Query }[];
  let records: readonly string[];

  before(async () => {
    watched = await startWatched();
    await watched.makeTraffic();
    const scrape = async (): Promise<string[]> =>
      await Promise.all(
        watched.targets().map(async ({ address }) => (await fetch(`http://${address}/metrics`)).text()),
      );
    await until(async () => {
      const services = readScrapes(await scrape())
        .get('portcullis_canary_seconds_count')
        ?.get('service');
      return ['auth', 'inventory', 'payment'].every((service) => services?.has(service) === true);
    });
    scraped = readScrapes(await scrape());
    const rules = await readRules();
    records = rules.records.map(({ record }) => record);
    const dashboards = await Promise.all(DASHBOARDS.map(readDashboard));
    queries = [
      ...rules.alerts.map(({ alert, expr }) => ({ from: alert, query: readQuery(expr) })),
      ...rules.records.map(({ record, expr }) => ({ from: record, query: readQuery(expr) })),
      ...dashboards.flatMap((dashboard) =>
        queriesOf(dashboard).map(({ panel, expr }) => ({
          from: panel,
          query: readQuery(filledIn(expr, '1m')),
        })),
      ),
    ];
  });
  after(() => watched.stop());

  it('include every metric and every label that alerts and dashboards read', () => {
    expect(queries.length).to.be.above(100);
    for (const { from, query } of queries) {
      const own = query.selectors.filter(
        ({ metric }) => !OF_PROMETHEUS.includes(metric) && !records.includes(metric),
      );
      const labels = new Set(LABELS_OF_PROMETHEUS);
      for (const { metric, matchers } of own) {
        // Only of guards that observe; the table of metrics has it.
        if (metric === 'portcullis_observed_refusals_total') continue;
        expect(scraped.has(metric), `${from}: ${metric}`).to.equal(true);
        for (const label of scraped.get(metric)?.keys() ?? []) labels.add(label);
        for (const { label } of matchers) expect([...labels], `${from}: ${metric}`).to.include(label);
      }
      for (const label of query.labels) {
        if (own.length > 0) expect([...labels], from).to.include(label);
      }
    }
  });

  it('have every value of a label that an alert or a dashboard names', async () => {
    for (const { from, query } of queries) {
      for (const { metric, matchers } of query.selectors) {
        for (const { label, operator, value } of matchers) {
          if (LABELS_OF_PROMETHEUS.includes(label) || operator === '!=' || operator === '!~') continue;
          const values = [...(scraped.get(metric)?.get(label) ?? [])];
          const pattern = new RegExp(`^(?:${value})$`);
          if (values.some((one) => (operator === '=' ? one === value : pattern.test(one)))) continue;
          const list = LISTED_VALUES[label];
          expect(list, `${from}: ${metric}{${label}${operator}"${value}"}`).to.not.equal(undefined);
          const text = (await readFile(new URL(`../../${list}`, import.meta.url), 'utf8')).replaceAll(
            '_',
            '',
          );
          for (const one of value.split('|')) {
            expect(text.toLowerCase(), from).to.contain(one.replaceAll('_', '').toLowerCase());
          }
        }
      }
    }
  });

  it('have times of canary tokens that are far below the bound', async () => {
    const [auth] = watched.targets();
    let text = '';
    const sum = (name: string): number =>
      [...text.matchAll(new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, 'gm'))].reduce(
        (total, [, value]) => total + Number(value),
        0,
      );
    // One measurement has a time for each of the four instances.
    await until(
      async () => {
        text = await (await fetch(`http://${auth?.address}/metrics`)).text();
        return sum('portcullis_canary_seconds_count') >= 4;
      },
      { withinMs: 20_000, pollMs: 200 },
    );
    const count = sum('portcullis_canary_seconds_count');
    expect(sum('portcullis_canary_seconds_sum') / count).to.be.below(watched.leaseMs / 1000);
    expect(text).to.contain('portcullis_canary_runs_total{outcome="admitted"} 0');
  });
});
