/** What the compiler refuses of handlers for services that ts-proto generated. The compiler is the test: `tsc`. */

import type { Server } from '@grpc/grpc-js';
import { type Guard, native, type ServiceHandlers } from '@portcullis/guard';
import { expect } from 'chai';
import { QuotaFailure_Violation } from '../../../interceptors/gen/google/rpc/error_details.js';
import {
  GetItemResponse,
  InventoryServiceService as INVENTORY,
  protoMetadata,
} from '../../../proto/gen/inventory/v1/inventory_service.js';

type Inventory = ServiceHandlers<typeof INVENTORY>;

/** A method whose response has an `optional` field. No service of this project has one. */
const QUOTA = {
  getViolation: {
    path: '/test.v1.QuotaService/GetViolation',
    requestStream: false,
    responseStream: false,
    requestSerialize: (value: QuotaFailure_Violation) =>
      Buffer.from(QuotaFailure_Violation.encode(value).finish()),
    requestDeserialize: (bytes: Buffer) => QuotaFailure_Violation.decode(bytes),
    responseSerialize: (value: QuotaFailure_Violation) =>
      Buffer.from(QuotaFailure_Violation.encode(value).finish()),
    responseDeserialize: (bytes: Buffer) => QuotaFailure_Violation.decode(bytes),
  },
} as const;

function refused(guard: Guard, server: Server, rest: Inventory): void {
  guard.addService(server, INVENTORY, protoMetadata, {
    ...rest,
    // @ts-expect-error: the field is `items`.
    listItems: async () => ({ itms: [], nextPageToken: '' }),
  });
  guard.addService(server, INVENTORY, protoMetadata, {
    ...rest,
    // @ts-expect-error: the request has `sku`.
    getItem: async ({ skuu: _ }) => ({ item: undefined }),
  });
  guard.addService(server, INVENTORY, protoMetadata, {
    ...rest,
    // @ts-expect-error: the response has no such field.
    listItems: async () => ({ items: [], nextPageToken: '', total: 0 }),
  });
  guard.addService(server, INVENTORY, protoMetadata, {
    ...rest,
    // @ts-expect-error: a nested message, in a list, has no such field.
    listItems: async () => ({ items: [{ ...anItem, colour: 'red' }], nextPageToken: '' }),
  });
  guard.addService(server, INVENTORY, protoMetadata, {
    ...rest,
    // @ts-expect-error: a response of a stream has no such field.
    async *watchStock() {
      yield { ...aChange, changed: true };
    },
  });
  const { getItem: _, ...others } = rest;
  // @ts-expect-error: getItem is missing.
  guard.addService(server, INVENTORY, protoMetadata, { ...others });
  guard.addService(server, QUOTA, protoMetadata, {
    // @ts-expect-error: the optional field is `futureQuotaValue`.
    getViolation: async (request) => ({ ...request, futureQuotaValu: 1n }),
  });
}

function accepted(guard: Guard, server: Server, rest: Inventory): void {
  guard.addService(server, INVENTORY, protoMetadata, rest);
  guard.addService(server, INVENTORY, protoMetadata, native({}));
  guard.addService(server, INVENTORY, protoMetadata, {
    ...rest,
    // The types of the parameters come from the definition.
    async getItem({ sku }, call) {
      if (call.cancelled) return { item: undefined };
      return GetItemResponse.fromPartial({ item: { sku: sku.trim() } });
    },
    listItems: () => ({ items: [anItem], nextPageToken: '' }),
  });
  guard.addService(server, QUOTA, protoMetadata, { getViolation: (request) => request });
  guard.addService(server, QUOTA, protoMetadata, {
    getViolation: async (request) => ({ ...request, futureQuotaValue: 1n }),
  });
  guard.addService(server, QUOTA, protoMetadata, new Helped());
}

/** A handler whose type is written down can hide a surplus field: the README says so. */
function unnoticed(guard: Guard, server: Server): void {
  const getViolation = async (request: QuotaFailure_Violation): Promise<QuotaFailure_Violation> => {
    const response = { ...request, futureQuotaValu: 1n };
    return response;
  };
  guard.addService(server, QUOTA, protoMetadata, { getViolation });
}

/** Further members of an object of handlers, functions included. */
class Helped {
  readonly prefix = 'quota';
  getViolation(request: QuotaFailure_Violation): QuotaFailure_Violation {
    return this.withSubject(request);
  }
  withSubject(request: QuotaFailure_Violation): QuotaFailure_Violation {
    return { ...request, subject: this.prefix };
  }
}

const aChange = { sku: 'lamp', onHand: 1n, reserved: 0n, changeTime: undefined, resumeToken: '' };
const anItem = {
  sku: 'lamp',
  name: 'Lamp',
  unitPrice: undefined,
  onHand: 1n,
  reserved: 0n,
  createTime: undefined,
};

describe('the handlers of a generated service', () => {
  it('do not compile with a misspelt method, or a field that is misspelt or surplus', () => {
    // Nothing to run: each case is an error that the compiler must report.
    for (const cases of [refused, accepted, unnoticed]) expect(cases).to.be.a('function');
  });
});
