/** The metrics of calls, scraped as Prometheus does. */

import { type CallOptions, type Client, Metadata, ServerInterceptingCall, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { CommonError } from '../../../../services/common/errors.js';
import { until } from '../../../support/waiting.js';
import { EchoService, type RunningHost, runHost } from '../host/running-host.js';

const { requestSerialize, responseDeserialize } = EchoService.echo;
const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';

describe('metrics of calls', () => {
  let running: RunningHost;
  let client: Client;
  let refuse: boolean;

  beforeEach(async () => {
    refuse = false;
    running = await runHost({
      interceptors: [
        (_method, call) =>
          new ServerInterceptingCall(call, {
            start: (next) => {
              if (refuse) call.sendStatus({ code: status.UNAUTHENTICATED, details: 'no' });
              next();
            },
          }),
      ],
    });
    client = running.connect();
  });
  afterEach(() => running.close());

  function echo(
    path = EchoService.echo.path,
    options: CallOptions = {},
    metadata = new Metadata(),
  ): Promise<string> {
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        'x',
        metadata,
        options,
        (error, value) => {
          if (error === null) resolve(value ?? '');
          else reject(error);
        },
      );
    });
  }

  async function samples(pattern: RegExp): Promise<string[]> {
    const text = await (await running.ops('/metrics')).text();
    return text.split('\n').filter((line) => line.startsWith('grpc_server') && pattern.test(line));
  }

  function sample(name: string, type: string, method: string, value: number, code?: string): string {
    const labels = `grpc_type="${type}",grpc_service="test.v1.EchoService",grpc_method="${method}"`;
    return `${name}{${labels}${code === undefined ? '' : `,grpc_code="${code}"`}} ${value}`;
  }

  it('count unary calls, their messages and their time', async () => {
    expect(await echo()).to.equal('x');
    expect(await echo()).to.equal('x');
    expect(await samples(/Echo"/)).to.include.members([
      sample('grpc_server_started_total', 'unary', 'Echo', 2),
      sample('grpc_server_handled_total', 'unary', 'Echo', 2, 'OK'),
      sample('grpc_server_msg_received_total', 'unary', 'Echo', 2),
      sample('grpc_server_msg_sent_total', 'unary', 'Echo', 2),
      sample('grpc_server_handling_seconds_count', 'unary', 'Echo', 2),
    ]);
  });

  it('count the messages of streams in both directions', async () => {
    const repeat = client.makeServerStreamRequest(
      EchoService.repeat.path,
      requestSerialize,
      responseDeserialize,
      'x',
    );
    await repeat.forEach(() => {});
    const chat = client.makeBidiStreamRequest(EchoService.chat.path, requestSerialize, responseDeserialize);
    chat.write('a');
    chat.write('b');
    chat.end();
    await chat.forEach(() => {});
    const joined = await new Promise<string | undefined>((resolve, reject) => {
      const join = client.makeClientStreamRequest(
        EchoService.join.path,
        requestSerialize,
        responseDeserialize,
        (error, value) => (error === null ? resolve(value) : reject(error)),
      );
      for (const part of ['a', 'b', 'c']) join.write(part);
      join.end();
    });
    expect(joined).to.equal('a+b+c');
    expect(await samples(/msg_|handled/)).to.have.members([
      sample('grpc_server_msg_received_total', 'server_stream', 'Repeat', 1),
      sample('grpc_server_msg_sent_total', 'server_stream', 'Repeat', 3),
      sample('grpc_server_handled_total', 'server_stream', 'Repeat', 1, 'OK'),
      sample('grpc_server_msg_received_total', 'bidi_stream', 'Chat', 2),
      sample('grpc_server_msg_sent_total', 'bidi_stream', 'Chat', 2),
      sample('grpc_server_handled_total', 'bidi_stream', 'Chat', 1, 'OK'),
      sample('grpc_server_msg_received_total', 'client_stream', 'Join', 3),
      sample('grpc_server_msg_sent_total', 'client_stream', 'Join', 1),
      sample('grpc_server_handled_total', 'client_stream', 'Join', 1, 'OK'),
    ]);
  });

  it('count failures by status, in the spelling of Go', async () => {
    running.echo.handle = () => Promise.reject(new CommonError('NOT_FOUND', 'no such thing'));
    await echo().catch(() => {});
    running.echo.handle = () => Promise.reject(new Error('boom'));
    await echo().catch(() => {});
    expect(await samples(/handled/)).to.have.members([
      sample('grpc_server_handled_total', 'unary', 'Echo', 1, 'NotFound'),
      sample('grpc_server_handled_total', 'unary', 'Echo', 1, 'Internal'),
    ]);
  });

  it('count calls that an inner interceptor rejects', async () => {
    refuse = true;
    await echo().catch(() => {});
    expect(await samples(/handled|started/)).to.have.members([
      sample('grpc_server_started_total', 'unary', 'Echo', 1),
      sample('grpc_server_handled_total', 'unary', 'Echo', 1, 'Unauthenticated'),
    ]);
  });

  it('count cancelled calls and calls past their deadline, each once', async () => {
    running.echo.handle = () => new Promise(() => {});
    const call = client.makeUnaryRequest(
      EchoService.echo.path,
      requestSerialize,
      responseDeserialize,
      'x',
      () => {},
    );
    await until(async () => (await samples(/started/)).length > 0);
    call.cancel();
    await until(async () => (await samples(/handled/)).length > 0);
    // Sent without the client's own timer, so that the deadline ends the call at the server and not at the client.
    const hurried = new Metadata();
    hurried.set('grpc-timeout', '50m');
    await echo(undefined, {}, hurried).catch(() => {});
    await until(async () => (await samples(/handled/)).length > 1);
    expect(await samples(/handled/)).to.have.members([
      sample('grpc_server_handled_total', 'unary', 'Echo', 1, 'Canceled'),
      sample('grpc_server_handled_total', 'unary', 'Echo', 1, 'DeadlineExceeded'),
    ]);
  });

  it('have no series for unknown methods', async () => {
    for (let count = 0; count < 5; count++) {
      const error = await echo(`/test.v1.EchoService/No${count}`).catch((reason: unknown) => reason);
      expect(error).to.have.property('code', status.UNIMPLEMENTED);
      await echo(`/no${count}.Such/Service`).catch(() => {});
    }
    expect(await samples(/./)).to.deep.equal([]);
  });

  it("come with a line in the log for our own faults, with the caller's trace and without the token", async () => {
    running.echo.handle = () => Promise.reject(new Error('boom'));
    const metadata = new Metadata();
    metadata.set('traceparent', `00-${TRACE_ID}-b7ad6b7169203331-01`);
    metadata.set('authorization', 'Bearer hunter2');
    await echo(undefined, {}, metadata).catch(() => {});
    const line = running.lines.map((text) => JSON.parse(text)).find(({ msg }) => msg === 'call ended');
    expect(line).to.include({
      level: 'warn',
      method: EchoService.echo.path,
      code: 'INTERNAL',
      traceId: TRACE_ID,
    });
    expect(running.lines.join('')).to.not.include('hunter2');
  });
});
