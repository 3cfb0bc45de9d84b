/** Which series a query of Prometheus reads. Only as much of the language as the rules and dashboards of this project use. */

/** A selector in a query, such as `up{job="x"}`. */
interface Selector {
  readonly metric: string;
  readonly matchers: readonly Matcher[];
}

/** A condition on a label. */
interface Matcher {
  readonly label: string;
  readonly operator: '=' | '!=' | '=~' | '!~';
  readonly value: string;
}

/** The selectors of a query, and the labels by which it groups or joins. */
export interface Query {
  readonly selectors: readonly Selector[];
  readonly labels: readonly string[];
}

const TOKEN = /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[A-Za-z_:][\w:]*|\[[^\]]*\]|\d[\w.]*|[=!]~|[=!<>]=|[^\s]/g;
const GROUPING = new Set(['by', 'without', 'on', 'ignoring', 'group_left', 'group_right']);
const WORDS = new Set(['and', 'or', 'unless', 'bool', 'offset']);
const OPERATORS = ['=', '!=', '=~', '!~'] as const;

/** Reads a query. @throws Error for one that it does not understand */
export function readQuery(text: string): Query {
  const tokens: readonly string[] = text.match(TOKEN) ?? [];
  const selectors: Selector[] = [];
  const labels: string[] = [];
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at] ?? '';
    if (!/^[A-Za-z_:]/.test(token) || WORDS.has(token)) continue;
    const isCall = tokens[at + 1] === '(';
    // An aggregation may have its labels before its operand.
    if (/^(?:by|without)$/.test(tokens[at + 1] ?? '')) continue;
    if (GROUPING.has(token) && isCall) {
      const end = tokens.indexOf(')', at);
      labels.push(...tokens.slice(at + 2, end).filter((word) => word !== ','));
      at = end;
    } else if (!isCall) {
      const end = tokens[at + 1] === '{' ? tokens.indexOf('}', at) : at;
      selectors.push({ metric: token, matchers: matchersOf(tokens.slice(at + 2, end)) });
      at = end;
    }
  }
  if (selectors.length === 0) throw new Error(`expected a query that reads series, got ${text}`);
  return { selectors, labels };
}

/** @param tokens - between the braces */
function matchersOf(tokens: readonly string[]): Matcher[] {
  const matchers: Matcher[] = [];
  for (let at = 0; at < tokens.length; at += 4) {
    const [label = '', sign = '', quoted = '', comma = ','] = tokens.slice(at, at + 4);
    const operator = OPERATORS.find((one) => one === sign);
    if (operator === undefined || comma !== ',') {
      throw new Error(`expected label, operator and value, got ${tokens.join(' ')}`);
    }
    matchers.push({ label, operator, value: quoted.slice(1, -1) });
  }
  return matchers;
}

/** The samples of a scrape: by name of the series, the values of each label. */
export type Scraped = ReadonlyMap<string, ReadonlyMap<string, ReadonlySet<string>>>;

/** Reads texts in the format of Prometheus. */
export function readScrapes(texts: readonly string[]): Scraped {
  const series = new Map<string, Map<string, Set<string>>>();
  for (const line of texts.flatMap((text) => text.split('\n'))) {
    const [, name = '', inner = ''] = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? /.exec(line) ?? [];
    if (name === '') continue;
    const labels = series.get(name) ?? new Map<string, Set<string>>();
    series.set(name, labels);
    for (const [, label = '', value = ''] of inner.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels.set(label, (labels.get(label) ?? new Set()).add(value));
    }
  }
  return series;
}
