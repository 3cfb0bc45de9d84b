/** The rules and dashboards that the documentation offers, as data. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';

const OPERATING = join(PROJECT_FOLDER, 'docs', 'operating');

/** The rules of alerts. */
export const RULES_FILE = join(OPERATING, 'prometheus', 'portcullis.rules.yaml');

/** An example of how Prometheus scrapes a system. */
export const PROMETHEUS_FILE = join(OPERATING, 'prometheus', 'prometheus.yaml');

/** Names of the dashboards. */
export const DASHBOARDS = ['operator', 'gate'] as const;

/** An alert, as its rule declares it. */
export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly runbook_url: string };
}

/** A series that Prometheus computes. */
export interface RecordingRule {
  readonly record: string;
  readonly expr: string;
}

/** Reads the rules. */
export async function readRules(): Promise<{
  readonly alerts: readonly AlertRule[];
  readonly records: readonly RecordingRule[];
}> {
  const file = parse(await readFile(RULES_FILE, 'utf8')) as {
    readonly groups: readonly { readonly rules: readonly (AlertRule | RecordingRule)[] }[];
  };
  const rules = file.groups.flatMap((group) => group.rules);
  return {
    alerts: rules.filter((rule): rule is AlertRule => 'alert' in rule),
    records: rules.filter((rule): rule is RecordingRule => 'record' in rule),
  };
}

/** A dashboard of Grafana, as far as it is checked. */
export interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly templating: { readonly list: readonly { readonly name: string; readonly type: string }[] };
  readonly panels: readonly Panel[];
}

/** A panel or a row of one. */
export interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly uid: string };
  readonly targets?: readonly { readonly expr: string; readonly datasource: { readonly uid: string } }[];
}

/** Reads one of {@link DASHBOARDS}. */
export async function readDashboard(name: (typeof DASHBOARDS)[number]): Promise<Dashboard> {
  return JSON.parse(await readFile(join(OPERATING, 'grafana', `${name}.json`), 'utf8')) as Dashboard;
}

/** The queries of a dashboard, each with the title of its panel. */
export function queriesOf({ panels }: Dashboard): { readonly panel: string; readonly expr: string }[] {
  return panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ panel: title, expr })));
}

/** A query as Grafana sends it: for all instances, with a window for rates. */
export function filledIn(expr: string, rateWindow: string): string {
  return expr.replaceAll('$__rate_interval', rateWindow).replaceAll('$instance', '.*');
}
