/** The log, and the secrets that it redacts. */

import { generateKeyPairSync } from 'node:crypto';
import { Metadata } from '@grpc/grpc-js';
import { expect } from 'chai';
import { CommonError } from '../../../../services/common/errors.js';
import { createLog, flushLog, logCounts } from '../../../../services/common/host/log.js';
import { REDACTED, redactText } from '../../../../services/common/host/redaction.js';
import { growth } from '../../../support/growth.js';

const JWT = 'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl';

function capture(limits: { readonly linesPerMinute?: number } = {}) {
  const lines: string[] = [];
  const options = { service: 'test', level: 'trace', ...limits };
  const log = createLog(options, { write: (line) => void lines.push(line) });
  const last = (): Record<string, unknown> => JSON.parse(lines.at(-1) ?? '{}');
  return { log, lines, last };
}

describe('log', () => {
  it('writes JSON lines with level, time, service and message', () => {
    const { log, last } = capture();
    log.info({ items: 3n, at: new Date(0) }, 'counted');
    expect(last()).to.include({ level: 'info', service: 'test', msg: 'counted', items: '3' });
    expect(last()).to.include({ pid: process.pid, at: '1970-01-01T00:00:00.000Z' });
  });

  it('redacts values under secret names at any depth', () => {
    const { log, lines } = capture();
    const names = [
      'authorization',
      'Authorization',
      'password',
      'newPassword',
      'client_secret',
      'refreshToken',
    ];
    names.push(
      'access-token',
      'token',
      'key',
      'privateKey',
      'KEY_ENCRYPTION_KEY',
      'cookie',
      'clientAssertion',
    );
    for (const name of names) {
      log.info({ [name]: 'hunter2' }, 'top');
      log.info({ a: { b: [{ c: new Map([[name, { deeper: 'hunter2' }]]) }] } }, 'deep');
      log.child({ [name]: ['hunter2'] }).info('child');
    }
    expect(lines).to.have.length(names.length * 3);
    for (const line of lines) expect(line).to.include(REDACTED).and.not.include('hunter2');
  });

  it('keeps values under names that only sound secret', () => {
    const { log, last } = capture();
    log.info({ tokenId: 'a', kid: 'b', keyId: 'c', tokensVerified: 4, passwordVersion: 5 }, 'kept');
    expect(last()).to.include({ tokenId: 'a', kid: 'b', keyId: 'c', tokensVerified: 4, passwordVersion: 5 });
  });

  it('redacts tokens, private keys and passwords of URLs in any text', () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
    const { log, lines } = capture();
    log.info(`got Bearer ${JWT}`);
    log.info({ text: `and ${JWT}` }, 'x');
    log.info({ text: pem }, pem);
    log.info('postgresql://portcullis:hunter2@localhost/x');
    log.error({ err: new Error(`bad bearer ${JWT}`) }, 'failed');
    log.error(new Error('outer', { cause: new Error(`refused ${JWT}`) }));
    for (const line of lines) {
      expect(line).to.include(REDACTED);
      expect(line).to.not.match(/c2lnbmF0dXJl|hunter2|MC4CAQ/);
    }
  });

  it('redacts the private members of a JSON Web Key', () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    const { log, last } = capture();
    log.info({ published: privateKey.export({ format: 'jwk' }) }, 'x');
    expect(last()['published']).to.include({ kty: 'OKP', d: REDACTED });
  });

  it('logs an error with its code and its causes', () => {
    const { log, last } = capture();
    const cause = Object.assign(new Error('refused'), { code: 'ECONNREFUSED', password: 'hunter2' });
    log.error({ err: new CommonError('DEPENDENCY_UNAVAILABLE', 'away', { cause }) }, 'failed');
    const err = last()['err'];
    expect(err).to.include({ type: 'ServiceError', message: 'away', code: 'DEPENDENCY_UNAVAILABLE' });
    expect(err).to.have.property('stack').that.includes('log.test');
    expect(err).to.have.nested.property('cause.code', 'ECONNREFUSED');
    expect(err).to.have.nested.property('cause.password', REDACTED);
  });

  it('survives loops, long lists and bytes', () => {
    const { log, last } = capture();
    const loop: Record<string, unknown> = { bytes: Buffer.from('hunter2') };
    loop['self'] = loop;
    log.info({ loop, list: Array.from({ length: 1_000 }, (_, index) => index) }, 'x');
    expect(last()).to.have.nested.property('loop.bytes', '[7 bytes]');
    expect(last()['list']).to.have.length(100);
  });

  it('redacts the token in gRPC metadata', () => {
    const { log, lines } = capture();
    const metadata = new Metadata();
    metadata.set('authorization', 'opaque-hunter2');
    log.info({ metadata }, 'x');
    expect(lines[0]).to.not.include('hunter2');
  });

  it('receives the log of grpc-js, without the header values that grpc-js rejected', () => {
    const { lines } = capture();
    for (const value of ['Bearer opaque-hunter2 ü', `${JWT}\u0001`]) {
      Metadata.fromHttp2Headers({ authorization: value, 'x-other': 'fine' });
    }
    expect(lines).to.have.length(2);
    for (const line of lines) {
      expect(line).to.include('grpc-js').and.include('authorization').and.include(REDACTED);
      expect(line).to.not.match(/hunter2|eyJ/);
    }
  });

  it('cuts what a caller can make long: names of headers, texts, and lists', () => {
    const { lines, log, last } = capture();
    Metadata.fromHttp2Headers({ ['a-'.repeat(30_000)]: 'x\u0080y' });
    expect(lines).to.have.length(1);
    expect(last()['msg']).to.match(/^Failed to add metadata entry (a-){0,32}: \[redacted\]$/);
    log.info({ text: 'long '.repeat(20_000), ['n'.repeat(70_000)]: 1 }, 'm'.repeat(70_000));
    log.info({ list: Array.from({ length: 1_000 }, () => 'item '.repeat(500)) }, 'list');
    for (const line of lines) expect(line.length).to.be.below(50_000);
    expect(last()['list']).to.have.length(100);
  });

  it('takes time in proportion to a rejected header', () => {
    capture();
    const receive = (length: number): unknown =>
      Metadata.fromHttp2Headers({ ['a-'.repeat(length / 2)]: 'x\u0080y' });
    expect(growth(receive)).to.be.below(4);
  });

  it('drops the cut half of a secret', () => {
    const { lines, log } = capture();
    const filler = 'x '.repeat(2_040);
    log.info({ text: `${filler}postgresql://portcullis:hunter2hunter2@localhost/x` }, 'url');
    log.info({ text: `${filler}Bearer ${JWT}` }, 'token');
    for (const line of lines) expect(line).to.not.match(/hunter2|eyJ/);
  });

  it('stays JSON when a private key has no end', () => {
    const { log, last } = capture();
    log.info({ a: '-----BEGIN PRIVATE KEY-----MC4CAQ', b: 'kept' }, 'x');
    expect(last()).to.include({ a: REDACTED, b: 'kept' });
  });

  it('writes the lines of one kind up to a limit, and says how many there were more', async () => {
    const { log, lines, last } = capture({ linesPerMinute: 60 });
    for (let count = 0; count < 1_000; count += 1) log.warn({ count }, 'rejected');
    log.info('something else');
    expect(lines.filter((line) => line.includes('"rejected"'))).to.have.length(10);
    expect(last()['msg']).to.equal('something else');
    await flushLog(log);
    expect(last()).to.include({ msg: 'suppressed lines of one kind', kind: 'rejected', suppressed: 990 });
    expect(logCounts(log)).to.deep.equal({ lost: 0, suppressed: 990 });
  });

  it('counts all messages of grpc-js as one kind, because callers choose their texts', () => {
    const { log, lines } = capture({ linesPerMinute: 60 });
    for (let count = 0; count < 1_000; count += 1) Metadata.fromHttp2Headers({ [`x-${count}`]: 'x\u0080y' });
    expect(lines).to.have.length(10);
    expect(logCounts(log).suppressed).to.equal(990);
  });

  it('leaves ordinary text alone', () => {
    for (const line of ['the bearer of news', 'https://example.org:8080/a@b', 'eyJ is short', '12:30 a@b']) {
      expect(redactText(line).replace(REDACTED, 'of')).to.equal(line);
    }
  });
});
