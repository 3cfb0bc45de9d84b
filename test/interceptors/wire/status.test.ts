/** Errors, encoded to statuses and decoded again. */

import { Metadata, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  GuardError,
  type GuardErrorCode,
  invalidField,
  shareError,
} from '../../../interceptors/src/errors.js';
import {
  ERROR_DOMAIN,
  ERROR_MESSAGE_LENGTH_MAX,
  errorOf,
  RETRY_AFTER_MAX_MS,
  reusableStatus,
  statusOf,
} from '../../../interceptors/src/wire/status.js';
import { ErrorInfo } from '../../../proto/gen/google/rpc/error_details.js';
import { Status } from '../../../proto/gen/google/rpc/status.js';

const CODES = {
  TOKEN_MISSING: 16,
  TOKEN_INVALID: 16,
  TOKEN_EXPIRED: 16,
  TOKEN_REVOKED: 16,
  TLS_REQUIRED: 16,
  SCOPE_MISSING: 7,
  ROLE_MISSING: 7,
  CALLER_KIND: 7,
  LOGIN_TOO_OLD: 7,
  REVOCATION_STATE_STALE: 14,
  DEPENDENCY_UNAVAILABLE: 14,
  RATE_LIMITED: 8,
  REQUEST_TOO_LARGE: 8,
  REQUEST_TIMEOUT: 4,
  FIELD_INVALID: 3,
  NOT_FOUND: 5,
} satisfies Record<GuardErrorCode, number>;

const code = fc.constantFrom(...(Object.keys(CODES) as GuardErrorCode[]));
/** Any UTF-16, lone surrogates included. */
const anyText = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 700 })
  .map((units) => String.fromCharCode(...units));

describe('a reusable status', () => {
  it('equals the original, and changes to one clone do not affect another', () => {
    const plain = statusOf(
      new GuardError('RATE_LIMITED', 'too many new tokens at once', { retryAfterMs: 1000 }),
    );
    const often = reusableStatus(plain);
    expect([often.code, often.details]).to.deep.equal([plain.code, plain.details]);
    const [first, second] = [often.metadata.clone(), often.metadata.clone()];
    expect(first.toHttp2Headers()).to.deep.equal(plain.metadata.toHttp2Headers());
    for (const change of [
      (metadata: Metadata) => metadata.set('x-one', 'set'),
      (metadata: Metadata) => metadata.add('x-one', 'added'),
      (metadata: Metadata) => metadata.remove('x-one'),
      (metadata: Metadata) => metadata.merge(Metadata.fromHttp2Headers({ 'x-two': 'merged' })),
    ]) {
      change(first);
      const anew = new Metadata();
      anew.merge(first);
      expect(first.toHttp2Headers()).to.deep.equal(anew.toHttp2Headers());
    }
    expect(first.getMap()).to.have.property('x-two', 'merged');
    for (const untouched of [second, often.metadata]) {
      expect(untouched.toHttp2Headers()).to.deep.equal(plain.metadata.toHttp2Headers());
    }
    expect(errorOf({ code: often.code, details: often.details, metadata: second }).retryAfterMs).to.equal(
      1000,
    );
  });
});

describe('the status of an error', () => {
  for (const [name, number] of Object.entries(CODES)) {
    it(`is ${status[number]} for ${name}, with the code as its reason`, () => {
      const sent = statusOf(new GuardError(name as GuardErrorCode, 'a sentence'));
      expect(sent).to.include({ code: number, details: 'a sentence' });
      expect(errorOf(sent)).to.deep.equal({
        code: number,
        reason: name,
        message: 'a sentence',
        violations: [],
        retryAfterMs: undefined,
      });
    });
  }

  it('carries code, message, violations and retry delay to the client', () => {
    fc.assert(
      fc.property(
        code,
        fc.string({ unit: 'binary', maxLength: 100 }),
        fc.array(fc.record({ field: fc.string({ unit: 'binary' }), description: fc.string() }), {
          maxLength: 4,
        }),
        fc.option(fc.nat(RETRY_AFTER_MAX_MS), { nil: undefined }),
        (name, message, violations, retryAfterMs) => {
          const options = { violations, ...(retryAfterMs !== undefined && { retryAfterMs }) };
          const received = errorOf(statusOf(new GuardError(name, message, options)));
          expect(received).to.include({ code: CODES[name], reason: name, message, retryAfterMs });
          expect(received.violations.map(({ field, description }) => ({ field, description }))).to.deep.equal(
            violations,
          );
        },
      ),
    );
  });

  it('names the invalid field', () => {
    const received = errorOf(statusOf(invalidField('lines[2].quantity', 'must be positive')));
    expect(received.message).to.equal('lines[2].quantity must be positive');
    expect(received.violations[0]).to.include({
      field: 'lines[2].quantity',
      description: 'must be positive',
    });
  });

  it('can be sent for every text, however long or malformed', () => {
    fc.assert(
      fc.property(code, anyText, anyText, (name, message, field) => {
        const error = new GuardError(name, message, { violations: [{ field, description: field }] });
        const sent = statusOf(error);
        expect(sent.details.length).to.be.at.most(ERROR_MESSAGE_LENGTH_MAX);
        // The encoding that grpc-js applies to it.
        expect(() => encodeURI(sent.details)).not.to.throw();
        expect(errorOf(sent).message).to.equal(sent.details);
      }),
    );
  });

  it('is cut between characters, never within one', () => {
    const message = `${'a'.repeat(ERROR_MESSAGE_LENGTH_MAX - 1)}😀`;
    expect(statusOf(new GuardError('NOT_FOUND', message)).details).to.equal(
      `${'a'.repeat(ERROR_MESSAGE_LENGTH_MAX - 1)}\ufffd`,
    );
  });

  it('contains a valid delay for every number', () => {
    const waits: [number, number | undefined][] = [
      [Number.NaN, undefined],
      [Number.POSITIVE_INFINITY, RETRY_AFTER_MAX_MS],
      [Number.MAX_VALUE, RETRY_AFTER_MAX_MS],
      [Number.NEGATIVE_INFINITY, 0],
      [-5, 0],
      [0, 0],
      [0.2, 1],
      [1999.5, 2000],
    ];
    for (const [retryAfterMs, received] of waits) {
      const sent = statusOf(new GuardError('RATE_LIMITED', 'later', { retryAfterMs }));
      expect(errorOf(sent).retryAfterMs, String(retryAfterMs)).to.equal(received);
    }
  });

  it('reveals nothing of an error that is no ServiceError', () => {
    const secret = 'password=hunter2';
    const thrown = [
      new Error(secret),
      new TypeError(secret),
      Object.assign(new Error(secret), { code: 5, details: secret, metadata: new Metadata() }),
      { code: 'NOT_FOUND', message: secret },
      secret,
      undefined,
      null,
      42,
      Symbol(secret),
      Object.create(null),
      () => secret,
    ];
    for (const error of thrown) {
      const sent = statusOf(error);
      expect(sent).to.include({ code: status.INTERNAL, details: 'internal error' });
      expect(sent.metadata.getMap()).to.deep.equal({});
    }
  });

  it('passes on a downstream status that means the same to the caller, with a fixed text', () => {
    const downstream = statusOf(new GuardError('DEPENDENCY_UNAVAILABLE', 'hunter2', { retryAfterMs: 700 }));
    const passedOn = ['DEADLINE_EXCEEDED', 'ABORTED', 'UNAVAILABLE'] as const;
    for (const name of passedOn) {
      const received = Object.assign(new Error('hunter2'), { ...downstream, code: status[name] });
      const sent = statusOf(received);
      expect(sent.code, name).to.equal(status[name]);
      expect(sent.details).to.contain('another service').and.not.contain('hunter2');
      // Clients repeat a call that ends with UNAVAILABLE and RetryInfo, and this handler has begun to work.
      const retryAfterMs = name === 'UNAVAILABLE' ? undefined : 700;
      expect(errorOf(sent)).to.include({ reason: '', retryAfterMs });
      expect(sent.metadata.get('grpc-status-details-bin').join('')).to.not.contain('hunter2');
    }
  });

  it('is INTERNAL for every other downstream status', () => {
    const own = new Set([4, 10, 14]);
    for (let code = 0; code <= 17; code += 1) {
      if (own.has(code)) continue;
      const received = Object.assign(new Error('x'), { code, details: 'x', metadata: new Metadata() });
      expect(statusOf(received), String(code)).to.include({
        code: status.INTERNAL,
        details: 'internal error',
      });
    }
  });

  it('is INTERNAL for an error that has a number as its code, but is no status', () => {
    const exit = (code: number) => Object.assign(new Error('Command failed'), { code, killed: false });
    const thrown = [1, 4, 8, 10, 14].flatMap((code) => [
      exit(code),
      Object.assign(exit(code), { details: 'x' }),
      Object.assign(exit(code), { details: 'x', metadata: { region: 'eu' } }),
    ]);
    expect(new DOMException('gone', 'NotFoundError').code).to.equal(status.RESOURCE_EXHAUSTED);
    for (const error of [...thrown, new DOMException('gone', 'NotFoundError')]) {
      expect(statusOf(error)).to.include({ code: status.INTERNAL, details: 'internal error' });
    }
  });

  it('never carries the cause', () => {
    const sent = statusOf(
      new GuardError('NOT_FOUND', 'no such item', { cause: new Error('SELECT hunter2') }),
    );
    const [details] = sent.metadata.get('grpc-status-details-bin');
    expect(Buffer.from(details ?? '').toString('latin1')).to.not.include('hunter2');
    expect(sent.details).to.equal('no such item');
  });

  it('is encoded once for a shared error, and equals that of any other', () => {
    const options = { retryAfterMs: 500 };
    const error = shareError(new GuardError('RATE_LIMITED', 'too many', options));
    const status = statusOf(error);
    expect(statusOf(error)).to.equal(status);
    const plain = statusOf(new GuardError('RATE_LIMITED', 'too many', options));
    expect(status).to.include({ code: plain.code, details: plain.details });
    expect(status.metadata?.toHttp2Headers()).to.deep.equal(plain.metadata?.toHttp2Headers());
  });

  it('is byte for byte the same for equal errors', () => {
    const bytes = () =>
      statusOf(new GuardError('TOKEN_INVALID', 'the access token is not valid')).metadata.get(
        'grpc-status-details-bin',
      );
    expect(bytes()).to.deep.equal(bytes());
  });
});

describe('a received error', () => {
  it('has no reason when its details are of another domain', () => {
    const value = Buffer.from(
      ErrorInfo.encode({ reason: 'TOKEN_EXPIRED', domain: 'elsewhere', metadata: {} }).finish(),
    );
    const details = [{ typeUrl: 'type.googleapis.com/google.rpc.ErrorInfo', value }];
    const metadata = new Metadata();
    metadata.set(
      'grpc-status-details-bin',
      Buffer.from(Status.encode({ code: 16, message: '', details }).finish()),
    );
    expect(ERROR_DOMAIN).to.not.equal('elsewhere');
    expect(errorOf({ code: 16, details: 'x', metadata })).to.include({ code: 16, reason: '', message: 'x' });
  });

  it('keeps its status when its details cannot be decoded', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        const metadata = new Metadata();
        metadata.set('grpc-status-details-bin', Buffer.from(bytes));
        expect(errorOf({ code: 14, details: 'away', metadata })).to.include({ code: 14, message: 'away' });
      }),
    );
  });

  it('is UNKNOWN when it is no gRPC error', () => {
    const thrown = [
      undefined,
      null,
      'x',
      1,
      new Error('x'),
      { code: 'ENOENT' },
      { metadata: { region: 'eu' } },
      { metadata: 'x', details: 7 },
    ];
    for (const error of thrown) {
      expect(errorOf(error)).to.deep.equal({
        code: status.UNKNOWN,
        reason: '',
        message: '',
        violations: [],
        retryAfterMs: undefined,
      });
    }
  });
});

describe('a service error', () => {
  it('keeps its cause for the log', () => {
    const cause = new Error('why');
    expect(new GuardError('NOT_FOUND', 'no such item', { cause })).to.include({
      name: 'ServiceError',
      code: 'NOT_FOUND',
      message: 'no such item',
      cause,
      retryAfterMs: undefined,
    });
  });

  it('has no cause when none was given', () => {
    expect(Object.hasOwn(new GuardError('NOT_FOUND', 'no such item'), 'cause')).to.equal(false);
  });
});
