/** Floods of callers without any account: bad headers, logins, forged tokens, public methods. */

import { randomBytes, randomUUID } from 'node:crypto';
import { GetKeysRequest, LoginRequest, RefreshRequest } from '../../proto/gen/auth/v1/auth_service.js';
import { IssueServiceTokenRequest } from '../../proto/gen/portcullis/token/v1/token.js';
import type { Attack } from './attack.js';
import type { Flood } from './flood.js';

const LOGIN = '/auth.v1.AuthService/Login';
const REFRESH = '/auth.v1.AuthService/Refresh';
const ISSUE = '/auth.v1.AuthService/IssueServiceToken';
const GET_KEYS = '/auth.v1.AuthService/GetKeys';
const HEALTH_CHECK = '/grpc.health.v1.Health/Check';

/** A header value that no metadata may contain. */
const BAD_VALUE = 'x\x80y';
/** As long as the header block of one request may be. */
const LONG_NAME = 'a-'.repeat(30_000);
const SIGNATURE_BYTES = 64;
const ADDRESSES = 60;
/** A token may be so long that its payload nests so deep. */
const NESTED = 2_500;

/** A login with a wrong password. */
function loginMessage(username: string): Uint8Array {
  const password = randomBytes(9).toString('base64url');
  return LoginRequest.encode({ username, password, audiences: [], scopes: [], deviceName: '' }).finish();
}

/** A well-formed token without a valid signature, with the header and claims of a real one and the given changes. */
function forgedToken(attack: Attack, changes: { header?: object; claims?: object } = {}): string {
  const [header = '', payload = ''] = attack.input.customers[0]?.accessToken.split('.') ?? [];
  const changed = (segment: string, members: object | undefined): string => {
    const known = JSON.parse(Buffer.from(segment, 'base64url').toString('utf8')) as object;
    return Buffer.from(JSON.stringify({ ...known, ...members })).toString('base64url');
  };
  const claims = { jti: randomUUID(), ...changes.claims };
  return [
    changed(header, changes.header),
    changed(payload, claims),
    randomBytes(SIGNATURE_BYTES).toString('base64url'),
  ].join('.');
}

/** Sends forged tokens to every service, from some networks of strangers and from the network of the honest. */
async function sendForged(attack: Attack, token: () => string): Promise<void> {
  await attack.repeat({ perSecond: 2_000, atOnce: 400, most: 40_000 }, async (index) => {
    const target = attack.guarded[index % attack.guarded.length];
    const from = index % 3 === 0 ? '127.0.0.1' : attack.strange(index % 6);
    if (target !== undefined) await attack.send({ ...target, token: token(), from });
  });
}

/** Sends 22,000 small headers whose values no metadata may contain, 50 in a request. */
export async function sendBadHeaders(attack: Attack, targets: readonly string[]): Promise<void> {
  const metadata = Array.from({ length: 50 }, (_, index) => [`a-${index}`, BAD_VALUE] as const);
  await attack.repeat({ perSecond: 100, atOnce: 100, most: 440 }, async (index) => {
    const to = targets[index % targets.length] ?? '';
    await attack.send({ to, path: HEALTH_CHECK, from: attack.strange(index % 4), metadata });
  });
}

export const STRANGER_FLOODS: readonly Flood[] = [
  {
    name: 'long-header-names',
    attacker: 'stranger',
    title: 'requests whose one header has a name of 60 kB and a bad value',
    run: (attack) =>
      attack.repeat({ perSecond: 16, atOnce: 32, most: 320 }, async (index) => {
        const to = attack.everywhere[index % attack.everywhere.length] ?? '';
        const metadata = [[LONG_NAME, BAD_VALUE]] as const;
        await attack.send({ to, path: HEALTH_CHECK, from: attack.strange(index % 4), metadata });
      }),
  },
  {
    name: 'bad-headers',
    attacker: 'stranger',
    title: '22,000 small headers with bad values',
    run: (attack) => sendBadHeaders(attack, attack.everywhere),
  },
  {
    name: 'bad-assertions',
    attacker: 'stranger',
    title: "malformed assertions for a service's client, from the services' own address",
    run: (attack) =>
      attack.repeat({ perSecond: 150, atOnce: 100, most: 1_500 }, async (index) => {
        const message = IssueServiceTokenRequest.encode({
          clientId: 'payment',
          audiences: [],
          scopes: [],
          credential: { $case: 'clientAssertion', value: index % 2 === 0 ? 'x' : forgedToken(attack) },
        }).finish();
        await attack.send({ to: attack.input.addresses.auth, path: ISSUE, from: '127.0.0.1', message });
      }),
  },
  {
    name: 'unknown-logins',
    attacker: 'stranger',
    title: 'logins of unknown names from 60 addresses, each below its own limit',
    run: (attack) =>
      attack.repeat({ perSecond: 300, atOnce: 600, most: 6_000 }, async (index) => {
        const message = loginMessage(`nobody-${index}`);
        const from = attack.strange(index % ADDRESSES);
        await attack.send({ to: attack.input.addresses.auth, path: LOGIN, from, message });
      }),
  },
  {
    name: 'guessed-passwords',
    attacker: 'stranger',
    title: 'wrong passwords for the names of honest users, from 60 addresses',
    run: (attack) =>
      attack.repeat({ perSecond: 200, atOnce: 400, most: 4_000 }, async (index) => {
        const message = loginMessage(attack.random.pick(attack.input.honestNames));
        const from = attack.strange(index % ADDRESSES);
        await attack.send({ to: attack.input.addresses.auth, path: LOGIN, from, message });
      }),
  },
  {
    name: 'cancelled-logins',
    attacker: 'stranger',
    title: 'logins that are cancelled as soon as they are sent',
    run: async (attack) => {
      const { auth } = attack.input.addresses;
      const sessions = Array.from({ length: 30 }, (_, index) => attack.connect(auth, attack.strange(index)));
      await attack.repeat({ perSecond: 500, atOnce: 100, most: 10_000 }, (index) => {
        const session = sessions[index % sessions.length];
        const stream = session === undefined ? undefined : attack.open(session, LOGIN);
        const bytes = loginMessage(`nobody-${index}`);
        const prefix = Buffer.alloc(5);
        prefix.writeUInt32BE(bytes.length, 1);
        stream?.end(Buffer.concat([prefix, bytes]), () => setTimeout(() => stream.close(8), 2));
      });
    },
  },
  {
    name: 'random-refreshes',
    attacker: 'stranger',
    title: 'refresh tokens that were never issued',
    run: (attack) =>
      attack.repeat({ perSecond: 500, atOnce: 300, most: 10_000 }, async (index) => {
        const refreshToken = `pcr_${randomBytes(32).toString('base64url')}`;
        const message = RefreshRequest.encode({ refreshToken, requestId: randomUUID() }).finish();
        const from = attack.strange(index % ADDRESSES);
        await attack.send({ to: attack.input.addresses.auth, path: REFRESH, from, message });
      }),
  },
  {
    name: 'forged-tokens',
    attacker: 'stranger',
    title: 'tokens with a random signature, over many connections and addresses',
    run: (attack) => sendForged(attack, () => forgedToken(attack)),
  },
  {
    name: 'unknown-keys',
    attacker: 'stranger',
    title: 'tokens that name unknown keys',
    run: (attack) =>
      sendForged(attack, () =>
        forgedToken(attack, { header: { kid: randomBytes(8).toString('base64url') } }),
      ),
  },
  {
    name: 'foreign-issuers',
    attacker: 'stranger',
    title: 'tokens of unknown issuers',
    run: (attack) =>
      sendForged(attack, () =>
        forgedToken(attack, {
          claims: { iss: `https://${randomUUID()}.example`, jku: 'http://127.0.0.1:9' },
        }),
      ),
  },
  {
    name: 'nested-tokens',
    attacker: 'stranger',
    title: 'tokens whose payload is JSON nested 2,500 levels deep',
    run: (attack) => {
      const payload = Buffer.from(`{"a":${'['.repeat(NESTED)}${']'.repeat(NESTED)}}`).toString('base64url');
      return sendForged(attack, () => {
        const [header = '', , signature = ''] = forgedToken(attack).split('.');
        return `${header}.${payload}.${signature}`;
      });
    },
  },
  {
    name: 'public-keys',
    attacker: 'stranger',
    title: 'GetKeys and Health/Check as fast as they are answered',
    run: (attack) =>
      attack.repeat({ perSecond: 3_000, atOnce: 200, most: 60_000 }, async (index) => {
        const from = attack.strange(index % 20);
        if (index % 2 === 0) {
          const message = GetKeysRequest.encode({}).finish();
          await attack.send({ to: attack.input.addresses.auth, path: GET_KEYS, from, message });
        } else {
          const to = attack.everywhere[index % attack.everywhere.length] ?? '';
          await attack.send({ to, path: HEALTH_CHECK, from });
        }
      }),
  },
  {
    name: 'unknown-methods',
    attacker: 'stranger',
    title: 'paths that no service has, and messages that do not decode',
    run: (attack) =>
      attack.repeat({ perSecond: 2_000, atOnce: 200, most: 40_000 }, async (index) => {
        const to = attack.everywhere[index % attack.everywhere.length] ?? '';
        const from = attack.strange(index % 20);
        if (index % 2 === 0) await attack.send({ to, path: `/${randomUUID()}/${index}`, from });
        else await attack.send({ to, path: HEALTH_CHECK, from, message: randomBytes(200) });
      }),
  },
];
