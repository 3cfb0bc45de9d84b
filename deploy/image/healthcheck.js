/**
 * The health check of the images: exits with code 0 if the process is ready, else says what is missing and exits with
 * code 1. `healthcheck.js [HOST:PORT]`; without an argument, the address is that of PORTCULLIS_OPS_LISTEN.
 */

import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';

const TIMEOUT_MS = 4_000;
/** Listening on all addresses includes these. */
const LOOPBACK = new Map([
  ['0.0.0.0', '127.0.0.1'],
  ['::', '::1'],
]);

const address = process.argv[2] ?? process.env['PORTCULLIS_OPS_LISTEN'] ?? '';
const [, listening = '', port] = /^\[?([^\]]*)\]?:(\d+)$/.exec(address) ?? [];
if (port === undefined) fail(`expected HOST:PORT, got "${address}"`);
const options = {
  host: LOOPBACK.get(listening) ?? listening,
  port,
  path: '/readyz',
  timeout: TIMEOUT_MS,
  // The certificate names the service and not this address. Nothing secret is sent.
  rejectUnauthorized: false,
};
const isTls = process.argv[2] === undefined && process.env['PORTCULLIS_TLS_CERT_FILE'] !== undefined;
const probe = (isTls ? requestHttps : requestHttp)(options, (response) => {
  let body = '';
  response.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
    body += text;
  });
  response.on('end', () => {
    if (response.statusCode === 200) process.exit(0);
    fail(body.trim());
  });
});
probe.on('timeout', () => fail(`no answer from ${address} within ${TIMEOUT_MS} ms`));
probe.on('error', ({ message }) => fail(message));
probe.end();

/**
 * @param {string} reason
 * @returns {never}
 */
function fail(reason) {
  process.stdout.write(`${reason}\n`);
  process.exit(1);
}
