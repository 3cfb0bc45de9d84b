/** A peer that does not read: the guard resets its stream, and the handler ends. */

import { Client } from '@grpc/grpc-js';
import { native, serverStream } from '@portcullis/guard';
import { createTestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { ECHO, echoHandlers, echoSchema, openEchoStream, Trace } from '../../support/echo.js';
import { until } from '../../support/waiting.js';

describe('a stream of responses that are not read', () => {
  it('ends its handler, which waits until the peer has room, when the limit in time resets it', async () => {
    const kit = await createTestKit({ audience: 'echo', limits: { responseMs: 1000 } });
    let sent = 0;
    let ended = 0;
    const sendForEver = serverStream<Buffer, Buffer>(async function* () {
      try {
        for (;;) {
          sent += 1;
          yield Buffer.alloc(100_000);
        }
      } finally {
        ended += 1;
      }
    });
    const handlers = native({ ...echoHandlers(new Trace()), ServerStream: sendForEver });
    const served = await kit.serve((server, guard) => guard.addService(server, ECHO, echoSchema(), handlers));
    try {
      const stream = openEchoStream(served.client(Client, kit.user({ scopes: ['echo.call'] })));
      stream.on('error', () => undefined);
      await until(() => sent > 1);
      expect(ended).to.equal(0);
      await kit.advance(5000);
      await until(() => ended === 1, { withinMs: 2000 });
    } finally {
      await kit.close();
    }
  });
});
