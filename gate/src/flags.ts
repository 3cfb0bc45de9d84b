/** The settings of the gate by name: as flags of the command line, and as members of the configuration file. */

/** One setting. */
export interface Flag {
  /** Its name, without dashes; also that in the configuration file. */
  readonly name: string;
  /** What stands for its value in the help. */
  readonly value: string;
  readonly help: string;
}

/** Every setting of `portcullis gate` but `--config`, `limits` and `trusted-issuers`, which only a file can have. */
export const GATE_FLAGS = [
  flag('service', 'file', 'settings of the service, as portcullis service add --env writes them'),
  flag('issuer', 'name', 'the issuer (iss) whose tokens are accepted'),
  flag('audience', 'name', 'the audience (aud) of the service; default: the client id'),
  flag('auth', 'address', 'address of auth'),
  flag('auth-ca', 'file', 'CA certificates of auth (PEM); without it, plaintext on this machine only'),
  flag('auth-cert', 'file', 'client certificate for auth (PEM)'),
  flag('auth-key', 'file', 'key of that certificate (PEM)'),
  flag('client-id', 'id', 'client of the service at auth'),
  flag('client-key', 'file', 'private key of that client (PKCS #8, PEM)'),
  flag('nats', 'url', 'the broker; without it, revocations arrive with the next sync'),
  flag('nats-ca', 'file', 'CA certificates of the broker (PEM)'),
  flag('nats-nkey', 'file', 'nkey seed for the broker'),
  flag('nats-creds', 'file', 'credentials file for the broker'),
  flag('listen', 'address', 'where callers connect: HOST:PORT or unix:PATH'),
  flag('tls-cert', 'file', 'certificate for callers (PEM)'),
  flag('tls-key', 'file', 'key of that certificate (PEM)'),
  flag('client-ca', 'file', 'CA certificates of callers (PEM)'),
  flag('client-auth', 'mode', 'certificates of callers: off, request or require; default: off'),
  flag('plaintext', 'mode', 'where tokens may travel in plaintext: loopback or allow; default: loopback'),
  flag(
    'mode',
    'mode',
    'enforce, or observe: refuse nothing, and report what would be refused; default: enforce',
  ),
  flag('upstream', 'address', 'the server behind the gate: HOST:PORT or unix:PATH'),
  flag('upstream-ca', 'file', 'CA certificates of the upstream (PEM); turns TLS on'),
  flag('upstream-cert', 'file', 'certificate of the gate for the upstream (PEM)'),
  flag('upstream-key', 'file', 'key of that certificate (PEM)'),
  flag('upstream-name', 'name', "name in the upstream's certificate; default: the host of --upstream"),
  flag('upstream-exposed', 'mode', 'an upstream that others can reach: refuse or warn; default: refuse'),
  flag('descriptors', 'file', 'descriptor set of the service, as buf build -o FILE.binpb writes it'),
  flag('rules', 'file', 'access rules in YAML or JSON, for methods whose .proto has none'),
  flag('public', 'paths', 'methods that need no token, separated by commas: /package.Service/Method'),
  flag('health', 'mode', 'health methods of the upstream: public or closed; default: public'),
  flag('reflection', 'mode', 'its reflection methods: closed, public or authenticated; default: closed'),
  flag('token', 'mode', "the caller's token: strip or forward; default: strip"),
  flag('identity', 'mode', 'who calls, for the upstream: headers, signed or off; default: headers'),
  flag('identity-key', 'file', 'Ed25519 key that signs identities (PEM); default: a new one at each start'),
  flag('identity-issuer', 'name', 'iss of signed identities; default: portcullis-gate'),
  flag('identity-audience', 'name', 'aud of signed identities; default: the audience of the service'),
  flag(
    'ext-authz',
    'address',
    "where Envoy's ext_authz (gRPC) is answered: unix:PATH, or HOST:PORT with mTLS",
  ),
  flag('ext-authz-cert', 'file', 'certificate for Envoy (PEM)'),
  flag('ext-authz-key', 'file', 'key of that certificate (PEM)'),
  flag('ext-authz-client-ca', 'file', 'CA certificates of Envoy (PEM)'),
  flag(
    'http-check',
    'address',
    'where nginx, Caddy or Traefik ask over HTTP: unix:PATH or a loopback address',
  ),
  flag('http-check-path-header', 'name', 'header with the path of the method; default: x-original-uri'),
  flag(
    'http-check-address-header',
    'name',
    "header whose last address is the caller's, as the proxy sets it; default: x-forwarded-for",
  ),
  flag(
    'http-check-cert-header',
    'name',
    "header with the caller's certificate (PEM, URL encoded), set by the proxy always; default: none",
  ),
  flag('health-listen', 'address', 'where the gate answers grpc.health.v1 itself'),
  flag('ops-listen', 'address', 'where operators read /livez, /readyz, /metrics and /jwks.json'),
  flag('workers', 'number', 'processes that share the port; default: 1'),
  flag('drain-seconds', 'number', 'how long calls may take to end when the gate stops; default: 10'),
  flag('log-level', 'level', 'debug, info, warn or error; default: info'),
] as const satisfies readonly Flag[];

/** The name of a setting. */
export type FlagName = (typeof GATE_FLAGS)[number]['name'];

function flag<const Name extends string>(name: Name, value: string, help: string) {
  return { name, value, help };
}
