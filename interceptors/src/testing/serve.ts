/** A guarded server on a free port of this machine, and clients of it. */

import {
  type ChannelCredentials,
  type Client,
  type ClientOptions,
  credentials,
  type Interceptor,
  Server,
  ServerCredentials,
  type ServerOptions,
} from '@grpc/grpc-js';
import type { Guard } from '../server/guard.js';
import type { Credential } from './matrix.js';
import { attach } from './personas.js';

/** A generated client class. */
export type ClientClass<C extends Client> = new (
  address: string,
  credentials: ChannelCredentials,
  options?: Partial<ClientOptions>,
) => C;

/** Adds services to a server through the guard, as the program under test does. */
export type Setup = (server: Server, guard: Guard) => void;

/** A running server. */
export interface Served {
  /** The server's address, as a grpc-js target. */
  readonly address: string;
  readonly port: number;
  readonly server: Server;
  readonly guard: Guard;
  /**
   * Creates a client of the server. It is closed with the server.
   *
   * @param ClientOf - the generated class
   * @param credential - what its calls are authenticated with. Default: nothing
   */
  client<C extends Client>(
    ClientOf: ClientClass<C>,
    credential?: Credential,
    options?: Partial<ClientOptions>,
  ): C;
  /** Ends all calls, and closes the server and its clients. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const LOOPBACK = '127.0.0.1';

/** @throws Error what `setup` throws, such as the TypeError about a method without a rule */
export async function serveGuarded(
  guard: Guard,
  setup: Setup,
  options: Partial<ServerOptions>,
): Promise<Served> {
  const { interceptors = [] } = options;
  const server = new Server({ ...options, interceptors: [...interceptors, guard.interceptor] });
  setup(server, guard);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${LOOPBACK}:0`, ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  return new RunningServer(server, guard, port);
}

class RunningServer implements Served {
  readonly address: string;
  readonly port: number;
  readonly server: Server;
  readonly guard: Guard;
  readonly #clients: Client[] = [];

  constructor(server: Server, guard: Guard, port: number) {
    this.address = `${LOOPBACK}:${port}`;
    this.port = port;
    this.server = server;
    this.guard = guard;
  }

  client<C extends Client>(
    ClientOf: ClientClass<C>,
    credential?: Credential,
    options: Partial<ClientOptions> = {},
  ): C {
    const client = new ClientOf(this.address, credentials.createInsecure(), {
      ...options,
      interceptors: [...(options.interceptors ?? []), ...interceptorsOf(credential)],
    });
    this.#clients.push(client);
    return client;
  }

  async close(): Promise<void> {
    for (const client of this.#clients.splice(0)) client.close();
    this.server.forceShutdown();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function interceptorsOf(credential: Credential): readonly Interceptor[] {
  if (credential === undefined) return [];
  return [typeof credential === 'object' ? credential.interceptor : attach(() => credential)];
}
