/** Another issuer: real keys, real tokens, and its key set over HTTP, with faults that a test selects. */

import { randomUUID } from 'node:crypto';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CompactSign, type CryptoKey, exportJWK, generateKeyPair, type JWK } from 'jose';

/** A key of another issuer. */
export interface ForeignKey {
  readonly kid: string;
  readonly algorithm: string;
  readonly privateKey: CryptoKey;
  readonly jwk: JWK;
}

export async function createForeignKey(algorithm = 'RS256', kid: string = randomUUID()): Promise<ForeignKey> {
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
  return {
    kid,
    algorithm,
    privateKey,
    jwk: { ...(await exportJWK(publicKey)), kid, alg: algorithm, use: 'sig' },
  };
}

/** Its response to a request for its keys. */
export type Behaviour = 'good' | 'down' | 'slow' | 'huge' | 'redirect' | 'lie';

export class ForeignIssuer {
  readonly name: string;
  keys: ForeignKey[];
  behaviour: Behaviour = 'good';
  /** The response body of the behaviour `lie`. */
  lie: unknown = {};
  /** The status of the behaviour `down`. */
  status = 503;
  asked = 0;
  /** The `accept` header of the last request. */
  accepted: string | undefined;
  /** The bytes that it sent before the client closed the connection. */
  sent = 0;
  readonly #server: Server;
  readonly #open = new Set<ServerResponse>();

  private constructor(name: string, key: ForeignKey) {
    this.name = name;
    this.keys = [key];
    this.#server = createServer((request, response) => {
      this.accepted = request.headers.accept;
      this.#answer(response);
    });
  }

  static async start(
    options: { name?: string; algorithm?: string; kid?: string } = {},
  ): Promise<ForeignIssuer> {
    const { name = 'https://keycloak.example/realms/shop', algorithm, kid } = options;
    const issuer = new ForeignIssuer(name, await createForeignKey(algorithm, kid));
    await new Promise<void>((resolve) => issuer.#server.listen(0, '127.0.0.1', resolve));
    return issuer;
  }

  /** The number of open responses. */
  get answering(): number {
    return this.#open.size;
  }

  get jwksUrl(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/certs`;
  }

  get key(): ForeignKey {
    const [key] = this.keys;
    if (key === undefined) throw new Error('the issuer has no key');
    return key;
  }

  /** The claims of a valid token, with this issuer's claim names. */
  claims(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    const now = Math.floor(Date.now() / 1000);
    return {
      iss: this.name,
      aud: ['echo'],
      sub: 'alice',
      azp: 'web',
      iat: now,
      exp: now + 300,
      jti: randomUUID(),
      sid: `session-${randomUUID()}`,
      scope: 'openid call',
      realm_access: { roles: ['clerk', 'root'] },
      ...over,
    };
  }

  sign(claims: unknown, header: object = {}, key: ForeignKey = this.key): Promise<string> {
    return new CompactSign(Buffer.from(JSON.stringify(claims)))
      .setProtectedHeader({ alg: key.algorithm, kid: key.kid, typ: 'JWT', ...header })
      .sign(key.privateKey);
  }

  token(over: Readonly<Record<string, unknown>> = {}): Promise<string> {
    return this.sign(this.claims(over));
  }

  async stop(): Promise<void> {
    for (const response of this.#open) response.destroy();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(response: ServerResponse): void {
    this.asked += 1;
    this.#open.add(response);
    response.on('close', () => this.#open.delete(response));
    switch (this.behaviour) {
      case 'good':
        response.end(JSON.stringify({ keys: this.keys.map(({ jwk }) => jwk) }));
        return;
      case 'lie':
        response.end(typeof this.lie === 'string' ? this.lie : JSON.stringify(this.lie));
        return;
      case 'down':
        response.statusCode = this.status;
        response.end();
        return;
      case 'redirect':
        response.statusCode = 302;
        response.setHeader('location', this.jwksUrl);
        response.end();
        return;
      case 'slow':
        response.writeHead(200);
        response.write('{');
        return;
      case 'huge': {
        const part = Buffer.alloc(64 * 1024, ' ');
        const pump = (): void => {
          if (response.destroyed) return;
          this.sent += part.length;
          response.write(part, () => setImmediate(pump));
        };
        pump();
        return;
      }
    }
  }
}
