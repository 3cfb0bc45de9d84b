/** The alerts, with the real promtool, and the runbook and the dashboards beside them. */

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { parse } from 'yaml';
import {
  type AlertRule,
  DASHBOARDS,
  type Panel,
  PROMETHEUS_FILE,
  queriesOf,
  type RecordingRule,
  RULES_FILE,
  readDashboard,
  readRules,
} from '../../proofs/interop/monitoring-files.js';
import { installedPromtool } from '../../proofs/interop/peers.js';
import { readQuery } from '../../proofs/interop/promql.js';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const RUNBOOK = new URL('../../docs/operating/runbook.md', import.meta.url);
const RULE_TESTS = ['alerts.test.yaml', 'alerts-of-days.test.yaml'] as const;
const RUNBOOK_ADDRESS = 'https://docs.example/portcullis/operating/runbook.md#';
/** What each section of the runbook has, in this order. */
const PARTS = ['Meaning', 'Impact', 'Diagnosis', 'Mitigation'];
/** The variable of a dashboard that the reader sets. */
const DATA_SOURCE = ['$', '{datasource}'].join('');
const run = promisify(execFile);

/** One test of promtool. */
interface RuleTest {
  readonly name: string;
  readonly promql_expr_test: readonly {
    readonly expr: string;
    readonly exp_samples: readonly { readonly labels: string }[];
  }[];
}

describe('the alerts', function () {
  this.timeout(180_000);
  let alerts: readonly AlertRule[];
  let records: readonly RecordingRule[];

  before(async () => {
    ({ alerts, records } = await readRules());
  });

  async function promtool(...words: string[]): Promise<void> {
    const program = await installedPromtool();
    if (program === undefined) {
      console.log(
        '      not checked: promtool is missing; npm run interop fetches it, or apt-get install -y prometheus',
      );
      return;
    }
    const { stdout } = await run(program, words, { cwd: HERE });
    expect(stdout).to.contain('SUCCESS');
  }

  it('are rules that promtool accepts', async () => {
    await promtool('check', 'rules', RULES_FILE);
    await promtool('check', 'config', PROMETHEUS_FILE);
  });

  it('fire in the system that each is for, and no other does, as promtool evaluates them', async () => {
    for (const file of RULE_TESTS) await promtool('test', 'rules', file);
  });

  it('are each expected to fire in a test, and not to fire in a system that works', async () => {
    const files = await Promise.all(RULE_TESTS.map((file) => readFile(join(HERE, file), 'utf8')));
    const tests = files.flatMap((text) => (parse(text) as { tests: readonly RuleTest[] }).tests);
    const samples = tests.flatMap((test) => test.promql_expr_test.flatMap((one) => one.exp_samples));
    const fired = samples.map(({ labels }) => /alertname="(\w+)"/.exec(labels)?.[1] ?? '');
    expect([...new Set(fired)].sort()).to.deep.equal(alerts.map(({ alert }) => alert).sort());
    const [quiet] = tests;
    expect(quiet?.name).to.equal('nothing fires in a system that works');
    expect(quiet?.promql_expr_test.flatMap((one) => one.exp_samples)).to.be.empty;
    for (const { expr } of tests.flatMap((test) => test.promql_expr_test)) {
      expect(expr).to.match(/^count by \(alertname(?:, \w+)?\) \(ALERTS\{alertstate="firing"\}\)$/);
    }
  });

  it('have series in the test of a system that works, so that silence means something', async () => {
    const { tests } = parse(await readFile(join(HERE, RULE_TESTS[0]), 'utf8')) as {
      tests: readonly { readonly input_series: readonly { readonly series: string }[] }[];
    };
    const given = new Set(tests[0]?.input_series.map(({ series }) => series.split('{')[0]));
    const read = [...alerts, ...records].flatMap(({ expr }) =>
      readQuery(expr).selectors.map(({ metric }) => metric),
    );
    const missing = read.filter((metric) => !given.has(metric) && !metric.startsWith('portcullis:'));
    // Of a system in mode `enforce` there is no series.
    expect(new Set(missing)).to.deep.equal(new Set(['portcullis_observed_refusals_total']));
  });

  it('each have a section in the runbook that says what it means and what to do, and the reverse', async () => {
    const sections = (await readFile(RUNBOOK, 'utf8')).split(/^### /m).slice(1);
    const titles = sections.map((text) => text.split('\n')[0]);
    expect([...titles].sort()).to.deep.equal(alerts.map(({ alert }) => alert).sort());
    for (const section of sections) {
      const parts = [...section.matchAll(/^\*\*(\w+)\.\*\*/gm)].map(([, part]) => part);
      expect(parts, section.split('\n')[0]).to.deep.equal(PARTS);
    }
    for (const { alert, annotations } of alerts) {
      expect(annotations.runbook_url).to.equal(`${RUNBOOK_ADDRESS}${alert.toLowerCase()}`);
    }
  });

  it('have a severity and a summary, and names of their own', () => {
    expect(new Set(alerts.map(({ alert }) => alert)).size).to.equal(alerts.length);
    for (const { alert, labels, annotations } of alerts) {
      expect(alert).to.match(/^Portcullis[A-Z]\w+$/);
      expect(labels.severity).to.be.oneOf(['critical', 'warning']);
      expect(annotations.summary).to.not.be.empty;
    }
  });
});

describe('the dashboards', () => {
  const isInside = (one: Panel['gridPos'], { x, y, w, h }: Panel['gridPos']): boolean =>
    one.x < x + w && x < one.x + one.w && one.y < y + h && y < one.y + one.h;

  for (const name of DASHBOARDS) {
    it(`have panels with titles, descriptions and queries that do not overlap: ${name}`, async () => {
      const dashboard = await readDashboard(name);
      const { panels } = dashboard;
      expect(new Set(panels.map(({ id }) => id)).size).to.equal(panels.length);
      for (const [index, panel] of panels.entries()) {
        expect(panel.title).to.not.be.empty;
        expect(panel.gridPos.x + panel.gridPos.w).to.be.at.most(24);
        const over = panels.slice(index + 1).filter(({ gridPos }) => isInside(panel.gridPos, gridPos));
        expect(over, panel.title).to.be.empty;
        if (panel.type === 'row') continue;
        expect(panel.description, panel.title).to.match(/\.$/);
        expect(panel.targets, panel.title).to.not.be.empty;
      }
      expect(queriesOf(dashboard).length).to.be.above(20);
    });

    it(`name no server of Prometheus: ${name}`, async () => {
      const { panels, templating } = await readDashboard(name);
      expect(templating.list.map((one) => one.name)).to.deep.equal(['datasource', 'instance']);
      for (const { type, title, datasource, targets = [] } of panels) {
        if (type === 'row') continue;
        const named = [datasource, ...targets.map((target) => target.datasource)];
        expect(new Set(named.map((one) => one?.uid)), title).to.deep.equal(new Set([DATA_SOURCE]));
      }
    });
  }
});
