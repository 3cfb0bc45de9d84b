/** A gate on the engine of the library's kit, in front of an unguarded echo server. */

import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  MethodDescriptorProtoSchema,
  ServiceDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import {
  Client,
  credentials,
  type Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { GuardLimits } from '@portcullis/guard';
import type { Engine } from '@portcullis/guard/engine';
import { createTestKit, type TestKit } from '@portcullis/guard/testing';
import { type Gate, startGate } from '../../gate/src/gate.js';
import type { GateLog } from '../../gate/src/log.js';
import { createGateMetrics } from '../../gate/src/metrics.js';
import type { GateSettings } from '../../gate/src/settings.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { ECHO } from '../support/echo.js';

const AUDIENCE = 'echo';

/** Rules of the echo service, as a file. */
const RULES = `
services:
  test.v1.EchoService:
    Unary: {scopes: echo.call}
    ServerStream: {scopes: echo.call}
    ClientStream: {scopes: echo.call}
    Bidi: {scopes: echo.call}
    Public: public
    Operators: {roles: [operator]}
`;

export const SILENT: GateLog = { info: () => {}, warn: () => {}, error: () => {} };

/** A log that keeps its lines. */
export function keptLog(): { readonly log: GateLog; readonly lines: { event?: string; level: string }[] } {
  const lines: { event?: string; level: string }[] = [];
  const write = (level: string) => (fields: object) => void lines.push({ ...fields, level });
  return { log: { info: write('info'), warn: write('warn'), error: write('error') }, lines };
}

/** An echo server that nothing guards, on a unix socket. */
export interface Upstream {
  readonly address: string;
  /** The metadata of the calls that reached it. */
  readonly received: Metadata[];
  stop(): void;
}

export async function startUpstream(
  folder: TemporaryFolder,
  bind = `unix:${join(folder.path, 'up.sock')}`,
  {
    credentials: own = ServerCredentials.createInsecure(),
    add = () => {},
  }: { readonly credentials?: ServerCredentials; readonly add?: (server: Server) => void } = {},
): Promise<Upstream> {
  const received: Metadata[] = [];
  const server = new Server();
  const once = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void => {
    received.push(call.metadata);
    callback(null, call.request);
  };
  const { Unary, Public, Operators, ServerStream, Bidi } = ECHO;
  if (!(Unary && Public && Operators && ServerStream && Bidi))
    throw new Error('the echo service has changed');
  server.addService(
    { Unary, Public, Operators, ServerStream, Bidi },
    {
      Unary: once,
      Public: once,
      Operators: once,
      ServerStream: (call: { metadata: Metadata; request: Buffer; write(part: Buffer): boolean }) => {
        received.push(call.metadata);
        call.write(call.request);
      },
      Bidi: (call: {
        metadata: Metadata;
        on(event: string, listener: (part: Buffer) => void): void;
        write(part: Buffer): void;
        end(): void;
      }) => {
        received.push(call.metadata);
        call.on('data', (part) => call.write(part));
        call.on('end', () => call.end());
      },
    },
  );
  add(server);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(bind, own, (error, bound) => (error === null ? resolve(bound) : reject(error)));
  });
  return { address: bind.replace(/:0$/, `:${port}`), received, stop: () => server.forceShutdown() };
}

/** The schema of the echo service, without rules: it says which methods are streams. */
export function echoDescriptors(): Uint8Array {
  const method = Object.values(ECHO).map(({ path, requestStream, responseStream }) =>
    create(MethodDescriptorProtoSchema, {
      name: path.slice(path.lastIndexOf('/') + 1),
      clientStreaming: requestStream,
      serverStreaming: responseStream,
    }),
  );
  const service = create(ServiceDescriptorProtoSchema, { name: 'EchoService', method });
  const file = create(FileDescriptorProtoSchema, {
    name: 'echo.proto',
    package: 'test.v1',
    service: [service],
  });
  return toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [file] }));
}

/** A gate in a test. */
export interface GateUnderTest {
  readonly kit: TestKit;
  readonly engine: Engine;
  readonly gate: Gate;
  readonly upstream: Upstream;
  readonly folder: TemporaryFolder;
  readonly client: Client;
  rules(content: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts everything. */
export async function startGateUnderTest(
  differences: Partial<GateSettings> | ((folder: string) => Partial<GateSettings>) = {},
  log: GateLog = SILENT,
  limits: Partial<GuardLimits> = {},
): Promise<GateUnderTest> {
  const folder = await makeTemporaryFolder();
  const file = join(folder.path, 'rules.yaml');
  await writeFile(file, RULES);
  const kit = await createTestKit({ audience: AUDIENCE });
  const metrics = createGateMetrics();
  const engine = await kit.createEngine({ audience: AUDIENCE, observer: metrics.observer, limits });
  const upstream = await startUpstream(folder);
  const given = typeof differences === 'function' ? differences(folder.path) : differences;
  const settings = { ...settingsFor(kit, file, upstream.address), ...given };
  const release = async (): Promise<void> => {
    upstream.stop();
    await kit.close();
    await folder.remove();
  };
  const gate = await startGate(settings, { log, engine, metrics }).catch(async (error: unknown) => {
    // A server that stays open would keep the test run from ending.
    await release();
    throw error;
  });
  const client = new Client(gate.addresses.listen ?? 'unix:none', credentials.createInsecure());
  return {
    kit,
    engine,
    gate,
    upstream,
    folder,
    client,
    rules: (content) => writeFile(file, content),
    stop: async () => {
      client.close();
      await gate.close();
      await release();
    },
  };
}

function settingsFor(kit: TestKit, rulesFile: string, upstream: string): GateSettings {
  return {
    auth: {
      issuer: kit.issuer,
      audience: AUDIENCE,
      address: '127.0.0.1:1',
      tls: undefined,
      clientId: AUDIENCE,
      clientKey: generateKeyPairSync('ed25519').privateKey,
      nats: undefined,
    },
    listen: { address: { kind: 'tcp', host: '127.0.0.1', port: 0 }, tls: undefined, clientAuth: 'off' },
    upstream: {
      address: { kind: 'unix', path: upstream.slice('unix:'.length) },
      tls: undefined,
      serverName: 'localhost',
      exposed: 'refuse',
    },
    rules: {
      descriptors: undefined,
      file: rulesFile,
      publicMethods: [],
      health: 'public',
      reflection: 'closed',
    },
    identity: {
      mode: 'headers',
      token: 'strip',
      key: undefined,
      issuer: 'portcullis-gate',
      audience: AUDIENCE,
    },
    plaintext: 'loopback',
    mode: 'enforce',
    limits: {},
    trustedIssuers: [],
    extAuthz: undefined,
    httpCheck: undefined,
    healthListen: undefined,
    opsListen: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    workers: 1,
    drainMs: 1_000,
    logLevel: 'info',
  };
}
