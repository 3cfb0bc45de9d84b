import { create, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceDefinition,
  status,
} from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  type ServerReflectionRequest,
  ServerReflectionResponse,
  ServerReflectionService,
} from '../../cli/gen/grpc/reflection/v1/reflection.js';
import { reflect } from '../../cli/src/reflection.js';
import { type Connection, connect } from '../../cli/src/session.js';

const FILE = toBinary(
  FileDescriptorProtoSchema,
  create(FileDescriptorProtoSchema, {
    name: 'greeter.proto',
    package: 'greeter.v1',
    syntax: 'proto3',
    service: [{ name: 'GreeterService' }],
    // As Python describes it: without a json_name.
    messageType: [
      { name: 'Greeting', nestedType: [{ name: 'Part', field: [{ name: 'full_text', number: 1 }] }] },
    ],
  }),
);
const { serverReflectionInfo: METHOD } = ServerReflectionService;
const V1_ALPHA = '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo';

describe('reflection', () => {
  let server: Server;
  let connection: Connection | undefined;
  beforeEach(() => {
    server = new Server();
  });
  afterEach(() => {
    connection?.close();
    server.forceShutdown();
  });

  async function open(): Promise<Connection> {
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    connection = await connect({ address: `127.0.0.1:${port}` });
    return connection;
  }

  function serve(path: string): void {
    const definition: ServiceDefinition = { serverReflectionInfo: { ...METHOD, path } };
    server.addService(definition, { serverReflectionInfo: answer });
  }

  for (const path of [METHOD.path, V1_ALPHA]) {
    it(`reads the schema of a server that has only ${path}`, async () => {
      serve(path);
      const { registry } = await reflect(await open(), 'greeter.v1.GreeterService');
      expect(registry.getService('greeter.v1.GreeterService')?.name).to.equal('GreeterService');
    });
  }

  it('names the fields in JSON where the server does not', async () => {
    serve(METHOD.path);
    const { registry } = await reflect(await open(), 'greeter.v1.GreeterService');
    const part = registry.getMessage('greeter.v1.Greeting.Part');
    expect(part?.fields.map(({ jsonName }) => jsonName)).to.deep.equal(['fullText']);
  });

  it('fails with UNIMPLEMENTED where a server has no reflection', async () => {
    const failure = await reflect(await open(), 'greeter.v1.GreeterService').then(
      () => undefined,
      (error: { code?: number }) => error,
    );
    expect(failure?.code).to.equal(status.UNIMPLEMENTED);
  });
});

function answer(call: ServerDuplexStream<ServerReflectionRequest, ServerReflectionResponse>): void {
  call.on('data', () =>
    call.write(
      ServerReflectionResponse.fromPartial({
        messageResponse: {
          $case: 'fileDescriptorResponse',
          value: { fileDescriptorProto: [Buffer.from(FILE)] },
        },
      }),
    ),
  );
  call.on('end', () => call.end());
}
