/** The chart and the plain manifests: rendered with helm, validated with kubeconform, and checked for what must hold. */

import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { Board } from '../shared/board.js';
import { exec } from '../shared/programs.js';
import { faultsOf, readManifests } from './manifests.js';

const CHART = join(PROJECT_FOLDER, 'deploy', 'chart');
const PLAIN = join(PROJECT_FOLDER, 'deploy', 'kubernetes');
const PLAIN_VALUES = join(PLAIN, 'values.yaml');
const RENDERED = join(PLAIN, 'portcullis.yaml');
const VALUES = join(PROJECT_FOLDER, 'proofs', 'deployment', 'values');

/** The oldest version that the chart admits; a helm that was built from its sources knows none by itself. */
const KUBERNETES = ['--kube-version', '1.30.0'];

/** What stands above the plain manifests. */
const HEADER =
  '# Rendered from deploy/chart with deploy/kubernetes/values.yaml: npm run deployment -- --only chart --write\n';

/** Values that the schema of the chart refuses, one at a time. */
const REFUSED: readonly (readonly [string, string])[] = [
  ['issuer', 'http://auth.example'],
  ['nats.url', 'nats://nats:4222'],
  ['runAsUser', '0'],
  ['auth.replicas', '0'],
  ['auth.replica', '2'],
  ['image.registry', 'registry.example'],
];

/** Checks the chart with helm. @param write - whether to write the plain manifests that are not up to date */
export async function checkChart(helm: string, board: Board, write: boolean): Promise<readonly string[]> {
  const peer = 'helm';
  await attempt(
    board,
    peer,
    'lint finds nothing',
    async () => void (await exec(helm, ['lint', '--strict', ...KUBERNETES, CHART])),
  );
  const rendered: string[] = [];
  const files = [PLAIN_VALUES, ...(await readdir(VALUES)).sort().map((name) => join(VALUES, name))];
  for (const file of [undefined, ...files]) {
    const name = file?.slice(PROJECT_FOLDER.length) ?? 'no values';
    await attempt(board, peer, `${name}: what is rendered is as it must be`, async () => {
      const text = await render(helm, file);
      rendered.push(text);
      const faults = faultsOf(readManifests(text));
      if (faults.length > 0) throw new Error(faults.join('; '));
    });
  }
  for (const [name, value] of REFUSED) {
    const outcome = await render(helm, undefined, ['--set', `${name}=${value}`]).then(
      () => 'was rendered',
      () => '',
    );
    board.holds(peer, `${name}=${value} is refused`, outcome === '', outcome);
  }
  const plain = `${HEADER}${await render(helm, PLAIN_VALUES)}`;
  if (write) await writeFile(RENDERED, plain);
  const committed = await readFile(RENDERED, 'utf8').catch(() => '');
  board.holds(
    peer,
    'the plain manifests are those of the chart',
    committed === plain,
    `${HEADER.slice(2)} writes them`,
  );
  return [...rendered, await readFile(join(PLAIN, 'greeter.yaml'), 'utf8')];
}

async function render(
  helm: string,
  values: string | undefined,
  words: readonly string[] = [],
): Promise<string> {
  const file = values === undefined ? [] : ['--values', values];
  const { stdout } = await exec(helm, ['template', 'portcullis', CHART, ...KUBERNETES, ...file, ...words]);
  // Manifests without a release.
  return stdout.replaceAll(/^# Source: .*\n/gm, '');
}

/** Validates manifests against the schemas of Kubernetes, strictly: an unknown member is a fault. */
export async function validate(
  {
    program,
    schemas,
    kubernetes,
  }: { readonly program: string; readonly schemas: string; readonly kubernetes: string },
  manifests: readonly string[],
  { folder, board }: { readonly folder: string; readonly board: Board },
): Promise<void> {
  const words = ['-strict', '-summary', '-kubernetes-version', kubernetes, '-schema-location', schemas];
  for (const [index, text] of manifests.entries()) {
    const file = join(folder, `manifests-${index}.yaml`);
    await writeFile(file, text);
    await attempt(
      board,
      'kubeconform',
      `manifests ${index + 1} of ${manifests.length} are valid`,
      async () => {
        await exec(program, [...words, file]);
      },
    );
  }
  // That it would find a fault.
  const wrong = join(folder, 'wrong.yaml');
  await writeFile(wrong, (manifests[0] ?? '').replace('readOnlyRootFilesystem', 'readOnlyRootFileSystem'));
  const outcome = await exec(program, [...words, wrong]).then(
    () => 'was accepted',
    () => '',
  );
  board.holds('kubeconform', 'a misspelt member is refused', outcome === '', outcome);
}

async function attempt(board: Board, peer: string, name: string, work: () => Promise<void>): Promise<void> {
  const fault = await work().then(
    () => '',
    (error: unknown) => messageOf(error),
  );
  board.holds(peer, name, fault === '', fault);
}

function messageOf(error: unknown): string {
  const {
    stderr = '',
    stdout = '',
    message = String(error),
  } = error as {
    stderr?: string;
    stdout?: string;
    message?: string;
  };
  return `${stderr}${stdout}`.trim() || message;
}
