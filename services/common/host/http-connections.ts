/** The open connections of an HTTP port: beyond the limit, one of the network that has the most makes room. */

import type { Socket } from 'node:net';
import { networkOf } from '@portcullis/guard/networks';

/** The open connections, by network and age. */
export class HttpConnections {
  readonly #max: number;
  readonly #byNetwork = new Map<string, Set<Socket>>();
  #count = 0;
  evicted = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /**
   * Adds a connection.
   *
   * @param address - the address of its peer
   * @returns whether another one was closed to make room
   */
  add(socket: Socket, address: string): boolean {
    const network = networkOf(address);
    const peers = this.#byNetwork.get(network) ?? new Set();
    this.#byNetwork.set(network, peers.add(socket));
    this.#count += 1;
    socket.once('close', () => this.#remove(network, socket));
    if (this.#count <= this.#max) return false;
    const [busiest, theirs] = this.#largest();
    // A Set begins with what was added first.
    const [oldest] = theirs;
    if (oldest === undefined) return false;
    this.evicted += 1;
    this.#remove(busiest, oldest);
    oldest.destroy();
    return true;
  }

  closeAll(): void {
    for (const peers of this.#byNetwork.values()) for (const socket of peers) socket.destroy();
  }

  #largest(): readonly [network: string, connections: ReadonlySet<Socket>] {
    let largest: readonly [string, ReadonlySet<Socket>] = ['', new Set()];
    for (const entry of this.#byNetwork) if (entry[1].size > largest[1].size) largest = entry;
    return largest;
  }

  #remove(network: string, socket: Socket): void {
    const peers = this.#byNetwork.get(network);
    if (peers?.delete(socket) !== true) return;
    this.#count -= 1;
    if (peers.size === 0) this.#byNetwork.delete(network);
  }
}
