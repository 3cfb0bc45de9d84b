/** `portcullis call`. */

import { type DescMethod, fromBinary, fromJsonString, toBinary, toJson } from '@bufbuild/protobuf';
import { Client, Metadata, type ServiceError } from '@grpc/grpc-js';
import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import { CommandError, EXIT } from '../failures.js';
import { type MethodName, methodNameOf, reflect, type Schema } from '../reflection.js';
import { connect, openSession } from '../session.js';
import { readInput, type Terminal, writeLine } from '../terminal.js';

/** Deadline of a unary call, in milliseconds. */
const CALL_MS_MAX = 30_000;

export function addCallCommand(program: Command, cli: Cli): void {
  program
    .command('call <method> [json]')
    .description(
      'call a method through reflection, with the stored token; JSON is also read from standard input (-)',
    )
    .option('--address <host:port>', 'where the service listens; default: auth')
    .option('--anonymous', 'send no token')
    .action((method: string, json: string | undefined, options: CallOptions) =>
      call(cli, method, json ?? '{}', options),
    );
}

interface CallOptions {
  readonly address?: string;
  readonly anonymous?: true;
}

async function call(
  cli: Cli,
  text: string,
  json: string,
  { address, anonymous }: CallOptions,
): Promise<void> {
  const name = methodNameOf(text);
  const terminal = cli.terminal();
  const input = json === '-' ? await readInput(terminal) : json;
  const session = await openSession(cli.store, cli.context());
  const connection = await connect({ ...session.context, ...(address !== undefined && { address }) });
  try {
    const schema = await reflect(connection, name.service);
    const method = methodOf(schema, name);
    const request = requestOf(schema, method, input);
    const metadata = new Metadata();
    if (anonymous !== true) metadata.set('authorization', `Bearer ${await session.token()}`);
    const client = connection.client(Client);
    const answers = answersOf(client, name, { method, request, metadata });
    for await (const bytes of answers) writeAnswer(terminal, schema, method, bytes);
  } finally {
    connection.close();
    session.close();
  }
}

function methodOf({ registry }: Schema, { service, method: name, path }: MethodName): DescMethod {
  const found = registry.getService(service)?.methods.find((method) => method.name === name);
  if (found === undefined) {
    const known = registry.getService(service)?.methods.map((method) => method.name) ?? [];
    throw new CommandError(`There is no method ${path}; the service has ${known.join(', ')}.`, {
      exitCode: EXIT.usage,
    });
  }
  if (found.methodKind === 'unary' || found.methodKind === 'server_streaming') return found;
  throw new CommandError(`${path} takes a stream of requests, which this command does not send.`, {
    exitCode: EXIT.usage,
  });
}

function requestOf({ registry }: Schema, method: DescMethod, json: string): Uint8Array {
  try {
    return toBinary(method.input, fromJsonString(method.input, json, { registry }));
  } catch (cause) {
    throw new CommandError(
      `The request is no ${method.input.typeName}: ${cause instanceof Error ? cause.message : ''}`,
      {
        exitCode: EXIT.usage,
        cause,
      },
    );
  }
}

async function* answersOf(
  client: Client,
  { path }: MethodName,
  {
    method,
    request,
    metadata,
  }: { readonly method: DescMethod; readonly request: Uint8Array; readonly metadata: Metadata },
): AsyncGenerator<Uint8Array> {
  const serialize = (bytes: Uint8Array): Buffer => Buffer.from(bytes);
  const deserialize = (bytes: Buffer): Uint8Array => bytes;
  if (method.methodKind === 'server_streaming') {
    yield* client.makeServerStreamRequest(
      path,
      serialize,
      deserialize,
      request,
      metadata,
    ) as AsyncIterable<Uint8Array>;
    return;
  }
  yield await new Promise<Uint8Array>((resolve, reject) => {
    const options = { deadline: Date.now() + CALL_MS_MAX };
    client.makeUnaryRequest(
      path,
      serialize,
      deserialize,
      request,
      metadata,
      options,
      (error: ServiceError | null, answer?: Uint8Array) => {
        if (error !== null) reject(error);
        else resolve(answer ?? new Uint8Array());
      },
    );
  });
}

function writeAnswer(terminal: Terminal, { registry }: Schema, method: DescMethod, bytes: Uint8Array): void {
  const answer = toJson(method.output, fromBinary(method.output, bytes), { registry });
  writeLine(terminal, answer as object, () => JSON.stringify(answer, undefined, 2));
}
