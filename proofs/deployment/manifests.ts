/** What must hold of manifests of Kubernetes, whatever the values were from which they were rendered. */

import { parseAllDocuments } from 'yaml';
import { z } from 'zod';

/** After the drain, a service closes the rest within this time, in seconds. */
const STOP_GRACE_SECONDS = 5;
const DRAIN_SECONDS_DEFAULT = 10;

/** Variables whose value is a secret: they are given as `NAME_FILE`. */
const SECRETS = ['DATABASE_URL', 'PORTCULLIS_MIGRATION_DATABASE_URL', 'PORTCULLIS_KEY_ENCRYPTION_KEY'];

const labels = z.record(z.string(), z.string());

const probe = z.object({
  httpGet: z.object({ path: z.string(), port: z.string(), scheme: z.string().default('HTTP') }),
});

const container = z.object({
  name: z.string(),
  image: z.string(),
  args: z.array(z.string()).default([]),
  env: z.array(z.object({ name: z.string(), value: z.string() })).default([]),
  ports: z.array(z.object({ name: z.string(), containerPort: z.number() })).default([]),
  securityContext: z.object({
    allowPrivilegeEscalation: z.boolean(),
    readOnlyRootFilesystem: z.boolean(),
    capabilities: z.object({ drop: z.array(z.string()) }),
  }),
  startupProbe: probe.optional(),
  livenessProbe: probe.optional(),
  readinessProbe: probe.optional(),
  lifecycle: z.object({ preStop: z.object({ sleep: z.object({ seconds: z.number() }) }) }).optional(),
  resources: z.object({
    requests: z.object({ cpu: z.string(), memory: z.string() }),
    limits: z.object({ memory: z.string() }),
  }),
  volumeMounts: z
    .array(z.object({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().default(false) }))
    .default([]),
});

const pod = z.object({
  metadata: z.object({ labels }),
  spec: z.object({
    automountServiceAccountToken: z.boolean(),
    restartPolicy: z.string().optional(),
    terminationGracePeriodSeconds: z.number().optional(),
    securityContext: z.object({
      runAsNonRoot: z.boolean(),
      runAsUser: z.number(),
      runAsGroup: z.number(),
      fsGroup: z.number(),
      seccompProfile: z.object({ type: z.string() }),
    }),
    containers: z.array(container),
    volumes: z.array(
      z.object({
        name: z.string(),
        secret: z.object({ secretName: z.string(), defaultMode: z.number() }).optional(),
      }),
    ),
  }),
});

const meta = z.object({ name: z.string() });
const selector = z.object({ matchLabels: labels });

const deployment = z.object({
  kind: z.literal('Deployment'),
  metadata: meta,
  spec: z.object({
    replicas: z.number(),
    selector,
    strategy: z.object({ rollingUpdate: z.object({ maxUnavailable: z.number() }) }),
    template: pod,
  }),
});
const job = z.object({ kind: z.literal('Job'), metadata: meta, spec: z.object({ template: pod }) });
const service = z.object({
  kind: z.literal('Service'),
  metadata: meta,
  spec: z.object({
    clusterIP: z.string().optional(),
    selector: labels,
    ports: z.array(z.object({ name: z.string(), port: z.number(), targetPort: z.string() })),
  }),
});
const budget = z.object({
  kind: z.literal('PodDisruptionBudget'),
  metadata: meta,
  spec: z.object({ maxUnavailable: z.number(), selector }),
});
const peer = z.object({ podSelector: selector.optional() }).loose();
const ports = z.array(z.object({ protocol: z.string(), port: z.union([z.string(), z.number()]) }));
const policy = z.object({
  kind: z.literal('NetworkPolicy'),
  metadata: meta,
  spec: z.object({
    podSelector: selector,
    policyTypes: z.array(z.enum(['Ingress', 'Egress'])),
    ingress: z.array(z.object({ ports: ports.optional(), from: z.array(peer).optional() })).default([]),
    egress: z.array(z.object({ ports: ports.optional(), to: z.array(peer).optional() })).default([]),
  }),
});
const configMap = z.object({
  kind: z.literal('ConfigMap'),
  metadata: meta,
  data: z.record(z.string(), z.string()),
});

const manifest = z.discriminatedUnion('kind', [deployment, job, service, budget, policy, configMap]);

type Manifest = z.infer<typeof manifest>;
type Labels = z.infer<typeof labels>;
type Pod = z.infer<typeof pod>;
type Container = z.infer<typeof container>;
type Policy = z.infer<typeof policy>;

/** Manifests by kind. */
export interface Manifests {
  readonly deployments: readonly z.infer<typeof deployment>[];
  readonly jobs: readonly z.infer<typeof job>[];
  readonly services: readonly z.infer<typeof service>[];
  readonly budgets: readonly z.infer<typeof budget>[];
  readonly policies: readonly Policy[];
  readonly configMaps: readonly z.infer<typeof configMap>[];
}

/**
 * Reads the documents of a file.
 *
 * @throws Error when one is not YAML, of an unknown kind, or lacks a member that is checked
 */
export function readManifests(text: string): Manifests {
  // Kubernetes reads YAML 1.1.
  const documents = parseAllDocuments(text, { version: '1.1' });
  const all = documents.flatMap((document): Manifest[] => {
    if (document.errors[0] !== undefined) throw document.errors[0];
    const content: unknown = document.toJS();
    return content === null ? [] : [manifest.parse(content)];
  });
  const of = <Kind extends Manifest['kind']>(kind: Kind): Extract<Manifest, { kind: Kind }>[] =>
    all.filter((one): one is Extract<Manifest, { kind: Kind }> => one.kind === kind);
  return {
    deployments: of('Deployment'),
    jobs: of('Job'),
    services: of('Service'),
    budgets: of('PodDisruptionBudget'),
    policies: of('NetworkPolicy'),
    configMaps: of('ConfigMap'),
  };
}

/** What is wrong with manifests; nothing when they are as they must be. */
export function faultsOf(manifests: Manifests): readonly string[] {
  const { deployments, jobs } = manifests;
  return [
    ...[...deployments, ...jobs].flatMap(({ kind, metadata, spec }) =>
      podFaults(spec.template).map((fault) => `${kind} ${metadata.name}: ${fault}`),
    ),
    ...deployments.flatMap((one) =>
      [...deploymentFaults(one, manifests)].map((fault) => `Deployment ${one.metadata.name}: ${fault}`),
    ),
    ...jobs.flatMap(({ metadata, spec }) =>
      spec.template.spec.restartPolicy === 'OnFailure' ? [] : [`Job ${metadata.name}: does not try again`],
    ),
    ...serviceFaults(manifests),
  ];
}

function podFaults({ spec }: Pod): string[] {
  const faults: string[] = [];
  const must = (holds: boolean, fault: string): void => {
    if (!holds) faults.push(fault);
  };
  const { runAsNonRoot, runAsUser, fsGroup, runAsGroup, seccompProfile } = spec.securityContext;
  must(runAsNonRoot && runAsUser > 0 && runAsGroup > 0, 'runs as root');
  must(fsGroup === runAsGroup, 'cannot read the secrets: fsGroup is not its group');
  must(seccompProfile.type === 'RuntimeDefault', 'has no seccomp profile');
  must(!spec.automountServiceAccountToken, 'has a token of the Kubernetes API');
  for (const { name, secret } of spec.volumes) {
    must(secret === undefined || secret.defaultMode === 0o440, `the secret ${name} has the wrong mode`);
  }
  for (const one of spec.containers) faults.push(...containerFaults(one, spec));
  return faults;
}

function containerFaults(one: Container, { volumes }: Pod['spec']): string[] {
  const faults: string[] = [];
  const { allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities } = one.securityContext;
  if (allowPrivilegeEscalation) faults.push('may gain privileges');
  if (!readOnlyRootFilesystem) faults.push('can write its root file system');
  if (capabilities.drop.join() !== 'ALL') faults.push('keeps capabilities');
  if (!/:[\w.-]+$/.test(one.image) || one.image.endsWith(':latest'))
    faults.push(`${one.image} has no version`);
  for (const { name } of one.env) if (SECRETS.includes(name)) faults.push(`${name} is given openly`);
  for (const { name, readOnly } of one.volumeMounts) {
    const volume = volumes.find((candidate) => candidate.name === name);
    if (volume === undefined) faults.push(`mounts ${name}, which is no volume`);
    else if (volume.secret !== undefined && !readOnly) faults.push(`can write ${name}`);
  }
  return faults.map((fault) => `${one.name}: ${fault}`);
}

function* deploymentFaults(
  { spec }: Manifests['deployments'][number],
  { budgets, policies }: Manifests,
): Iterable<string> {
  const { template, selector: own, strategy } = spec;
  const { labels: podLabels } = template.metadata;
  if (!matches(own.matchLabels, podLabels)) yield 'does not select its pods';
  if (strategy.rollingUpdate.maxUnavailable !== 0) yield 'serves with fewer pods during an update';
  if (
    !budgets.some(({ spec: of }) => of.maxUnavailable === 1 && matches(of.selector.matchLabels, podLabels))
  ) {
    yield 'has no disruption budget';
  }
  if (policies.length > 0 && !isIsolated(podLabels, policies))
    yield 'has no network policy of both directions';
  const graceSeconds = template.spec.terminationGracePeriodSeconds ?? 0;
  for (const one of template.spec.containers) {
    const pauseSeconds = one.lifecycle?.preStop.sleep.seconds ?? 0;
    const needsSeconds = pauseSeconds + drainSecondsOf(one) + STOP_GRACE_SECONDS;
    if (one.ports.length > 0 && graceSeconds < needsSeconds) {
      yield `${one.name} needs ${needsSeconds} s to stop, and has ${graceSeconds} s`;
    }
    if (one.ports.length > 0) yield* probeFaults(one);
  }
}

function drainSecondsOf({ env }: Container): number {
  const given = env.find(({ name }) => name === 'PORTCULLIS_DRAIN_SECONDS')?.value;
  return given === undefined ? DRAIN_SECONDS_DEFAULT : Number(given);
}

function* probeFaults({
  name,
  env,
  startupProbe,
  livenessProbe,
  readinessProbe,
}: Container): Iterable<string> {
  const scheme = env.some((variable) => variable.name === 'PORTCULLIS_TLS_CERT_FILE') ? 'HTTPS' : 'HTTP';
  for (const [kind, given, path] of [
    ['startup', startupProbe, '/livez'],
    ['liveness', livenessProbe, '/livez'],
    ['readiness', readinessProbe, '/readyz'],
  ] as const) {
    const { httpGet } = given ?? {};
    if (httpGet?.path !== path || httpGet.port !== 'ops' || httpGet.scheme !== scheme) {
      yield `${name}: the ${kind} probe does not ask ${scheme} ${path} of the ops port`;
    }
  }
}

function serviceFaults({ services, deployments }: Manifests): string[] {
  return services.flatMap(({ metadata, spec }) => {
    const target = deployments.find(({ spec: of }) => matches(spec.selector, of.template.metadata.labels));
    const open =
      target?.spec.template.spec.containers.flatMap((one) => one.ports.map(({ name }) => name)) ?? [];
    return spec.ports
      .filter(({ targetPort }) => !open.includes(targetPort))
      .map(({ targetPort }) => `Service ${metadata.name}: no pod has the port ${targetPort}`);
  });
}

function isIsolated(podLabels: Labels, policies: readonly Policy[]): boolean {
  const types = policies
    .filter(({ spec }) => matches(spec.podSelector.matchLabels, podLabels))
    .flatMap(({ spec }) => spec.policyTypes);
  return types.includes('Ingress') && types.includes('Egress');
}

/** Whether labels have all that a selector names. */
function matches(wanted: Labels, given: Labels): boolean {
  return Object.entries(wanted).every(([name, value]) => given[name] === value);
}

/**
 * Whether the policies let a pod of the namespace connect to a port of another one, by its name. Namespaces and addresses of
 * peers are not evaluated: they admit no pod here.
 */
export function mayConnect(
  policies: readonly Policy[],
  from: Labels,
  to: { readonly labels: Labels; readonly port: string; readonly number: number },
): boolean {
  const leaves = admits(policies, 'Egress', from, ({ spec }) =>
    spec.egress.some((rule) => hasPort(rule.ports, to.number) && hasPeer(rule.to, to.labels)),
  );
  const enters = admits(policies, 'Ingress', to.labels, ({ spec }) =>
    spec.ingress.some(
      (rule) => (hasPort(rule.ports, to.port) || hasPort(rule.ports, to.number)) && hasPeer(rule.from, from),
    ),
  );
  return leaves && enters;
}

/** A pod that no policy of a direction selects may do everything. */
function admits(
  policies: readonly Policy[],
  direction: 'Ingress' | 'Egress',
  podLabels: Labels,
  allows: (one: Policy) => boolean,
): boolean {
  const own = policies.filter(
    ({ spec }) => spec.policyTypes.includes(direction) && matches(spec.podSelector.matchLabels, podLabels),
  );
  return own.length === 0 || own.some(allows);
}

function hasPort(list: z.infer<typeof ports> | undefined, port: string | number): boolean {
  return list === undefined || list.some((one) => one.port === port);
}

function hasPeer(list: readonly z.infer<typeof peer>[] | undefined, podLabels: Labels): boolean {
  if (list === undefined) return true;
  return list.some(
    (one) =>
      Object.keys(one).join() === 'podSelector' && matches(one.podSelector?.matchLabels ?? {}, podLabels),
  );
}
