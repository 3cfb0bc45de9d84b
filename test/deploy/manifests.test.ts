/** The manifests of deploy/kubernetes, which `npm run deployment` renders and validates with helm and kubeconform. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { faultsOf, mayConnect, readManifests } from '../../proofs/deployment/manifests.js';
import { VARIABLES as AUTH } from '../../services/auth/config.js';
import { ConfigurationError, parseEnvironment } from '../../services/common/config/env.js';
import { VARIABLES as INVENTORY } from '../../services/inventory/config.js';
import { VARIABLES as PAYMENT } from '../../services/payment/config.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';

const VARIABLES = { auth: AUTH, inventory: INVENTORY, payment: PAYMENT };
const SERVICES = ['auth', 'inventory', 'payment'] as const;
const read = (name: string): string =>
  readFileSync(join(PROJECT_FOLDER, 'deploy', 'kubernetes', name), 'utf8');

/** What each check is for: a text of the manifests, what stands there instead, and the fault that must be found. */
const SPOILED: readonly (readonly [string, string | RegExp, string, RegExp])[] = [
  ['a user that may be root', 'runAsUser: 65532', 'runAsUser: 0', /runs as root/],
  ['a group that cannot read secrets', 'fsGroup: 65532', 'fsGroup: 1', /cannot read the secrets/],
  ['no seccomp profile', 'type: RuntimeDefault', 'type: Unconfined', /no seccomp profile/],
  [
    'a token of the API',
    'automountServiceAccountToken: false',
    'automountServiceAccountToken: true',
    /token of the Kubernetes API/,
  ],
  [
    'gained privileges',
    'allowPrivilegeEscalation: false',
    'allowPrivilegeEscalation: true',
    /may gain privileges/,
  ],
  [
    'a writable root',
    'readOnlyRootFilesystem: true',
    'readOnlyRootFilesystem: false',
    /can write its root file system/,
  ],
  ['capabilities', 'drop: [ALL]', 'drop: [NET_RAW]', /keeps capabilities/],
  ['an image without a version', /image: portcullis\/auth:\S+/, 'image: portcullis/auth', /has no version/],
  ['an open secret', 'name: DATABASE_URL_FILE', 'name: DATABASE_URL', /DATABASE_URL is given openly/],
  ['a secret for everyone', 'defaultMode: 288', 'defaultMode: 292', /has the wrong mode/],
  [
    'a short grace period',
    /terminationGracePeriodSeconds: \d+/,
    'terminationGracePeriodSeconds: 15',
    /needs 20 s to stop, and has 15 s/,
  ],
  ['fewer pods during an update', 'maxUnavailable: 0', 'maxUnavailable: 1', /fewer pods during an update/],
  [
    'a restart when the database is away',
    'path: /livez, port: ops',
    'path: /readyz, port: ops',
    /probe does not ask/,
  ],
  ['a plaintext probe', /scheme: HTTPS/, 'scheme: HTTP', /probe does not ask HTTPS/],
  [
    'no disruption budget',
    'kind: PodDisruptionBudget',
    'kind: ConfigMap\ndata: {}',
    /has no disruption budget/,
  ],
  ['a job that gives up', 'restartPolicy: OnFailure', 'restartPolicy: Never', /does not try again/],
  ['a port that does not exist', 'targetPort: grpc', 'targetPort: http', /no pod has the port http/],
];

describe('deploy/kubernetes', () => {
  for (const name of ['portcullis.yaml', 'greeter.yaml']) {
    it(`has nothing wrong in ${name}`, () => {
      expect(faultsOf(readManifests(read(name)))).to.deep.equal([]);
    });
  }

  for (const [what, from, to, fault] of SPOILED) {
    it(`would be found with ${what}`, () => {
      const spoiled = read('portcullis.yaml').replace(from, to);
      expect(spoiled).to.not.equal(read('portcullis.yaml'));
      expect(faultsOf(readManifests(spoiled)).join('; ')).to.match(fault);
    });
  }

  it('would be found without a network policy', () => {
    const { policies, ...others } = readManifests(read('portcullis.yaml'));
    const weaker = policies.filter(({ metadata }) => !/deny|auth/.test(metadata.name));
    expect(faultsOf({ ...others, policies: weaker }).join()).to.match(/auth: has no network policy/);
  });

  it('sets only variables that the service reads, with values that it accepts', () => {
    for (const { metadata, spec } of readManifests(read('portcullis.yaml')).deployments) {
      const service = SERVICES.find((name) => metadata.name.endsWith(name));
      expect(service, metadata.name).to.not.equal(undefined);
      const [container] = spec.template.spec.containers;
      const env = Object.fromEntries(container?.env.map(({ name, value }) => [name, value]) ?? []);
      // The files are in the Secrets, so that they cannot be read is the only fault.
      for (const fault of faultsOfEnvironment(VARIABLES[service ?? 'auth'], env)) {
        expect(fault).to.match(/names a file that cannot be read \(ENOENT\)/);
      }
    }
  });

  it('gives the owner of the tables to the jobs alone, and the key-encryption key to auth alone', () => {
    const { deployments, jobs } = readManifests(read('portcullis.yaml'));
    const secretsOf = (pods: readonly (typeof deployments | typeof jobs)[number][]) =>
      pods.map(({ spec }) => spec.template.spec.volumes.flatMap(({ secret }) => secret?.secretName ?? []));
    expect(secretsOf(jobs)).to.deep.equal(SERVICES.map((name) => [`portcullis-${name}-migrate`]));
    expect(secretsOf(deployments)).to.deep.equal(
      SERVICES.map((name) => [`portcullis-${name}`, `portcullis-${name}-tls`]),
    );
    for (const { spec } of jobs) {
      const names = spec.template.spec.containers.flatMap(({ env }) => env.map(({ name }) => name));
      expect(names).to.deep.equal(['PORTCULLIS_MIGRATION_DATABASE_URL_FILE']);
    }
  });

  it('lets in who has to call, and nobody else', () => {
    const { policies, deployments } = readManifests(read('portcullis.yaml'));
    const labelsOf = (service: string) =>
      deployments.find(({ metadata }) => metadata.name.endsWith(service))?.spec.template.metadata.labels ??
      {};
    const pods = {
      ...Object.fromEntries(SERVICES.map((name) => [name, labelsOf(name)])),
      caller: { 'portcullis/calls': 'true' },
      stranger: { app: 'stranger' },
      job: { ...labelsOf('auth'), 'app.kubernetes.io/component': 'auth-migrate' },
    };
    const grpc = { auth: 50_051, inventory: 50_052, payment: 50_053 };
    const called = Object.fromEntries(
      SERVICES.map((to) => [
        to,
        Object.entries(pods)
          .filter(([, from]) =>
            mayConnect(policies, from, { labels: labelsOf(to), port: 'grpc', number: grpc[to] }),
          )
          .map(([name]) => name),
      ]),
    );
    expect(called).to.deep.equal({
      auth: ['inventory', 'payment', 'caller'],
      inventory: ['payment', 'caller'],
      payment: ['caller'],
    });
    for (const to of SERVICES) {
      const ops = { labels: labelsOf(to), port: 'ops', number: grpc[to] + 1000 };
      const reached = Object.entries(pods).filter(([, from]) => mayConnect(policies, from, ops));
      expect(reached, `the ops port of ${to}`).to.deep.equal([]);
    }
  });
});

function faultsOfEnvironment(
  variables: Parameters<typeof parseEnvironment>[0],
  env: NodeJS.ProcessEnv,
): string[] {
  try {
    parseEnvironment(variables, env);
    return [];
  } catch (error) {
    if (error instanceof ConfigurationError)
      return error.faults.map(({ variable, problem }) => `${variable} ${problem}`);
    throw error;
  }
}
