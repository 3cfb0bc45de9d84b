/** Users and instances by the names that people use for them. */

import { UserServiceService } from '../../../proto/gen/auth/v1/user_service.js';
import type { Duration } from '../../../proto/gen/google/protobuf/duration.js';
import { CallError } from './calls.js';
import { type Html, html } from './html.js';
import type { Operator } from './operators.js';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Whether a text may be the id of a user or a session. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/** The names of users by id, each asked for once. An id that is no user's stays as it is. */
export function userNames(operator: Operator): (id: string) => Promise<Html> {
  const known = new Map<string, Promise<Html>>();
  return async (id) => {
    if (!isUuid(id)) return html`${id}`;
    const name =
      known.get(id) ??
      operator.call(UserServiceService.getUser, { userId: id, username: '' }).then(
        ({ user }) => html`<a href="/users/${id}">${user?.username ?? id}</a>`,
        (error: unknown) => {
          if (error instanceof CallError) return html`<code>${id}</code>`;
          throw error;
        },
      );
    known.set(id, name);
    return await name;
  };
}

/** An instance: its service, its machine, and enough of its id to tell two of them apart. */
export function instanceName(instance: {
  readonly service: string;
  readonly instance: Uint8Array;
  readonly description?: { readonly host: string } | undefined;
}): string {
  const host = instance.description?.host ?? '';
  const id = Buffer.from(instance.instance).toString('hex').slice(0, 6);
  return `${instance.service}${host === '' ? '' : `@${host}`}/${id}`;
}

/** Undefined when it is not known. */
export function millisecondsOf(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** A length of time for people, such as `340 ms`, `2.5 s` or `3 min`. */
export function durationText(ms: number | undefined): string {
  if (ms === undefined) return 'not known';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${Number((ms / 1000).toFixed(1))} s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}
