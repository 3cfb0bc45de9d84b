/** A queue in which networks take turns, and within a network its connections. */

/** The waiting jobs of one network, by connection. */
interface NetworkQueue<Job> {
  waiting: number;
  readonly connections: Map<string, Job[]>;
}

/** Jobs of peers. No peer gets ahead by waiting with many jobs, nor by many connections. */
export class FairQueue<Job> {
  readonly #networks = new Map<string, NetworkQueue<Job>>();
  #waiting = 0;

  get waiting(): number {
    return this.#waiting;
  }

  waitingOf(network: string): number {
    return this.#networks.get(network)?.waiting ?? 0;
  }

  push(network: string, connection: string, job: Job): void {
    let queue = this.#networks.get(network);
    if (queue === undefined) {
      queue = { waiting: 0, connections: new Map() };
      this.#networks.set(network, queue);
    }
    const jobs = queue.connections.get(connection);
    if (jobs === undefined) queue.connections.set(connection, [job]);
    else jobs.push(job);
    queue.waiting += 1;
    this.#waiting += 1;
  }

  /** The next job in turn. */
  shift(): Job | undefined {
    for (const [network, queue] of this.#networks) {
      for (const [connection, jobs] of queue.connections) {
        const job = jobs.shift();
        queue.connections.delete(connection);
        if (jobs.length > 0) queue.connections.set(connection, jobs);
        this.#networks.delete(network);
        this.#took(network, queue);
        return job;
      }
    }
    return undefined;
  }

  /** Removes the newest job of the longest connection of a network; default: of the longest network. */
  dropNewest(network: string = this.#longestNetwork()): Job | undefined {
    const queue = this.#networks.get(network);
    if (queue === undefined) return undefined;
    let longest: [string, Job[]] | undefined;
    for (const entry of queue.connections) {
      if (longest === undefined || entry[1].length >= longest[1].length) longest = entry;
    }
    if (longest === undefined) return undefined;
    const [connection, jobs] = longest;
    const job = jobs.pop();
    if (jobs.length === 0) queue.connections.delete(connection);
    this.#took(network, queue);
    return job;
  }

  #took(network: string, queue: NetworkQueue<Job>): void {
    queue.waiting -= 1;
    this.#waiting -= 1;
    if (queue.waiting === 0) this.#networks.delete(network);
    else this.#networks.set(network, queue);
  }

  #longestNetwork(): string {
    let longest = '';
    let waiting = 0;
    for (const [network, queue] of this.#networks) {
      if (queue.waiting < waiting) continue;
      longest = network;
      waiting = queue.waiting;
    }
    return longest;
  }
}
