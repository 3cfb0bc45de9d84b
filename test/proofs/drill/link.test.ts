/** A link between two processes can be cut silently, be delayed, and drop messages of a broker. */

import { once } from 'node:events';
import type { AddressInfo, Server, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { type Link, openLink } from '../../../proofs/drill/link.js';
import { dropMessages } from '../../../proofs/drill/nats-frames.js';

const MOMENT_MS = 60;
const DELAY_MS = 150;

describe('a link of the drill', () => {
  let server: Server;
  let link: Link;
  let client: Socket;
  const accepted: Socket[] = [];

  beforeEach(async () => {
    server = createServer((socket) => {
      accepted.push(socket);
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    link = await openLink((server.address() as AddressInfo).port);
    client = connectTo(link);
    await once(client, 'connect');
  });

  afterEach(async () => {
    client.destroy();
    await link.close();
    for (const socket of accepted.splice(0)) socket.destroy();
    server.close();
  });

  it('passes everything in both directions', async () => {
    expect(await echoed(client, 'hello')).to.equal('hello');
  });

  it('passes nothing while it is cut, closes neither side, and delivers everything later', async () => {
    await echoed(client, 'before');
    link.set({ kind: 'cut' });
    const received = echoed(client, 'meanwhile');
    let ended = false;
    client.once('close', () => {
      ended = true;
    });
    expect(await Promise.race([received, sleep(MOMENT_MS, 'nothing')])).to.equal('nothing');
    expect(ended).to.equal(false);
    link.set({ kind: 'pass' });
    expect(await received).to.equal('meanwhile');
  });

  it('accepts connections while it is cut, which lead nowhere until it is restored', async () => {
    link.set({ kind: 'cut' });
    const late = connectTo(link);
    try {
      const received = echoed(late, 'knock');
      expect(await Promise.race([received, sleep(MOMENT_MS, 'nothing')])).to.equal('nothing');
      link.set({ kind: 'pass' });
      expect(await received).to.equal('knock');
    } finally {
      late.destroy();
    }
  });

  it('delays everything, each direction by its own delay and in order', async () => {
    link.set({ kind: 'slow', thereMs: DELAY_MS / 2, backMs: DELAY_MS / 2 });
    const began = performance.now();
    const received = echoed(client, 'abc');
    expect(await received).to.equal('abc');
    expect(performance.now() - began).to.be.at.least(DELAY_MS - 2);
  });

  it('connects to the first port that accepts connections', async () => {
    link.aim([1, (server.address() as AddressInfo).port]);
    const other = connectTo(link);
    try {
      expect(await echoed(other, 'found')).to.equal('found');
    } finally {
      other.destroy();
    }
  });
});

describe('dropMessages', () => {
  const stream = 'INFO {"a":1}\r\nPING\r\nMSG s 1 5\r\nPING\r\r\n+OK\r\nMSG s 1 r 0\r\n\r\nPONG\r\n';

  it('drops messages and nothing else, however the bytes are split', () => {
    for (let size = 1; size <= stream.length; size += 1) {
      expect(through(stream, size, true)).to.equal('INFO {"a":1}\r\nPING\r\n+OK\r\nPONG\r\n');
    }
  });

  it('drops nothing while dropping is off', () => {
    for (let size = 1; size <= stream.length; size += 1)
      expect(through(stream, size, false)).to.equal(stream);
  });

  it('does not change other protocols', () => {
    expect(through('PRI * HTTP/2.0\r\n\r\nMSG s 1 5\r\n', 3, true)).to.equal(
      'PRI * HTTP/2.0\r\n\r\nMSG s 1 5\r\n',
    );
  });
});

function through(text: string, size: number, drop: boolean): string {
  const strip = dropMessages();
  const parts: Buffer[] = [];
  for (let at = 0; at < text.length; at += size)
    parts.push(strip(Buffer.from(text.slice(at, at + size)), drop));
  return Buffer.concat(parts).toString();
}

function connectTo({ address }: Link): Socket {
  const [host = '', port = ''] = address.split(':');
  const socket = connect(Number(port), host);
  socket.on('error', () => undefined);
  return socket;
}

async function echoed(socket: Socket, text: string): Promise<string> {
  const chunks: Buffer[] = [];
  const whole = new Promise<string>((resolve) => {
    const take = (chunk: Buffer): void => {
      chunks.push(chunk);
      const received = Buffer.concat(chunks).toString();
      if (received.length < text.length) return;
      socket.off('data', take);
      resolve(received);
    };
    socket.on('data', take);
  });
  socket.write(text);
  return await whole;
}
