/** The settings of the proxies beside which a gate is measured. */

import { join } from 'node:path';

/** What nginx keeps in temporary folders. */
const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'] as const;

/** More than any connection of the bench makes. */
const REQUESTS_MAX = 1_000_000_000;

/** Settings of nginx: one process, which keeps the connections of both sides for as long as the bench needs them. */
export function nginxSettings(places: { folder: string; port: number; upstreamPort: number }): string {
  const { folder, port, upstreamPort } = places;
  return `daemon off;
worker_processes 1;
error_log stderr error;
pid ${join(folder, 'nginx.pid')};
events { worker_connections 4096; }
http {
  access_log off;
${TEMPORARY.map((kind) => `  ${kind}_temp_path ${join(folder, kind)};`).join('\n')}
  keepalive_requests ${REQUESTS_MAX};
  keepalive_timeout 1h;
  upstream service {
    server 127.0.0.1:${upstreamPort};
    keepalive 64;
    keepalive_requests ${REQUESTS_MAX};
  }
  server {
    listen 127.0.0.1:${port} http2;
    client_max_body_size 0;
    location / { grpc_pass grpc://service; }
  }
}
`;
}

/** Settings of haproxy: one thread, and connections to the server that its clients share. */
export function haproxySettings({ port, upstreamPort }: { port: number; upstreamPort: number }): string {
  return `global
  nbthread 1
  # With its default of 16 KiB, haproxy 2.6 ends connections whose messages nearly fill a buffer (GOAWAY).
  tune.bufsize 32768
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend callers
  bind 127.0.0.1:${port} proto h2
  default_backend services
backend services
  server service 127.0.0.1:${upstreamPort} proto h2
`;
}
