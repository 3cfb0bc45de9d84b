/** Which settings pass between client and server, and how they change on the way (RFC 9113 §6.5.2). */

import { ConnectionFault, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR } from '../http2/errors.js';
import {
  FRAME_BYTES_DEFAULT,
  FRAME_BYTES_LIMIT,
  readUint32,
  SETTING_ENABLE_PUSH,
  SETTING_HEADER_TABLE_SIZE,
  SETTING_INITIAL_WINDOW_SIZE,
  SETTING_MAX_CONCURRENT_STREAMS,
  SETTING_MAX_FRAME_SIZE,
  SETTING_MAX_HEADER_LIST_SIZE,
  SETTING_NO_RFC7540_PRIORITIES,
  WINDOW_LIMIT,
} from '../http2/frames.js';
import type { RelayLimits } from './limits.js';

export type Setting = readonly [id: number, value: number];

const SETTING_BYTES = 6;

/**
 * Reads the payload of a SETTINGS frame, `bytes[start, end)`.
 *
 * @throws ConnectionFault for a value that RFC 9113 excludes
 */
export function readSettings(bytes: Buffer, start: number, end: number): Setting[] {
  if ((end - start) % SETTING_BYTES !== 0)
    throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of SETTINGS');
  const settings: Setting[] = [];
  for (let at = start; at < end; at += SETTING_BYTES) {
    const id = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
    const value = readUint32(bytes, at + 2);
    checkSetting(id, value);
    settings.push([id, value]);
  }
  return settings;
}

function checkSetting(id: number, value: number): void {
  if (id === SETTING_ENABLE_PUSH && value > 1) {
    throw new ConnectionFault(PROTOCOL_ERROR, 'invalid SETTINGS_ENABLE_PUSH');
  }
  if (id === SETTING_INITIAL_WINDOW_SIZE && value > WINDOW_LIMIT) {
    throw new ConnectionFault(FLOW_CONTROL_ERROR, 'invalid SETTINGS_INITIAL_WINDOW_SIZE');
  }
  if (id === SETTING_MAX_FRAME_SIZE && (value < FRAME_BYTES_DEFAULT || value > FRAME_BYTES_LIMIT)) {
    throw new ConnectionFault(PROTOCOL_ERROR, 'invalid SETTINGS_MAX_FRAME_SIZE');
  }
}

/**
 * The settings of a client for the server. The size of the header table and push are the gate's own: they are in the first
 * SETTINGS frame ({@link OWN_SETTINGS_FOR_SERVER}). Unknown settings may change what frames mean, so they do not pass.
 */
export function settingsForServer(settings: readonly Setting[], limits: RelayLimits): Setting[] {
  const passed: Setting[] = [];
  for (const [id, value] of settings) {
    if (id === SETTING_MAX_FRAME_SIZE) passed.push([id, Math.min(value, limits.frameBytes)]);
    else if (
      id === SETTING_INITIAL_WINDOW_SIZE ||
      id === SETTING_MAX_HEADER_LIST_SIZE ||
      id === SETTING_NO_RFC7540_PRIORITIES
    ) {
      passed.push([id, value]);
    }
  }
  return passed;
}

/** No dynamic table, so that header blocks of responses can be dropped and added; no push. */
export const OWN_SETTINGS_FOR_SERVER: readonly Setting[] = [
  [SETTING_HEADER_TABLE_SIZE, 0],
  [SETTING_ENABLE_PUSH, 0],
];

/** The settings of a server for the client: its limits, or the gate's if those are lower. */
export function settingsForClient(settings: readonly Setting[], limits: RelayLimits): Setting[] {
  const passed: Setting[] = [];
  for (const [id, value] of settings) {
    if (id === SETTING_MAX_CONCURRENT_STREAMS) passed.push([id, Math.min(value, limits.streams)]);
    else if (id === SETTING_MAX_FRAME_SIZE) passed.push([id, Math.min(value, limits.frameBytes)]);
    else if (id === SETTING_MAX_HEADER_LIST_SIZE) passed.push([id, Math.min(value, limits.headerListBytes)]);
    else if (id === SETTING_INITIAL_WINDOW_SIZE || id === SETTING_NO_RFC7540_PRIORITIES)
      passed.push([id, value]);
  }
  return passed;
}

/** What a client is told at once, before the server's settings are known. */
export function ownSettingsForClient(limits: RelayLimits): Setting[] {
  return [
    [SETTING_HEADER_TABLE_SIZE, limits.headerTableBytes],
    [SETTING_MAX_CONCURRENT_STREAMS, limits.streams],
    [SETTING_MAX_HEADER_LIST_SIZE, limits.headerListBytes],
  ];
}

/** The last value of a setting, or undefined. */
export function settingOf(settings: readonly Setting[], wanted: number): number | undefined {
  return settings.findLast(([id]) => id === wanted)?.[1];
}
