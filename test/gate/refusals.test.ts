/** Refusals for callers that do not speak gRPC. */
import { ErrorInfo, RetryInfo } from '@portcullis/guard/proto/google/rpc/error_details';
import { Status } from '@portcullis/guard/proto/google/rpc/status';
import { expect } from 'chai';
import { httpStatusOf, protocolOf, type RequestForm, refusalOf } from '../../gate/src/refusals.js';

const REVOKED = statusWith(16, 'TOKEN_REVOKED', 'the access token has been revoked');

describe('refusalOf', () => {
  it('leaves the refusal of a gRPC call to the status itself', () => {
    for (const type of ['application/grpc', 'application/grpc+proto', 'application/grpc+json']) {
      expect(refusalOf(REVOKED, request({ 'content-type': type }))).to.equal(undefined);
    }
  });

  it('sends gRPC-Web the status in the headers, in its own content type', () => {
    const type = 'application/grpc-web-text+proto';
    const refusal = refusalOf(REVOKED, request({ 'content-type': type }));
    expect(refusal?.status).to.equal(200);
    expect(refusal?.headers[0]).to.deep.equal(['content-type', type]);
    expect(refusal?.headers).to.deep.include(['grpc-status', '16']);
    expect(refusal?.body).to.have.length(0);
  });

  it('sends a unary Connect call an HTTP status and an error in JSON with the details', () => {
    const refusal = refusalOf(
      REVOKED,
      request({ 'content-type': 'application/proto', 'connect-protocol-version': '1' }),
    );
    expect(refusal?.status).to.equal(401);
    const { code, message, details } = JSON.parse(String(refusal?.body));
    expect([code, message]).to.deep.equal(['unauthenticated', 'the access token has been revoked']);
    expect(details[0].type).to.equal('google.rpc.ErrorInfo');
    expect(ErrorInfo.decode(Buffer.from(details[0].value, 'base64')).reason).to.equal('TOKEN_REVOKED');
  });

  it('recognizes a Connect call by GET, which has no content type', () => {
    const get = { ...request({}), method: 'GET', path: '/a.B/C?connect=v1&encoding=json&message=e30' };
    expect(protocolOf(get)).to.equal('connect-unary');
    expect(protocolOf({ ...get, path: '/a.B/C?connect=v12' })).to.equal('http');
  });

  it('ends a Connect stream with an error in its last message', () => {
    const refusal = refusalOf(REVOKED, request({ 'content-type': 'application/connect+json' }));
    expect(refusal?.status).to.equal(200);
    expect(refusal?.body.readUInt8(0)).to.equal(2);
    const text = refusal?.body.subarray(5) ?? Buffer.alloc(0);
    expect(refusal?.body.readUInt32BE(1)).to.equal(text.length);
    expect(JSON.parse(String(text)).error.code).to.equal('unauthenticated');
  });

  it('sends plain HTTP the error of AIP-193, and tells how to go on', () => {
    const refusal = refusalOf(REVOKED, request({ 'content-type': 'application/json' }));
    expect(refusal?.status).to.equal(401);
    expect(JSON.parse(String(refusal?.body))).to.deep.equal({
      error: {
        code: 401,
        message: 'the access token has been revoked',
        status: 'UNAUTHENTICATED',
        details: [
          {
            '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
            reason: 'TOKEN_REVOKED',
            domain: 'portcullis',
          },
        ],
      },
    });
    expect(refusal?.headers).to.deep.include(['www-authenticate', 'Bearer error="invalid_token"']);
    expect(
      refusalOf(statusWith(14, 'REVOCATION_STATE_STALE', 'x', 1.5), request({}))?.headers,
    ).to.deep.include(['retry-after', '2']);
    expect(refusalOf(statusWith(7, 'SCOPE_MISSING', 'x'), request({}))?.headers).to.deep.include([
      'www-authenticate',
      'Bearer error="insufficient_scope"',
    ]);
  });

  it('states the length of every body', () => {
    for (const type of ['application/grpc-web', 'application/connect+proto', 'application/json']) {
      const refusal = refusalOf(REVOKED, request({ 'content-type': type }));
      expect(refusal?.headers, type).to.deep.include(['content-length', String(refusal?.body.length)]);
    }
  });
});

describe('httpStatusOf', () => {
  it('has a status for every code that the guard sends', () => {
    const statuses = [16, 7, 14, 8, 4, 3, 5, 12].map(httpStatusOf);
    expect(statuses).to.deep.equal([401, 403, 503, 429, 504, 400, 404, 501]);
    expect(httpStatusOf(13)).to.equal(500);
  });
});

function request(headers: Readonly<Record<string, string>>): RequestForm {
  return { method: 'POST', path: '/greeter.v1.GreeterService/SayHello', header: (name) => headers[name] };
}

function statusWith(code: number, reason: string, message: string, retrySeconds?: number) {
  const info = ErrorInfo.encode({ reason, domain: 'portcullis', metadata: {} }).finish();
  const details = [{ typeUrl: 'type.googleapis.com/google.rpc.ErrorInfo', value: Buffer.from(info) }];
  if (retrySeconds !== undefined) {
    const seconds = Math.floor(retrySeconds);
    const nanos = (retrySeconds - seconds) * 1e9;
    const retry = RetryInfo.encode({ retryDelay: { seconds: BigInt(seconds), nanos } }).finish();
    details.push({ typeUrl: 'type.googleapis.com/google.rpc.RetryInfo', value: Buffer.from(retry) });
  }
  const encoded = Buffer.from(Status.encode({ code, message, details }).finish()).toString('base64');
  const headers = [
    ['grpc-status', String(code)],
    ['grpc-message', message],
    ['grpc-status-details-bin', encoded],
  ] as const;
  return { code, reason, message, headers };
}
