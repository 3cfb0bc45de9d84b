/** `portcullis explain`: why a call with a token would be admitted or refused, one check after the other. */

import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import {
  type AccessRule,
  describeViolation,
  KeyRing,
  methodsOfDescriptorSet,
  parseCompactToken,
  parseJsonObject,
  RevocationList,
  readClaims,
  violationOf,
} from '@portcullis/guard/internal';
import { ACCESS_TOKEN_TYPE } from '@portcullis/guard/limits';
import type { Command } from 'commander';
import { z } from 'zod';
import { AuthServiceClient } from '../../gen/auth/v1/auth_service.js';
import {
  EntryKind,
  type Revocation,
  RevocationServiceClient,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import type { Cli } from '../cli.js';
import { CommandError, EXIT } from '../failures.js';
import { methodNameOf, reflect } from '../reflection.js';
import { connect, type Session } from '../session.js';
import { durationText } from '../tables.js';
import { readInput, type Terminal, writeResult } from '../terminal.js';

export function addExplainCommand(program: Command, cli: Cli): void {
  program
    .command('explain')
    .description(
      'say check by check why a call would be admitted or refused; the token is read from standard input',
    )
    .requiredOption('--method <name>', 'the method, such as inventory.v1.InventoryService/GetItem')
    .option('--audience <name>', 'the audience of the service; default: the first part of the method')
    .option('--address <host:port>', 'where the service listens, for its rules; default: auth')
    .option('--proto <file>', 'a descriptor set with the rules, instead of asking the service')
    .option('--jwks <file>', 'the keys of the issuer: then nothing is asked, and revocations are not checked')
    .option(
      '--issuer <name>',
      'the issuer that the service trusts; default: the one of your session, or the token’s',
    )
    .action((options: ExplainOptions) => explain(cli, options));
}

interface ExplainOptions {
  readonly method: string;
  readonly audience?: string;
  readonly address?: string;
  readonly proto?: string;
  readonly jwks?: string;
  readonly issuer?: string;
}

/** The result of one check. `isGood` is undefined when it could not be made. */
interface Check {
  readonly check: string;
  readonly isGood: boolean | undefined;
  readonly why: string;
}

async function explain(cli: Cli, options: ExplainOptions): Promise<void> {
  const terminal = cli.terminal();
  const token = (await readInput(terminal)).trim();
  if (options.jwks !== undefined) {
    if (options.proto === undefined) {
      throw new CommandError('--jwks works offline: name the rules with --proto, too.', {
        exitCode: EXIT.usage,
      });
    }
    const keys = keysOfJwks(await contentOf(options.jwks));
    const rule = await ruleInFile(options.proto, methodNameOf(options.method).path);
    return tell(terminal, await checksOf(token, options, { keys, rule, revocations: undefined }));
  }
  await cli.inSession(async (session) => {
    const auth = session.client(AuthServiceClient);
    const { keySet } = await session.call(auth.getKeys.bind(auth), {});
    const rule = await ruleOf(session, options);
    const revocations = (targets: readonly string[]) => revocationsOf(session, targets);
    const issuer = options.issuer ?? issuerOf(session.context.accessToken);
    const about = { ...options, ...(issuer !== undefined && { issuer }) };
    tell(terminal, await checksOf(token, about, { keys: keySet?.keys ?? [], rule, revocations }));
  });
}

function tell(terminal: Terminal, checks: readonly Check[]): void {
  const isAdmitted = checks.every(({ isGood }) => isGood !== false);
  writeResult(terminal, { admitted: isAdmitted, checks }, () =>
    [
      ...checks.map(
        ({ check, isGood, why }) => `${isGood === undefined ? '?' : isGood ? '✓' : '✗'} ${check}: ${why}`,
      ),
      isAdmitted ? 'The call would be admitted.' : 'The call would be refused.',
    ].join('\n'),
  );
  if (!isAdmitted) throw new CommandError('A check has failed.', { exitCode: EXIT.checkFailed });
}

interface Known {
  readonly keys: Parameters<typeof KeyRing.import>[0];
  readonly rule: AccessRule;
  /** The entries of the log about these identifiers; undefined offline. */
  readonly revocations: ((targets: readonly string[]) => Promise<readonly Revocation[]>) | undefined;
}

/** Makes the checks with the code of the guard, in its order; ends with the first one without which others say nothing. */
async function checksOf(
  text: string,
  options: ExplainOptions,
  { keys, rule, revocations }: Known,
): Promise<readonly Check[]> {
  if (rule.isPublic)
    return [{ check: 'rule', isGood: true, why: 'the method is public: no token is needed' }];
  const checks: Check[] = [];
  const add = (check: string, isGood: boolean | undefined, why: string): boolean | undefined => {
    checks.push({ check, isGood, why });
    return isGood;
  };
  const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
  if (token === undefined) {
    add(
      'form',
      false,
      `it is no access token: a compact JWS of type ${ACCESS_TOKEN_TYPE} whose header has alg, kid and typ only`,
    );
    return checks;
  }
  add('form', true, `a compact JWS, ${token.algorithm}`);
  const ring = await KeyRing.import(keys);
  if (!ring.has(token.keyId)) {
    add(
      'key',
      false,
      `key ${token.keyId} is not published: it was rotated out or revoked, or the token is of another issuer`,
    );
    return checks;
  }
  add('key', true, `key ${token.keyId} is published`);
  if (add('signature', await ring.verify(token), 'made by that key over this header and payload') === false)
    return checks;
  const payload = parseJsonObject(token.payload);
  const nowSeconds = Date.now() / 1000;
  const audience = options.audience ?? options.method.replace(/^\//, '').split('.')[0] ?? '';
  const issuer = options.issuer ?? String(payload?.['iss'] ?? '');
  const claims = payload && readClaims(payload, token.keyId, { issuer, audience: undefined, nowSeconds });
  if (claims === undefined || 'fault' in claims) {
    add(
      'claims',
      false,
      `the claim ${claims?.fault ?? 'set'} is missing or wrong; expected issuer ${issuer}`,
    );
    return checks;
  }
  add('claims', true, `all claims are there, of issuer ${claims.issuer}`);
  add(
    'audience',
    claims.audiences.includes(audience),
    `the token is for ${claims.audiences.join(', ')}; the service is ${audience}`,
  );
  const leftMs = claims.expiresAtSeconds * 1000 - Date.now();
  add(
    'expiry',
    leftMs > 0,
    leftMs > 0
      ? `it expires in ${durationText(leftMs)}`
      : `it expired ${durationText(-leftMs)} ago, by this machine's clock`,
  );
  if (claims.certificateThumbprint !== undefined) {
    add(
      'certificate',
      undefined,
      `it is bound to the client certificate ${claims.certificateThumbprint}: only connections with it are admitted`,
    );
  }
  if (revocations === undefined) add('revocation', undefined, 'not checked offline');
  else {
    const targets = [
      claims.tokenId,
      claims.sessionId,
      claims.subject,
      claims.keyId,
      ...claims.ancestors,
      ...claims.clients.map(([id]) => id),
    ];
    const found = await revocations(targets.filter((target) => target !== undefined));
    const hit = found.find((one) => listOf(one).revokes(claims));
    add(
      'revocation',
      hit === undefined,
      hit === undefined
        ? `no entry of the log matches it (${found.length} looked at)`
        : `revoked by entry ${hit.sequence} at ${hit.revokeTime?.toISOString() ?? 'an unknown time'}: ${hit.reason === '' ? 'no reason stated' : hit.reason}`,
    );
  }
  const none = { ...rule, scopes: [], roles: [], caller: 'ANY', maxAuthAgeSeconds: undefined } as const;
  const parts: [string, AccessRule, string][] = [
    [
      'scope',
      { ...none, scopes: rule.scopes },
      rule.scopes.length === 0 ? 'the method requires none' : `has ${rule.scopes.join(' and ')}`,
    ],
    [
      'role',
      { ...none, roles: rule.roles },
      rule.roles.length === 0 ? 'the method requires none' : `has one of ${rule.roles.join(', ')}`,
    ],
    [
      'caller',
      { ...none, caller: rule.caller },
      rule.caller === 'ANY' ? 'users and services may call' : `is a ${rule.caller.toLowerCase()}`,
    ],
    ['login', { ...none, maxAuthAgeSeconds: rule.maxAuthAgeSeconds }, 'it is recent enough'],
  ];
  for (const [check, part, why] of parts) {
    const violation = violationOf(part, claims, nowSeconds);
    add(
      check,
      violation === undefined,
      violation === undefined
        ? why
        : `${violation}: ${describeViolation(violation, rule).message}; the token has scopes ${[...claims.scopes].join(' ') || 'none'}, roles ${[...claims.roles].join(' ') || 'none'}`,
    );
  }
  return checks;
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The list of the guard with this entry alone. */
function listOf(one: Revocation): RevocationList {
  const isBinary = one.kind === EntryKind.ENTRY_KIND_TOKEN || one.kind === EntryKind.ENTRY_KIND_SESSION;
  const list = new RevocationList();
  if (one.issuer !== '') return list;
  list.add({
    entryId: randomBytes(16),
    sequence: one.sequence,
    kind: one.kind,
    key:
      isBinary && UUID.test(one.target)
        ? Buffer.from(one.target.replaceAll('-', ''), 'hex')
        : Buffer.from(one.target),
    minGeneration: one.minGeneration,
    keepUntil: one.keepUntil,
    acknowledge: false,
    issuer: '',
    cutOffTime: undefined,
    claim: '',
  });
  return list;
}

async function revocationsOf(session: Session, targets: readonly string[]): Promise<readonly Revocation[]> {
  const client = session.client(RevocationServiceClient);
  const pages = await Promise.all(
    targets.map((target) =>
      session.call(client.listRevocations.bind(client), {
        pageSize: 200,
        pageToken: '',
        target,
        actor: '',
        eventId: '',
      }),
    ),
  );
  return pages.flatMap(({ revocations }) => revocations);
}

async function ruleOf(session: Session, { method, address, proto }: ExplainOptions): Promise<AccessRule> {
  const { service, path } = methodNameOf(method);
  if (proto !== undefined) return await ruleInFile(proto, path);
  const connection = await connect({ ...session.context, ...(address !== undefined && { address }) });
  try {
    const { descriptorSet } = await reflect(connection, service);
    return ruleIn(descriptorSet, path);
  } finally {
    connection.close();
  }
}

async function ruleInFile(file: string, path: string): Promise<AccessRule> {
  const bytes = await readFile(file).catch((cause: NodeJS.ErrnoException) => {
    throw new CommandError(`${file} cannot be read: ${cause.message}`, { exitCode: EXIT.usage, cause });
  });
  return ruleIn(bytes, path);
}

function ruleIn(descriptorSet: Uint8Array, path: string): AccessRule {
  const declared = methodsOfDescriptorSet(descriptorSet).find((method) => method.path === path);
  if (declared?.rule !== undefined) return declared.rule;
  throw new CommandError(
    declared === undefined
      ? `The schema has no method ${path}.`
      : `${path} has no valid rule, so the guard refuses every call: ${declared.fault ?? 'the option (portcullis.access.v1.rule) is missing'}.`,
    { exitCode: EXIT.usage },
  );
}

function issuerOf(token: string): string | undefined {
  const payload = parseJsonObject(Buffer.from(token.split('.')[1] ?? '', 'base64url'));
  const issuer = payload?.['iss'];
  return typeof issuer === 'string' ? issuer : undefined;
}

const jwksSchema = z.object({ keys: z.array(z.looseObject({ kid: z.string(), alg: z.string() })) });

function keysOfJwks(text: string): Known['keys'] {
  const set = jwksSchema.safeParse(parseJsonObject(Buffer.from(text)));
  if (!set.success) throw new CommandError('The keys are no JWK set.', { exitCode: EXIT.usage });
  return set.data.keys.map(({ kid, alg, use: _use, key_ops: _ops, ...members }) => ({
    kid,
    algorithm: alg,
    jwk: JSON.stringify(members),
  }));
}

async function contentOf(file: string): Promise<string> {
  return await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new CommandError(`${file} cannot be read: ${cause.message}`, { exitCode: EXIT.usage, cause });
  });
}
