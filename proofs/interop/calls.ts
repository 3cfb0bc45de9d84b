/** Calls that are made twice, directly and through a gate or proxy, and what the client receives of each. */

import {
  Metadata as CallMetadata,
  Client,
  type ClientOptions,
  credentials,
  type Metadata,
  type ServiceError,
  type StatusObject,
  status,
} from '@grpc/grpc-js';

/** The path before the name of a method. */
const SERVICE_PATH = '/interop.v1.EchoService/';

const DEADLINE_MS = 30_000;

/** Sizes around what flow control and frames can spoil, in bytes. */
const SIZES = [0, 1, 16_384, 65_536, 4_000_000];

/** Messages of a stream. */
const STREAM_LENGTH = 200;

/** Largest message, in bytes; the gate's own limit for a request is 4 MiB. */
const MESSAGE_BYTES_MAX = 32 * 1024 * 1024;

/** gzip, in the numbers of grpc-js. */
const GZIP = 2;

/** What a client received, in a form that can be compared. */
export type Received = Readonly<Record<string, unknown>>;

/** One call. */
export interface Scenario {
  readonly name: string;
  run(target: Target): Promise<Received>;
}

/** Where calls go, and with which credential. */
export class Target {
  readonly client: Client;
  readonly token: string | undefined;

  constructor(address: string, token: string | undefined, options: Partial<ClientOptions> = {}) {
    this.token = token;
    this.client = new Client(address, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
      'grpc.use_local_subchannel_pool': 1,
      ...options,
    });
  }

  metadata(entries: Readonly<Record<string, string | Buffer>> = {}): Metadata {
    const metadata = new CallMetadata();
    for (const [name, value] of Object.entries(entries)) metadata.add(name, value);
    if (this.token !== undefined) metadata.set('authorization', `Bearer ${this.token}`);
    return metadata;
  }

  close(): void {
    this.client.close();
  }
}

const bytes = (value: Buffer): Buffer => value;

/** A unary call with everything that the client receives. */
export function unary(
  { client }: Target,
  method: string,
  request: Buffer,
  metadata: Metadata,
  deadlineMs = DEADLINE_MS,
): Promise<Received> {
  return new Promise((resolve) => {
    let initial: Metadata | undefined;
    let response: Buffer | undefined;
    const options = { deadline: Date.now() + deadlineMs };
    const call = client.makeUnaryRequest(
      `${SERVICE_PATH}${method}`,
      bytes,
      bytes,
      request,
      metadata,
      options,
      (error: ServiceError | null, value?: Buffer) => {
        response = error === null ? value : undefined;
      },
    );
    call.once('metadata', (received: Metadata) => {
      initial = received;
    });
    call.once('status', (ended: StatusObject) =>
      resolve({ ...endOf(ended, initial), response: digestOf(response) }),
    );
  });
}

function endOf({ code, details, metadata }: StatusObject, initial?: Metadata): Received {
  return {
    code: status[code],
    message: details,
    initial: ownOf(initial),
    trailing: ownOf(metadata),
    details: metadata.get('grpc-status-details-bin').map((value) => Buffer.from(value).toString('hex')),
  };
}

/**
 * Metadata of the service: what proxies and servers add for themselves is left out. Sorted, as
 * servers may send names in any order (grpc-go walks a map), and only values of one name have one.
 */
function ownOf(metadata: Metadata | undefined): Received {
  const entries = Object.entries(metadata?.toHttp2Headers() ?? {});
  const own = entries.filter(([name]) => name.startsWith('x-') && !name.startsWith('x-envoy-'));
  return Object.fromEntries(own.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function digestOf(response: Buffer | undefined): string | undefined {
  if (response === undefined) return undefined;
  return response.length <= 100 ? response.toString('latin1') : `${response.length} bytes of ${response[0]}`;
}

/** Reads a stream to its end. */
async function collect(stream: AsyncIterable<Buffer> & NodeJS.EventEmitter): Promise<Received> {
  const ended = new Promise<StatusObject>((resolve) => stream.once('status', resolve));
  const messages: string[] = [];
  try {
    for await (const message of stream) messages.push(message.toString('latin1'));
  } catch {
    // The status has it.
  }
  return { ...endOf(await ended), messages: messages.length, first: messages[0], last: messages.at(-1) };
}

/** Every kind of call. */
export const SCENARIOS: readonly Scenario[] = [
  ...SIZES.map((size) => ({
    name: `unary, ${size} bytes`,
    run: (target: Target) => unary(target, 'Unary', Buffer.alloc(size, 97), target.metadata()),
  })),
  {
    name: 'metadata, text and binary',
    run: (target) =>
      unary(
        target,
        'Metadata',
        Buffer.alloc(0),
        target.metadata({ 'x-text': 'a, b', 'x-data-bin': Buffer.from([0, 255, 10]) }),
      ),
  },
  {
    name: 'an error with details',
    run: (target) => unary(target, 'Fail', Buffer.alloc(0), target.metadata()),
  },
  {
    name: 'a method that does not exist at the server',
    run: async (target) => {
      const { code } = await unary(target, 'Missing', Buffer.alloc(0), target.metadata());
      return { code };
    },
  },
  {
    name: 'a deadline that the server sees',
    run: (target) => unary(target, 'Deadline', Buffer.alloc(0), target.metadata(), 20_000),
  },
  {
    name: 'a deadline that passes',
    run: async (target) => {
      const { client } = target;
      const options = { deadline: Date.now() + 300 };
      const stream = client.makeServerStreamRequest(
        `${SERVICE_PATH}ServerStream`,
        bytes,
        bytes,
        Buffer.from('0'),
        target.metadata(),
        options,
      );
      const { code } = await collect(stream);
      // The server has the same deadline. If its timer is first, it resets the stream, and the client reads that as CANCELLED.
      return { code: code === 'CANCELLED' ? 'DEADLINE_EXCEEDED' : code };
    },
  },
  {
    name: 'gzip in both directions',
    run: async (target) => {
      const compressing = new Target(
        target.client.getChannel().getTarget().replace(/^dns:/, ''),
        target.token,
        {
          'grpc.default_compression_algorithm': GZIP,
        },
      );
      try {
        return await unary(compressing, 'Compressed', Buffer.alloc(100_000, 98), target.metadata());
      } finally {
        compressing.close();
      }
    },
  },
  {
    name: 'a stream of responses',
    run: (target) =>
      collect(
        target.client.makeServerStreamRequest(
          `${SERVICE_PATH}ServerStream`,
          bytes,
          bytes,
          Buffer.from(String(STREAM_LENGTH)),
          target.metadata(),
          { deadline: Date.now() + DEADLINE_MS },
        ),
      ),
  },
  {
    name: 'a stream of requests',
    run: (target) =>
      new Promise((resolve) => {
        let response: Buffer | undefined;
        const options = { deadline: Date.now() + DEADLINE_MS };
        const call = target.client.makeClientStreamRequest(
          `${SERVICE_PATH}ClientStream`,
          bytes,
          bytes,
          target.metadata(),
          options,
          (error: ServiceError | null, value?: Buffer) => {
            response = error === null ? value : undefined;
          },
        );
        call.once('status', (ended: StatusObject) =>
          resolve({ ...endOf(ended), response: digestOf(response) }),
        );
        for (let sent = 0; sent < STREAM_LENGTH; sent++) call.write(Buffer.alloc(1000, sent));
        call.end();
      }),
  },
  {
    name: 'streams in both directions',
    run: async (target) => {
      const call = target.client.makeBidiStreamRequest(
        `${SERVICE_PATH}Bidi`,
        bytes,
        bytes,
        target.metadata(),
        {
          deadline: Date.now() + DEADLINE_MS,
        },
      );
      for (let sent = 0; sent < STREAM_LENGTH; sent++) call.write(Buffer.from(`message ${sent}`));
      call.end();
      return await collect(call);
    },
  },
  {
    name: 'a cancellation that reaches the server',
    run: async (target) => {
      const before = await cancellationsOf(target);
      const stream = target.client.makeServerStreamRequest(
        `${SERVICE_PATH}ServerStream`,
        bytes,
        bytes,
        Buffer.from('0'),
        target.metadata(),
        {
          deadline: Date.now() + DEADLINE_MS,
        },
      );
      stream.once('data', () => stream.cancel());
      const { code } = await collect(stream);
      const untilMs = performance.now() + 5_000;
      while ((await cancellationsOf(target)) === before && performance.now() < untilMs) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      return { code, cancelled: (await cancellationsOf(target)) > before };
    },
  },
];

async function cancellationsOf(target: Target): Promise<number> {
  const { response } = await unary(target, 'Cancellations', Buffer.alloc(0), target.metadata());
  return Number(response);
}

/** A stream without end, and how it ended. */
export interface OpenStream {
  /** Resolves with the first message. */
  readonly begun: Promise<void>;
  readonly ended: Promise<{ readonly code: string; readonly details: string; readonly atMs: number }>;
  cancel(): void;
}

/** Opens a stream without end. */
export function openStream(target: Target): OpenStream {
  const stream = target.client.makeServerStreamRequest(
    `${SERVICE_PATH}ServerStream`,
    bytes,
    bytes,
    Buffer.from('0'),
    target.metadata(),
    {
      deadline: Date.now() + 2 * DEADLINE_MS,
    },
  );
  const begun = new Promise<void>((resolve, reject) => {
    stream.once('data', () => resolve());
    stream.once('error', reject);
  });
  const ended = new Promise<{ code: string; details: string; atMs: number }>((resolve) => {
    stream.once('status', ({ code, metadata }: StatusObject) =>
      resolve({
        code: status[code],
        details: metadata.get('grpc-status-details-bin').map(String).join(),
        atMs: performance.now(),
      }),
    );
  });
  stream.on('error', () => {});
  stream.on('data', () => {});
  begun.catch(() => {});
  return { begun, ended, cancel: () => stream.cancel() };
}
