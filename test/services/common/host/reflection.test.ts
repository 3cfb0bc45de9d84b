/** Reflection, as used by clients without the schema. */

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createFileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { status } from '@grpc/grpc-js';
import { unary } from '@portcullis/guard';
import { expect } from 'chai';
import {
  ServerReflectionClient,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from '../../../../proto/gen/grpc/reflection/v1/reflection.js';
import { ServerReflectionClient as AlphaClient } from '../../../../proto/gen/grpc/reflection/v1alpha/reflection.js';
import { InventoryServiceService } from '../../../../proto/gen/inventory/v1/inventory_service.js';
import { hostMethods } from '../../../../services/common/host/host.js';
import { DESCRIPTOR_IMAGE, REFLECTION_METHODS } from '../../../../services/common/host/reflection.js';
import { registry } from '../../../support/descriptor-image.js';
import { type RunningHost, runHost } from './running-host.js';

const BUF = fileURLToPath(new URL('../../../../node_modules/.bin/buf', import.meta.url));
const INVENTORY = 'inventory.v1.InventoryService';

type Question = NonNullable<ServerReflectionRequest['messageRequest']>;
type Answer = NonNullable<ServerReflectionResponse['messageResponse']>;

function inventoryHost(reflection = true): Promise<RunningHost> {
  const refuse = unary<unknown, never>(() => Promise.reject(new Error('not asked for here')));
  const names = Object.keys(InventoryServiceService);
  return runHost({
    reflection,
    serviceNames: [INVENTORY],
    addServices: (server) => {
      const handlers = Object.fromEntries(names.map((name) => [name, refuse]));
      const listItems = unary(() => ({ items: [], nextPageToken: 'a page further' }));
      server.addService(InventoryServiceService, { ...handlers, listItems });
    },
  });
}

describe('reflection', () => {
  let running: RunningHost;
  before(async () => {
    running = await inventoryHost();
  });
  after(() => running.close());

  async function ask(
    Kind: typeof ServerReflectionClient | typeof AlphaClient,
    questions: Question[],
  ): Promise<Answer[]> {
    const stream = running
      .connectAs<InstanceType<typeof ServerReflectionClient>>(Kind)
      .serverReflectionInfo();
    for (const messageRequest of questions) stream.write({ host: 'here', messageRequest });
    stream.end();
    const answers: Answer[] = [];
    let index = 0;
    for await (const response of stream as AsyncIterable<ServerReflectionResponse>) {
      expect(response.validHost).to.equal('here');
      expect(response.originalRequest?.messageRequest).to.deep.equal(questions[index++]);
      if (response.messageResponse !== undefined) answers.push(response.messageResponse);
    }
    return answers;
  }

  async function filesFor(question: Question): Promise<Buffer[]> {
    const [answer] = await ask(ServerReflectionClient, [question]);
    if (answer?.$case !== 'fileDescriptorResponse') throw new Error(`no file: ${JSON.stringify(answer)}`);
    return answer.value.fileDescriptorProto;
  }

  const nameOf = (file: Uint8Array | undefined) =>
    fromBinary(FileDescriptorProtoSchema, file ?? Buffer.alloc(0)).name;

  for (const [version, Kind] of [
    ['v1', ServerReflectionClient],
    ['v1alpha', AlphaClient],
  ] as const) {
    it(`lists in ${version} the services of this server, and no others`, async () => {
      const [answer] = await ask(Kind, [{ $case: 'listServices', value: '*' }]);
      const service = [
        'grpc.health.v1.Health',
        'grpc.reflection.v1.ServerReflection',
        'grpc.reflection.v1alpha.ServerReflection',
        INVENTORY,
      ].map((name) => ({ name }));
      expect(answer).to.deep.equal({ $case: 'listServicesResponse', value: { service } });
    });
  }

  it('finds the file of every service, method, message, enum and extension of the image', async () => {
    const expected: [string, string][] = [];
    for (const type of registry) {
      expected.push([type.typeName, `${type.file.name}.proto`]);
      if (type.kind !== 'service') continue;
      for (const method of type.methods)
        expected.push([`${type.typeName}.${method.name}`, `${type.file.name}.proto`]);
    }
    expect(expected.length).to.be.above(100);
    const questions = expected.map(
      ([symbol]): Question => ({ $case: 'fileContainingSymbol', value: symbol }),
    );
    const answers = await ask(ServerReflectionClient, questions);
    for (const [index, answer] of answers.entries()) {
      const [symbol, file] = expected[index] ?? [];
      if (answer.$case !== 'fileDescriptorResponse') throw new Error(`${symbol} was not found`);
      expect(nameOf(answer.value.fileDescriptorProto[0]), symbol).to.equal(file);
    }
  });

  it('sends each file byte for byte as it was compiled, with everything it needs', async () => {
    const image = fromBinary(FileDescriptorSetSchema, readFileSync(DESCRIPTOR_IMAGE));
    for (const file of image.file) {
      const received = await filesFor({ $case: 'fileByFilename', value: file.name });
      expect(
        Buffer.from(toBinary(FileDescriptorProtoSchema, file)).equals(received[0] ?? Buffer.alloc(0)),
      ).to.equal(true);
      // Only the order differs: this reader requires the dependencies of a file before the file.
      const names = new Set(received.map(nameOf));
      const files = image.file.filter(({ name }) => names.has(name));
      expect(() => createFileRegistry({ ...image, file: files })).to.not.throw();
    }
  });

  it('sends a shared dependency only once per stream', async () => {
    const symbols = ['inventory.v1.Item', 'inventory.v1.Reservation'];
    const answers = await ask(
      ServerReflectionClient,
      symbols.map((value) => ({ $case: 'fileContainingSymbol', value })),
    );
    const counts = answers.map((answer) =>
      answer.$case === 'fileDescriptorResponse' ? answer.value.fileDescriptorProto.length : 0,
    );
    expect(counts[0]).to.be.above(1);
    expect(counts[1]).to.equal(1);
  });

  it('finds extensions by number, and the numbers of a type', async () => {
    const containingType = 'google.protobuf.MethodOptions';
    const [numbers] = await ask(ServerReflectionClient, [
      { $case: 'allExtensionNumbersOfType', value: containingType },
    ]);
    if (numbers?.$case !== 'allExtensionNumbersResponse') throw new Error('no numbers');
    const [extensionNumber = 0] = numbers.value.extensionNumber;
    expect(numbers.value).to.deep.equal({ baseTypeName: containingType, extensionNumber: [extensionNumber] });
    const files = await filesFor({
      $case: 'fileContainingExtension',
      value: { containingType, extensionNumber },
    });
    expect(nameOf(files[0])).to.equal('portcullis/access/v1/access.proto');
    const none = await ask(ServerReflectionClient, [
      { $case: 'allExtensionNumbersOfType', value: 'inventory.v1.Item' },
    ]);
    expect(none[0]).to.have.nested.property('value.extensionNumber').that.deep.equals([]);
  });

  it('answers NOT_FOUND to unknown names, and continues', async () => {
    const unknown: Question[] = [
      { $case: 'fileByFilename', value: '../../../etc/passwd' },
      { $case: 'fileContainingSymbol', value: 'no.such.Symbol' },
      {
        $case: 'fileContainingExtension',
        value: { containingType: 'inventory.v1.Item', extensionNumber: 1 },
      },
      { $case: 'allExtensionNumbersOfType', value: '__proto__' },
      { $case: 'listServices', value: '' },
    ];
    const answers = await ask(ServerReflectionClient, unknown);
    const codes = answers.map((answer) =>
      answer.$case === 'errorResponse' ? answer.value.errorCode : answer.$case,
    );
    const { NOT_FOUND } = status;
    expect(codes).to.deep.equal([NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND, 'listServicesResponse']);
  });

  it('serves buf curl, which has no schema: list, describe and call', async () => {
    const run = async (...args: string[]) => {
      const flags = ['curl', '--protocol', 'grpc', '--http2-prior-knowledge'];
      const { stdout } = await promisify(execFile)(BUF, [...flags, ...args]);
      return stdout;
    };
    const url = `http://${running.host.address}`;
    for (const version of ['grpc-v1', 'grpc-v1alpha']) {
      const reflect = ['--reflect-protocol', version];
      expect(await run(...reflect, '--list-services', url)).to.include(INVENTORY);
      expect(await run(...reflect, '--list-methods', url)).to.include(`${INVENTORY}/ReserveStock`);
      const answer = await run(...reflect, '-d', '{"page_size": 3}', `${url}/${INVENTORY}/ListItems`);
      expect(JSON.parse(answer)).to.deep.equal({ nextPageToken: 'a page further' });
    }
  }).timeout(180_000);

  it('is absent when it is switched off', async () => {
    const closed = await inventoryHost(false);
    const stream = closed.connectAs(ServerReflectionClient).serverReflectionInfo();
    const ended = new Promise((resolve) => stream.once('error', resolve));
    stream.resume();
    stream.end();
    expect(await ended).to.have.property('code', status.UNIMPLEMENTED);
    await closed.close();
    expect([...hostMethods({ reflection: false })]).to.deep.equal([
      '/grpc.health.v1.Health/Check',
      '/grpc.health.v1.Health/Watch',
      '/grpc.health.v1.Health/List',
    ]);
    expect([...hostMethods({ reflection: true })]).to.include.members([...REFLECTION_METHODS]);
  });
});
