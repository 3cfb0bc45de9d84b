/** The documentation compared with the code: variables, commands and links. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';

import { OWN_VARIABLES } from '../../cli/src/commands/start.js';
import { createContextStore } from '../../cli/src/contexts.js';
import { EXIT } from '../../cli/src/failures.js';
import { runProgram } from '../../cli/src/program.js';
import { FORWARDED_VARIABLES } from '../../scripts/system/forwarded-variables.js';
import { VARIABLES as AUTH_VARIABLES } from '../../services/auth/config.js';
import { THRESHOLDS } from '../../services/auth/security/anomaly-rules.js';
import {
  EVENT_KEPT_DAYS,
  isRoutine,
  ROUTINE_EVENT_KEPT_DAYS,
  SECURITY_EVENT_TYPES,
  typeUriOf,
} from '../../services/auth/security/events.js';
import { VARIABLES as INVENTORY_VARIABLES } from '../../services/inventory/config.js';
import { VARIABLES as PAYMENT_VARIABLES } from '../../services/payment/config.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CONFIGURED = { auth: AUTH_VARIABLES, inventory: INVENTORY_VARIABLES, payment: PAYMENT_VARIABLES };
const SERVICES = ['auth', 'inventory', 'payment'] as const;
const VARIABLE = /\b(?:PORTCULLIS_[A-Z_]+[A-Z]|DATABASE_URL|NATS_URL|NATS_SERVER_BIN)\b/g;

/** Variables that `npm start` alone knows, beside those that it hands on. */
const START_VARIABLES = ['PORTCULLIS_DATA_DIR', 'NATS_SERVER_BIN'];

/** Variables that `npm start` reads itself, and passes on with other values. */
const START_SERVERS = ['DATABASE_URL', 'NATS_URL'];

/** Pages outside of `docs/`. */
const PAGES = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'cli/README.md',
  'examples/README.md',
  'examples/mesh/README.md',
  'examples/nestjs/README.md',
  'examples/nice-grpc/README.md',
  'gate/README.md',
  'interceptors/README.md',
];

/** Reads a variable of the environment, with commander or without. */
const READS_VARIABLE = /(?:\.env\(|environment\[)'(PORTCULLIS_[A-Z_]+)'/g;

describe('the documentation', () => {
  it('describes every variable that a service reads, and no other', async () => {
    const configured = SERVICES.flatMap(variablesOf);
    const described = (await read('docs/operating/configure.md'))
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .flatMap((line) => (line.split('|')[1] ?? '').match(VARIABLE) ?? []);
    expect(unique(described)).to.deep.equal(unique([...configured, ...START_VARIABLES]));
  });

  it('names no variable that does not exist', async () => {
    const known = [...SERVICES.flatMap(variablesOf), ...START_VARIABLES, ...(await commandLineVariables())];
    for (const page of await pages()) {
      const named = (await read(page)).match(VARIABLE) ?? [];
      const unknown = named.filter((name) => !known.includes(name) && !known.includes(withoutFile(name)));
      expect(unknown, page).to.be.empty;
    }
  });

  it('describes every variable and every exit code of the command line, and no other', async () => {
    const cellsOf = async (page: string): Promise<string[]> =>
      (await read(page)).split('\n').map((line) => line.split('|')[1]?.trim() ?? '');
    const rows = await cellsOf('cli/README.md');
    const variables = rows.flatMap((cell) => /^`(PORTCULLIS_\w+)`$/.exec(cell)?.[1] ?? []);
    expect(unique(variables)).to.deep.equal(unique(await commandLineVariables()));
    const isCode = (cell: string): boolean => /^\d+$/.test(cell);
    const codes = (await cellsOf('docs/reference/cli.md')).filter(isCode).map(Number);
    expect(codes).to.deep.equal(Object.values(EXIT));
    expect(rows.filter(isCode), 'the reference alone has them').to.be.empty;
  });

  it('lets portcullis start ignore every variable of the command line, and no other', async () => {
    expect(unique(OWN_VARIABLES)).to.deep.equal(unique(await commandLineVariables()));
  });

  it('describes every command of the command line, and no other', async () => {
    const described = [
      ...(await read('cli/README.md')).matchAll(/^\| `([a-z -]+?)(?: (?:[A-Z]|--).*?)?` /gm),
    ];
    const help = await commandsOf([]);
    expect(unique(described.map(([, name = '']) => name))).to.deep.equal(unique(help));
  });

  it('lists the variables that npm start does not pass on to the services that read them', async () => {
    const [, section = ''] =
      /^## npm start$(.*?)^## /ms.exec(await read('docs/operating/configure.md')) ?? [];
    const listed = section
      .split('\n')
      .flatMap((line) => (/^( |-)/.test(line) ? (line.match(VARIABLE) ?? []) : []));
    for (const service of SERVICES) {
      const passedOn = Object.entries(FORWARDED_VARIABLES)
        .filter(([, services]) => services.includes(service))
        .map(([name]) => withoutFile(name));
      const expected = variablesOf(service).filter(
        (name) => !START_SERVERS.includes(name) && !listed.includes(name),
      );
      expect(unique(passedOn), service).to.deep.equal(unique(expected));
    }
  });

  it('states the thresholds of all anomaly rules', async () => {
    const rows = (await read('docs/operating/watch.md'))
      .split('\n')
      .map((line) => line.split('|').map((cell) => cell.trim()));
    const documented = rows.flatMap(([, rule = '', , count, windowSeconds, quietSeconds]) => {
      const name = rule.replaceAll('`', '');
      return Object.hasOwn(THRESHOLDS, name)
        ? [
            [
              name,
              {
                count: Number(count),
                windowSeconds: Number(windowSeconds),
                quietSeconds: Number(quietSeconds),
              },
            ],
          ]
        : [];
    });
    expect(Object.fromEntries(documented)).to.deep.equal(THRESHOLDS);
  });

  it('lists every finding of the security review, and no other', async () => {
    const folder = join('services', 'auth', 'security');
    const files = (await readdir(join(ROOT, folder))).filter((name) => /^review-.*\.ts$/.test(name));
    const texts = await Promise.all(files.map((name) => read(join(folder, name))));
    const found = texts.flatMap((text) =>
      [...text.matchAll(/'([A-Z]+(?:_[A-Z]+)+)'/g)].map(([, name = '']) => name),
    );
    const findings = found.filter((name) => !name.startsWith('PORTCULLIS_') && !name.endsWith('_URL'));
    const rows = (await read('docs/operating/harden.md'))
      .split('\n')
      .filter((line) => line.startsWith('| `'));
    const documented = rows.flatMap((row) => row.split('|')[1]?.match(/[A-Z]+(?:_[A-Z]+)+/g) ?? []);
    expect(unique(documented)).to.deep.equal(unique(findings));
  });

  it('names every type of security event, with its profile and its retention', async () => {
    const rows = (await read('docs/operating/watch.md'))
      .split('\n')
      .filter((line) => /^\| `[a-z-]+`.*days +\|$/.test(line));
    const documented = rows.flatMap((row) => {
      const [, types = '', profile = '', kept = ''] = row.split('|').map((cell) => cell.trim());
      return types.split(', ').map((type) => `${type.replaceAll('`', '')} ${profile} ${kept}`);
    });
    const profileOf = (uri: string): string =>
      uri.includes('/caep/') ? 'OpenID CAEP' : uri.includes('/risc/') ? 'OpenID RISC' : 'us';
    const actual = SECURITY_EVENT_TYPES.map(
      (type) =>
        `${type} ${profileOf(typeUriOf(type))} ${isRoutine(type) ? ROUTINE_EVENT_KEPT_DAYS : EVENT_KEPT_DAYS} days`,
    );
    expect(documented.sort()).to.deep.equal(actual.sort());
  });

  it('names every metric of OpenTelemetry, and its counterpart of prom-client', async () => {
    const sources = await Promise.all(
      ['calls', 'guard'].map((name) => read(`interceptors/src/otel/${name}.ts`)),
    );
    const created = sources.flatMap((text) =>
      [...text.matchAll(/(?:counter|createHistogram|gauge|durationsOf)\(\s*'([^']+)'/g)].map(
        ([, name = '']) => name,
      ),
    );
    const rows = [
      ...(await read('interceptors/README.md')).matchAll(
        /^\| `((?:rpc|portcullis)\.[^`]+)` +\|[^|]*\| (?:`(\w+)`)? *\|$/gm,
      ),
    ];
    expect(rows.map(([, name = '']) => name).sort()).to.deep.equal(created.sort());
    const watched = await read('docs/operating/watch.md');
    const counterparts = rows.flatMap(([, , name]) => name ?? []);
    expect(counterparts).to.have.length.above(8);
    for (const name of counterparts) expect(watched).to.include(`| \`${name}\``);
  });

  it('lists every reason of an error, with its status and the services that send it, and no other', async () => {
    const rows = (await read('docs/reference/errors.md'))
      .split('\n')
      .filter((line) => line.startsWith('| `'));
    const documented = rows.map((row) => {
      const [, reason = '', status = '', sentBy = ''] = row.split('|').map((cell) => cell.trim());
      return `${reason.replaceAll('`', '')} ${status} ${sentBy}`;
    });
    const declared = new Map<string, string[]>();
    for (const file of await filesThatDeclareErrors()) {
      const [, owner = ''] = /^services\/(auth|inventory|payment)\//.exec(file) ?? [];
      const service = file.startsWith('gate/') ? 'the gate' : owner;
      for (const [, reason, status] of (await read(file)).matchAll(/^ {2}([A-Z_]+): '([A-Z_]+)',$/gm)) {
        const key = `${reason} ${status}`;
        declared.set(key, [...(declared.get(key) ?? []), service || 'every service']);
      }
    }
    const actual = [...declared].map(([key, services]) => `${key} ${services.sort().join(', ')}`);
    expect(documented.sort()).to.deep.equal(actual.sort());
  });

  it('names no command that does not exist', async () => {
    const { scripts } = JSON.parse(await read('package.json')) as { scripts: Record<string, string> };
    for (const page of await pages()) {
      const named = [...(await read(page)).matchAll(/npm (?:run ([a-z]+(?::[a-z]+)*)|(start|test)\b)/g)];
      for (const [command, script, builtIn] of named) {
        expect(scripts, `${page}: ${command}`).to.have.property(script ?? builtIn ?? '');
      }
    }
  });

  it('runs no script that does not exist', async () => {
    const { scripts } = JSON.parse(await read('package.json')) as { scripts: Record<string, string> };
    const files = Object.values(scripts).flatMap(
      (command) => command.match(/\b(?:scripts|proto|proofs|test)\/\S+/g) ?? [],
    );
    expect(files).to.not.be.empty;
    // `scripts/run.js` takes a program, whose source has the same path.
    const exists = (file: string) => ['', '.ts'].some((end) => existsSync(join(ROOT, `${file}${end}`)));
    expect(files.filter((file) => !exists(file))).to.be.empty;
  });

  it('links only to files that exist', async () => {
    for (const page of await pages()) {
      const links = [...(await read(page)).matchAll(/\]\(([^)#]+)[^)]*\)/g)].map(
        ([, target]) => target ?? '',
      );
      const local = links.filter((target) => !target.startsWith('https://'));
      const broken = local.filter((target) => !existsSync(join(ROOT, dirname(page), target)));
      expect(broken, page).to.be.empty;
    }
  });

  it('leads from the README to every page', async () => {
    const all = await pages();
    const reached = new Set(['README.md']);
    for (const page of reached) {
      for (const [, target = ''] of (await read(page)).matchAll(/\]\(([^)#:]+\.md)[^)]*\)/g)) {
        reached.add(join(dirname(page), target));
      }
    }
    expect(all.filter((page) => !reached.has(page))).to.be.empty;
  });

  it('names only what the source file contains', async () => {
    const page = 'docs/architecture.md';
    const text = await read(page);
    const besideLink = [...text.matchAll(/\]\(([^)]+\.(?:ts|proto))\), `([^`]+)`/g)];
    const asLink = [...text.matchAll(/\[`(?:\w+\.)?(\w+)`\]\(([^)]+\.ts)\)/g)];
    const named = [
      ...besideLink.map(([, target = '', name = '']) => ({ target, name })),
      ...asLink.map(([, name = '', target = '']) => ({ target, name })),
    ].filter(({ name }) => name !== 'ts');
    expect(named).to.have.length.of.at.least(8);
    for (const { target, name } of named) {
      expect(await read(join(dirname(page), target)), target).to.include(name);
    }
  });

  it('links only to headings that exist', async () => {
    for (const page of await pages()) {
      const links = [...(await read(page)).matchAll(/\]\(([^)#:]*)#([^)]+)\)/g)];
      for (const [link, target = '', anchor = ''] of links) {
        const headings = headingsOf(await read(target === '' ? page : join(dirname(page), target)));
        expect(headings, `${page}: ${link}`).to.include(anchor);
      }
    }
  });
});

/** The anchors that GitHub generates for a page's headings: those that are equal are numbered. */
function headingsOf(markdown: string): string[] {
  const counts = new Map<string, number>();
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => {
    const anchor = heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const before = counts.get(anchor) ?? 0;
    counts.set(anchor, before + 1);
    return before === 0 ? anchor : `${anchor}-${before}`;
  });
}

/** The variables that a service's configuration reads. */
function variablesOf(service: keyof typeof CONFIGURED): string[] {
  return Object.keys(CONFIGURED[service]);
}

/** The files with the reasons of errors. */
async function filesThatDeclareErrors(): Promise<string[]> {
  const folders = ['interceptors/src', 'services', 'gate/src'];
  const files = await Promise.all(
    folders.map(async (folder) =>
      (await readdir(join(ROOT, folder), { recursive: true })).map((file) => join(folder, file)),
    ),
  );
  const sources = files.flat().filter((file) => file.endsWith('.ts'));
  const texts = await Promise.all(sources.map(read));
  return sources.filter((_, index) => /\bdeclareErrors\b/.test(texts[index] ?? ''));
}

/** The variables that the command line reads. */
async function commandLineVariables(): Promise<string[]> {
  const folder = join('cli', 'src');
  const files = await readdir(join(ROOT, folder), { recursive: true });
  const texts = await Promise.all(
    files.filter((file) => file.endsWith('.ts')).map((file) => read(join(folder, file))),
  );
  return texts.flatMap((text) => [...text.matchAll(READS_VARIABLE)].map(([, name = '']) => name));
}

/** The commands below a command, as its help lists them; the innermost only. */
async function commandsOf(words: readonly string[]): Promise<string[]> {
  const output = new PassThrough();
  const terminal = { input: new PassThrough(), output, notes: new PassThrough() };
  const store = createContextStore({ PORTCULLIS_CONFIG: '/nonexistent' });
  await runProgram({ terminal, store, words: [...words, '--help'] });
  const [, list = ''] = String(output.read()).split('Commands:\n');
  const names = [...list.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name = '']) => name);
  const inner = names.filter((name) => name !== 'help').map((name) => commandsOf([...words, name]));
  const found = (await Promise.all(inner)).flat();
  return names.length === 0 ? [words.join(' ')] : found;
}

async function pages(): Promise<string[]> {
  const docs = await readdir(join(ROOT, 'docs'), { recursive: true });
  return [...PAGES, ...docs.filter((path) => path.endsWith('.md')).map((path) => join('docs', path))];
}

function read(path: string): Promise<string> {
  return readFile(join(ROOT, path), 'utf8');
}

function withoutFile(variable: string): string {
  return variable.replace(/_FILE$/, '');
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)].sort();
}
