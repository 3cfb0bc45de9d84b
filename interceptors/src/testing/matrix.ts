/** The matrix of methods and callers, decided by the guard itself. No handler runs. */

import { Metadata, type ServiceDefinition } from '@grpc/grpc-js';
import type { GuardErrorCode } from '../errors.js';
import type { SchemaMetadata } from '../server/access-rule.js';
import type { Caller } from '../server/admission.js';
import type { ServerGuard } from '../server/guard.js';
import type { AccessRules } from '../server/rule-sources.js';
import { authorize, type Persona } from './personas.js';

/** What calls: a persona, the text of a token, or nothing for a caller without a token. */
export type Credential = Persona | string | undefined;

/** The decision on a call. */
export type Verdict = 'ADMITTED' | GuardErrorCode;

/** The verdicts by the full path of the method, and then by the name of the caller. */
export type Matrix<Name extends string = string> = Readonly<Record<string, Readonly<Record<Name, Verdict>>>>;

/** A generated service and its access rules. */
export interface ServiceRules {
  readonly definition: ServiceDefinition;
  /** The `protoMetadata` of the generated file, or the result of `codeRules` or `descriptorRules`. */
  readonly rules: SchemaMetadata | AccessRules;
}

/** Decides a call of every path by every caller. */
export async function decideMatrix<Name extends string>(
  guard: ServerGuard,
  paths: readonly string[],
  callers: Readonly<Record<Name, Credential>>,
): Promise<Matrix<Name>> {
  const names = Object.keys(callers) as Name[];
  const matrix: Record<string, Record<Name, Verdict>> = {};
  for (const path of paths) {
    const row: Partial<Record<Name, Verdict>> = {};
    for (const name of names) row[name] = await decide(guard, path, callers[name]);
    matrix[path] = row as Record<Name, Verdict>;
  }
  return matrix;
}

async function decide(guard: ServerGuard, path: string, credential: Credential): Promise<Verdict> {
  const metadata = new Metadata();
  const token = typeof credential === 'object' ? credential.token : credential;
  if (token !== undefined) authorize(metadata, token);
  const admission = await guard.admit(path, metadata, callerOf(credential));
  return admission.kind === 'refused' ? admission.error.code : 'ADMITTED';
}

/** A caller on this machine. A persona has the certificate that its token is bound to. */
function callerOf(credential: Credential): Caller {
  const certificateThumbprint = typeof credential === 'object' ? credential.certificateThumbprint : undefined;
  return {
    isPrivate: true,
    certificateThumbprint,
    getPeer: () => '127.0.0.1:1',
    retireConnection: () => {},
  };
}

/** Writes a matrix as a table in plain text, one method a line, for snapshots and for people. */
export function formatMatrix(matrix: Matrix): string {
  const paths = Object.keys(matrix);
  const names = Object.keys(matrix[paths[0] ?? ''] ?? {});
  const rows = [
    ['', ...names],
    ...paths.map((path) => [path, ...names.map((name) => matrix[path]?.[name] ?? '')]),
  ];
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '));
  return `${lines.map((line) => line.trimEnd()).join('\n')}\n`;
}
