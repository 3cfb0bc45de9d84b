/** Attacks on rights that a caller almost has: goods without payment, roles without scopes, retries without proof. */

import { randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { LoginRequest, RefreshRequest } from '../../proto/gen/auth/v1/auth_service.js';
import {
  CommitReservationRequest,
  GetReservationRequest,
  ReservationState,
  ReserveStockRequest,
  ReserveStockResponse,
  SettleReservationRequest,
} from '../../proto/gen/inventory/v1/inventory_service.js';
import {
  type ForeignTarget,
  RevokeRequest,
  RevokeWait,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { expectNotServed, runClass } from './attempts.js';
import type { Environment } from './environment.js';
import { claimsIn } from './forge.js';

const INVENTORY = '/inventory.v1.InventoryService';
const LOGIN = '/auth.v1.AuthService/Login';
const REFRESH = '/auth.v1.AuthService/Refresh';
const REVOKE = '/portcullis.revocation.v1.RevocationService/Revoke';
const SKU = 'MUG-03';
/** Not random: a counter, a word, the nil UUID, and a UUID of a clock (RFC 9562 §5.1). */
const WEAK_REQUEST_IDS = [
  '1',
  'retry',
  '00000000-0000-0000-0000-000000000000',
  '8d3c1a60-cd8f-11f0-8de9-0242ac120002',
];
/** Roles whose scopes a token narrowed to `inventory.reserve` has lost. */
const LOST_ROLES = ['operator', 'security', 'admin'];
/** A message frame of gRPC begins with five bytes. */
const PREFIX_BYTES = 5;

export async function attackRights(environment: Environment): Promise<void> {
  await commitUnpaid(environment);
  await useLostRoles(environment);
  await retryWithoutProof(environment);
  await revokeOfUnknownIssuers(environment);
  await askForUnknownWords(environment);
}

/** A customer's reservation becomes a sale only through payment. */
async function commitUnpaid(environment: Environment): Promise<void> {
  const className = 'goods without payment';
  await runClass(environment, className, async () => {
    const reservationId = await reserve(environment, className);
    const { target, alice } = environment;
    const authorization = [`Bearer ${alice.accessToken}`];
    const attempts = {
      CommitReservation: CommitReservationRequest.encode({ reservationId, requestId: randomUUID() }).finish(),
      SettleReservation: SettleReservationRequest.encode({
        reservationId,
        outcome: ReservationState.RESERVATION_STATE_COMMITTED,
        authoriser: undefined,
        requestId: randomUUID(),
      }).finish(),
    };
    for (const [method, message] of Object.entries(attempts)) {
      const path = `${INVENTORY}/${method}`;
      const answer = await environment.send(target.inventory, { path, authorization, message });
      expectNotServed(environment, className, `${method} of an own reservation`, answer);
    }
  });
}

/** A token that was narrowed to some scopes has no role that needs others. */
async function useLostRoles(environment: Environment): Promise<void> {
  const className = 'roles of a narrowed token';
  await runClass(environment, className, async () => {
    const reservationId = await reserve(environment, className);
    const { username, password } = environment.system.users.olga;
    const request = {
      username,
      password,
      audiences: ['inventory'],
      scopes: ['inventory.reserve'],
      deviceName: 'attack',
    };
    const { accessToken } = await ask(environment.auth.login.bind(environment.auth), request);
    const roles: unknown = claimsIn(accessToken)['roles'];
    const kept = LOST_ROLES.filter((role) => Array.isArray(roles) && roles.includes(role));
    environment.board.holds(className, kept.length === 0, `the token keeps ${kept.join(', ')}`);
    const answer = await environment.send(environment.target.inventory, {
      path: `${INVENTORY}/GetReservation`,
      authorization: [`Bearer ${accessToken}`],
      message: GetReservationRequest.encode({ reservationId }).finish(),
    });
    expectNotServed(environment, className, "another user's reservation", answer);
  });
}

/** A request id that can be guessed must not be accepted as a proof, and must not use the token up. */
async function retryWithoutProof(environment: Environment): Promise<void> {
  const className = 'refresh: request ids that prove nothing';
  await runClass(environment, className, async () => {
    const { refreshToken } = await environment.logIn('bob');
    for (const requestId of WEAK_REQUEST_IDS) {
      const message = RefreshRequest.encode({ refreshToken, requestId }).finish();
      const answer = await environment.send(environment.target.auth, { path: REFRESH, message });
      expectNotServed(environment, className, `request id ${requestId}`, answer);
    }
    const message = RefreshRequest.encode({ refreshToken, requestId: randomUUID() }).finish();
    const answer = await environment.send(environment.target.auth, { path: REFRESH, message });
    if (answer.status !== status.OK) {
      environment.board.crashed(className, `the real request afterwards: ${answer.fields}`);
    }
  });
}

/** A revocation that hits nothing must not look like one that does. */
async function revokeOfUnknownIssuers(environment: Environment): Promise<void> {
  const className = 'revocations under unknown issuers';
  await runClass(environment, className, async () => {
    const subject: NonNullable<ForeignTarget['what']> = { $case: 'subject', value: 'alice' };
    for (const issuer of [`${environment.system.issuer}/`, 'https://issuer.example/', 'x']) {
      const message = RevokeRequest.encode({
        target: { $case: 'foreign', value: { issuer, what: subject } },
        reason: 'attack',
        wait: RevokeWait.REVOKE_WAIT_NONE,
        targets: [],
        dryRun: false,
        fences: [],
      }).finish();
      const authorization = [`Bearer ${environment.olga.accessToken}`];
      const answer = await environment.send(environment.target.auth, {
        path: REVOKE,
        authorization,
        message,
      });
      expectNotServed(environment, className, issuer, answer);
    }
  });
}

async function askForUnknownWords(environment: Environment): Promise<void> {
  const className = 'login: unknown scopes and audiences';
  await runClass(environment, className, async () => {
    const { username, password } = environment.system.users.bob;
    const wishes = [
      { scopes: ['nope'], audiences: [] },
      { scopes: ['inventory.read', 'inventory.raed'], audiences: [] },
      { scopes: [], audiences: ['inventory', 'inventroy'] },
    ];
    for (const wish of wishes) {
      const message = LoginRequest.encode({ username, password, deviceName: 'attack', ...wish }).finish();
      const answer = await environment.send(environment.target.auth, { path: LOGIN, message });
      expectNotServed(environment, className, JSON.stringify(wish), answer);
    }
  });
}

/** Reserves one unit for alice. */
async function reserve(environment: Environment, className: string): Promise<string> {
  const answer = await environment.send(environment.target.inventory, {
    path: `${INVENTORY}/ReserveStock`,
    authorization: [`Bearer ${environment.alice.accessToken}`],
    message: ReserveStockRequest.encode({
      lines: [{ sku: SKU, quantity: 1n }],
      timeToLive: { seconds: 60n, nanos: 0 },
      requestId: randomUUID(),
    }).finish(),
  });
  if (answer.status !== status.OK) environment.board.crashed(className, `ReserveStock: ${answer.fields}`);
  return ReserveStockResponse.decode(answer.body.subarray(PREFIX_BYTES)).reservation?.reservationId ?? '';
}
