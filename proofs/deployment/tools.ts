/** The programs with which charts are rendered and validated, and containers are built and run. */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { CACHE, exec, exists, obtain, onPath, type Peer, venv } from '../shared/programs.js';
import { openPodman, type Podman } from './podman.js';

/** Versions that are fetched. */
const HELM = 'helm.sh/helm/v3/cmd/helm@v3.22.0';
const KUBECONFORM = 'github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0';
/** It contains the schemas of Kubernetes. */
const SCHEMAS = 'kubernetes-validate==1.37.0';
const PODMAN_COMPOSE = 'podman-compose==1.5.0';

/** Helm. */
export function helm(): Promise<Peer<string>> {
  return obtain('helm', async () => {
    const value = (await onPath('helm')) ?? (await fromGo('helm', HELM));
    const { stdout } = await exec(value, ['version', '--template', '{{.Version}}']);
    return { value, version: stdout.trim() };
  });
}

/** Kubeconform, and the schemas that it validates with. */
interface Kubeconform {
  readonly program: string;
  /** A template of `--schema-location`. */
  readonly schemas: string;
  /** The version of Kubernetes whose schemas they are. */
  readonly kubernetes: string;
}

/** Kubeconform with the newest schemas, which it cannot fetch everywhere. */
export function kubeconform(): Promise<Peer<Kubeconform>> {
  return obtain('kubeconform', async () => {
    const program = (await onPath('kubeconform')) ?? (await fromGo('kubeconform', KUBECONFORM));
    const { folder, kubernetes } = await strictSchemas();
    const schemas = join(folder, '{{ .ResourceKind }}{{ .KindSuffix }}.json');
    return {
      value: { program, schemas, kubernetes },
      version: `with the schemas of Kubernetes ${kubernetes}`,
    };
  });
}

/** The newest schemas, and their version. */
async function strictSchemas(): Promise<{ readonly folder: string; readonly kubernetes: string }> {
  const folder = join(CACHE, 'kubernetes-schemas');
  const version = join(folder, 'version');
  if (!(await exists(version))) {
    await mkdir(folder, { recursive: true });
    const words = [
      'download',
      '--quiet',
      '--no-deps',
      '--disable-pip-version-check',
      '--dest',
      folder,
      SCHEMAS,
    ];
    await exec('python3', ['-m', 'pip', ...words]);
    const wheel = (await readdir(folder)).find((name) => name.endsWith('.whl')) ?? '';
    const script = join(PROJECT_FOLDER, 'proofs', 'deployment', 'schemas.py');
    const { stdout } = await exec('python3', [script, join(folder, wheel), folder]);
    await writeFile(version, stdout.trim());
  }
  return { folder, kubernetes: await readFile(version, 'utf8') };
}

async function fromGo(name: string, source: string): Promise<string> {
  const folder = join(CACHE, 'bin');
  const program = join(folder, name);
  if (!(await exists(program))) {
    await mkdir(folder, { recursive: true });
    await exec('go', ['install', source], PROJECT_FOLDER, { GOBIN: folder });
  }
  return program;
}

/** Podman with the images of others, where this machine has podman and can run containers. */
export function containers(options: Parameters<typeof openPodman>[1]): Promise<Peer<Podman>> {
  return obtain('podman', async () => {
    const program = await onPath('podman');
    if (program === undefined) throw new Error('podman is not installed: apt-get install podman runc');
    const podman = await openPodman(program, options);
    return { value: podman, version: await podman.run('version', '--format', '{{.Client.Version}}') };
  });
}

/** The program of podman-compose. */
export function podmanCompose(): Promise<Peer<string>> {
  return obtain('podman-compose', async () => {
    const python = await venv('podman-compose', [PODMAN_COMPOSE]);
    return { value: join(python, '..', 'podman-compose'), version: PODMAN_COMPOSE.split('==')[1] ?? '' };
  });
}
