/** Conventions of the schema that no linter checks: exact money, pages, names, and repeatable requests. */
import type { DescField, DescMessage, DescMethod } from '@bufbuild/protobuf';
import { ScalarType } from '@bufbuild/protobuf';
import { expect } from 'chai';
import { ownMessages, ownMethods, pathOf, registry } from '../support/descriptor-image.js';

const MONEY = 'portcullis.type.v1.Money';
const FLOATING = [ScalarType.DOUBLE, ScalarType.FLOAT];

/** Methods that create something or move stock or money; reading, ending and proving need no request_id. */
const REPEATABLE_VERBS =
  /^(Create|Open|Adjust|Reserve|Commit|Release[A-Z]|Deposit|Checkout|Refund|Cancel|Refresh|Rotate)/;

/** Methods with one bounded response instead of pages: a sync, a receipt, and a review. */
const UNPAGED = [
  // The differences of two policies, whose size is bounded.
  '/auth.v1.PolicyService/ApplyPolicy',
  '/auth.v1.PolicyService/RegisterService',
  '/auth.v1.SecurityService/ReviewSecurity',
  '/portcullis.revocation.v1.RevocationService/Sync',
  '/portcullis.revocation.v1.RevocationService/Revoke',
  // At most 100 sessions, and the instances of one system.
  '/portcullis.revocation.v1.RevocationService/RevokeSessions',
  '/portcullis.revocation.v1.RevocationService/GetRevocation',
];

const listMethods = ownMethods.filter(({ name }) => /^List[A-Z]/.test(name));

describe('the schema', () => {
  it('has whole numbers for money', () => {
    const money = registry.getMessage(MONEY);
    expect(money?.fields.map(describeField)).to.deep.equal(['minor_units INT64', 'currency_code STRING']);
  });

  it('has no floating point number anywhere', () => {
    const floating = ownMessages.flatMap(({ fields }) => fields).filter(isFloating);
    expect(floating.map(String)).to.be.empty;
  });

  it('uses Money for every amount', () => {
    const named = ownMessages
      .filter(({ typeName }) => typeName !== MONEY)
      .flatMap(({ fields }) => fields)
      .filter(({ name }) => /(^|_)(amount|price|balance|held|fee|total)$/.test(name));
    expect(named).to.not.be.empty;
    expect(named.filter((field) => field.message?.typeName !== MONEY).map(String)).to.be.empty;
  });

  it('pages every list: page_size and page_token in, one list and next_page_token out', () => {
    expect(listMethods).to.not.be.empty;
    for (const method of listMethods) {
      expect(method.input.fields.map(describeField), pathOf(method)).to.include.members([
        'page_size INT32',
        'page_token STRING',
      ]);
      expect(method.output.fields.map(describeField), pathOf(method)).to.include('next_page_token STRING');
      expect(listsOf(method.output), pathOf(method)).to.have.length(1);
    }
  });

  it('has no list without pages under another name', () => {
    const lists = ownMethods.filter((method) => listsOf(method.output).length > 0 && !isStream(method));
    const unpaged = lists.filter((method) => !listMethods.includes(method)).map(pathOf);
    expect(unpaged.filter((path) => !UNPAGED.includes(path))).to.be.empty;
  });

  it('uses no other names for the fields of a page', () => {
    const fields = ownMessages.flatMap((message) => message.fields);
    const foreign = fields.filter(({ name }) =>
      /^(limit|offset|cursor|page|page_number|next_token)$/.test(name),
    );
    expect(foreign.map(String)).to.be.empty;
  });

  it('has a request_id in every creation and every movement of stock or money', () => {
    const moving = ownMethods.filter(({ name }) => REPEATABLE_VERBS.test(name));
    expect(moving).to.not.be.empty;
    for (const method of moving) {
      expect(method.input.fields.map(describeField), pathOf(method)).to.include('request_id STRING');
    }
  });

  it('names a point in time …_time and an identifier …_id', () => {
    const fields = ownMessages.flatMap((message) => message.fields);
    const times = fields.filter(({ message }) => message?.typeName === 'google.protobuf.Timestamp');
    const allowed = /_time$|_by$|^keep_until$|^horizon$/;
    expect(times.filter(({ name }) => !allowed.test(name)).map(String)).to.be.empty;
    expect(fields.filter(({ name }) => /(^|_)(uuid|guid|identifier)$/.test(name)).map(String)).to.be.empty;
  });
});

function describeField(field: DescField): string {
  return `${field.name} ${field.scalar === undefined ? field.fieldKind : ScalarType[field.scalar]}`;
}

function isFloating({ scalar }: DescField): boolean {
  return scalar !== undefined && FLOATING.includes(scalar);
}

function isStream({ methodKind }: DescMethod): boolean {
  return methodKind !== 'unary';
}

/** The fields that hold lists of messages. */
function listsOf(message: DescMessage): DescField[] {
  return message.fields.filter((field) => field.fieldKind === 'list' && field.listKind === 'message');
}
