/** The frames of a client that are no requests: settings, windows, pings and hints. */

import { ConnectionFault, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR } from '../http2/errors.js';
import * as h2 from '../http2/frames.js';
import type { Calls } from './calls.js';
import { isOwnPing } from './own-ping.js';
import type { ConnectionPort } from './port.js';
import { OWN_SETTINGS_FOR_SERVER, readSettings, settingOf, settingsForServer } from './settings.js';
import type { StreamTable } from './stream.js';

export class ClientControl {
  readonly #port: ConnectionPort;
  readonly #calls: Calls;
  readonly #streams: StreamTable;
  #hasSettings = false;

  constructor(port: ConnectionPort, calls: Calls, streams: StreamTable) {
    this.#port = port;
    this.#calls = calls;
    this.#streams = streams;
  }

  frame(type: number, flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    const { budgets } = this.#port;
    const at = start + h2.FRAME_HEADER_BYTES;
    switch (type) {
      case h2.SETTINGS:
        this.#settings(flags, id, bytes, at, end);
        break;
      case h2.WINDOW_UPDATE:
        this.#windowUpdate(id, bytes, start, end);
        break;
      case h2.PING:
        this.#ping(flags, id, bytes, start, end);
        break;
      case h2.GOAWAY:
        this.#goaway(id, bytes, at, end);
        break;
      case h2.PRIORITY:
        this.#port.spend(budgets.hints, 'hints');
        this.#priority(id, bytes, at, end);
        break;
      case h2.PRIORITY_UPDATE:
        this.#port.spend(budgets.hints, 'hints');
        this.#priorityUpdate(id, bytes, at, end);
        break;
      case h2.PUSH_PROMISE:
        throw new ConnectionFault(PROTOCOL_ERROR, 'unexpected PUSH_PROMISE');
      default:
        // Unknown frames may mean anything to the server, so they end here (RFC 9113 §5.5 lets us ignore them).
        this.#port.spend(budgets.hints, 'hints');
    }
  }

  #settings(flags: number, id: number, bytes: Buffer, at: number, end: number): void {
    const port = this.#port;
    if (id !== 0) throw new ConnectionFault(PROTOCOL_ERROR, 'SETTINGS on a stream');
    if ((flags & h2.FLAG_ACK) !== 0) {
      if (end > at) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of SETTINGS');
      this.#settingsAck();
      return;
    }
    port.spend(port.budgets.settings, 'settings');
    const settings = readSettings(bytes, at, end);
    port.windows.announced(settingOf(settings, h2.SETTING_INITIAL_WINDOW_SIZE));
    const table = settingOf(settings, h2.SETTING_HEADER_TABLE_SIZE);
    if (table !== undefined && table < TABLE_BYTES_DEFAULT) port.owesTableUpdate = true;
    const { toServer } = port;
    if (toServer === undefined) {
      h2.writeSettingsAck(port.toClient);
      port.windows.acknowledged();
      return;
    }
    const passed = settingsForServer(settings, port.limits);
    h2.writeSettings(toServer, this.#hasSettings ? passed : [...OWN_SETTINGS_FOR_SERVER, ...passed]);
    this.#hasSettings = true;
  }

  #settingsAck(): void {
    const port = this.#port;
    if (port.ownSettingsUnacknowledged > 0) {
      port.ownSettingsUnacknowledged -= 1;
    } else if (port.serverSettingsUnacknowledged > 0) {
      port.serverSettingsUnacknowledged -= 1;
      // The server must not apply its settings to what was sent before the acknowledgement and still waits.
      if (this.#calls.undecidedBytes > 0) port.heldSettingsAcks += 1;
      else if (port.toServer !== undefined) h2.writeSettingsAck(port.toServer);
    } else {
      throw new ConnectionFault(PROTOCOL_ERROR, 'unexpected acknowledgement of SETTINGS');
    }
  }

  #windowUpdate(id: number, bytes: Buffer, start: number, end: number): void {
    const port = this.#port;
    const at = start + h2.FRAME_HEADER_BYTES;
    if (end - at !== 4) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of WINDOW_UPDATE');
    port.spend(port.budgets.windowUpdates, 'window_updates');
    const increment = h2.readUint31(bytes, at);
    if (id === 0) {
      this.#connectionWindow(increment, bytes, start, end);
      return;
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (id > this.#streams.lastId && id <= port.lastAcceptedId) {
        throw new ConnectionFault(PROTOCOL_ERROR, 'frame on an idle stream');
      }
      return;
    }
    stream.windowChange += increment;
    if (increment === 0) {
      this.#calls.resetBoth(stream, PROTOCOL_ERROR);
    } else if (stream.serverId > 0) {
      h2.writeUint32(bytes, start + 5, stream.serverId);
      port.toServer?.append(bytes, start, end);
    } else {
      stream.heldWindow += increment;
      if (stream.heldWindow > h2.WINDOW_LIMIT) this.#calls.resetBoth(stream, FLOW_CONTROL_ERROR);
    }
  }

  #connectionWindow(increment: number, bytes: Buffer, start: number, end: number): void {
    const port = this.#port;
    if (increment === 0) throw new ConnectionFault(PROTOCOL_ERROR, 'WINDOW_UPDATE of 0');
    const passed = port.windows.credited(increment);
    if (port.windows.connection > h2.WINDOW_LIMIT)
      throw new ConnectionFault(FLOW_CONTROL_ERROR, 'window too large');
    const { toServer } = port;
    if (passed === increment) toServer?.append(bytes, start, end);
    else if (toServer !== undefined) h2.writeWindowUpdate(toServer, 0, passed);
  }

  #ping(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    const port = this.#port;
    const at = start + h2.FRAME_HEADER_BYTES;
    if (end - at !== 8) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of PING');
    if (id !== 0) throw new ConnectionFault(PROTOCOL_ERROR, 'PING on a stream');
    if ((flags & h2.FLAG_ACK) !== 0) {
      if (isOwnPing(bytes, at)) {
        port.ownPingAnswered();
      } else if (port.serverPings > 0) {
        port.serverPings -= 1;
        port.toServer?.append(bytes, start, end);
      }
      return;
    }
    port.spend(port.budgets.pings, 'pings');
    if (port.toServer === undefined) {
      h2.writePing(port.toClient, h2.FLAG_ACK, bytes.subarray(at, end));
    } else {
      port.clientPings += 1;
      port.toServer.append(bytes, start, end);
    }
  }

  #goaway(id: number, bytes: Buffer, at: number, end: number): void {
    if (end - at < 8) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of GOAWAY');
    if (id !== 0) throw new ConnectionFault(PROTOCOL_ERROR, 'GOAWAY on a stream');
    this.#port.spend(this.#port.budgets.settings, 'settings');
    const { toServer } = this.#port;
    // The server has opened no streams, so the last one is 0.
    if (toServer !== undefined) h2.writeGoaway(toServer, 0, h2.readUint32(bytes, at + 4), '');
  }

  #priority(id: number, bytes: Buffer, at: number, end: number): void {
    if (end - at !== 5) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of PRIORITY');
    if (id === 0) throw new ConnectionFault(PROTOCOL_ERROR, 'PRIORITY without a stream');
    const dependsOn = h2.readUint31(bytes, at);
    if (dependsOn === id) throw new ConnectionFault(PROTOCOL_ERROR, 'stream depends on itself');
    const serverId = this.#streams.get(id)?.serverId ?? 0;
    const dependency = this.#streams.get(dependsOn)?.serverId ?? 0;
    const { toServer } = this.#port;
    if (toServer !== undefined && serverId > 0) h2.writePriority(toServer, serverId, bytes, at, dependency);
  }

  #priorityUpdate(id: number, bytes: Buffer, at: number, end: number): void {
    if (id !== 0) throw new ConnectionFault(PROTOCOL_ERROR, 'PRIORITY_UPDATE on a stream');
    if (end - at < 4) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of PRIORITY_UPDATE');
    const serverId = this.#streams.get(h2.readUint31(bytes, at))?.serverId ?? 0;
    const { toServer } = this.#port;
    if (toServer !== undefined && serverId > 0)
      h2.writePriorityUpdate(toServer, serverId, bytes, at + 4, end);
  }
}

/** The size of a header table unless settings say otherwise (RFC 9113 §6.5.2). */
const TABLE_BYTES_DEFAULT = 4096;
