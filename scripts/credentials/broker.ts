/** The configuration of the nats-servers of a deployment: a cluster, TLS, and a user for each service by its nkey. */

import { permissionsOf } from '../system/nats.js';

/** The servers of deploy/compose; each is started with its own `--name`. */
const SERVERS = ['nats-1', 'nats-2', 'nats-3'];

const CERTIFICATE = { cert_file: '/run/secrets/nats.crt', key_file: '/run/secrets/nats.key' };
const AUTHORITY = { ca_file: '/run/secrets/ca.crt' };

/**
 * The text of `nats.conf`, the same for all servers. It holds no secret: of the nkeys, only the public parts.
 *
 * @param keys - the public nkeys (`U…`) by user
 */
export function brokerConfiguration(keys: Readonly<Record<string, string>>): string {
  const settings = {
    host: '0.0.0.0',
    port: 4222,
    // For health checks: reached inside of the container alone.
    http: '127.0.0.1:8222',
    // A client that hangs is disconnected within seconds.
    ping_interval: '1s',
    ping_max: 3,
    tls: CERTIFICATE,
    cluster: {
      name: 'portcullis',
      host: '0.0.0.0',
      port: 6222,
      // A server of the cluster shows its certificate as well, with a name of one of the routes: every part of the
      // deployment has a certificate of this authority, and a route has no permissions.
      tls: { ...CERTIFICATE, ...AUTHORITY, verify: true, verify_cert_and_check_known_urls: true },
      routes: SERVERS.map((name) => `nats-route://${name}:6222`),
    },
    authorization: {
      users: Object.entries(keys).map(([user, nkey]) => ({ nkey, permissions: permissionsOf(user) })),
    },
  };
  return `${JSON.stringify(settings, null, 2)}\n`;
}
