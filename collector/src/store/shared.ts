// What a store can do that several collectors use together. A store of one process has none of it.

/** Messages between replicas: for what only matters now. May lose any, and keeps their order by sender. */
export interface Bus {
  /** Best effort, never throws: at most `BUS_BYTES_MAX`, and nothing while the store is away. */
  publish(bytes: Buffer): void;
  /** What others published, never what this replica did. `from` is their `replicaId`. */
  subscribe(handler: (from: string, bytes: Buffer) => void): void;
}

/** Length of one message on the bus, at most; a longer one is dropped and counted. */
export const BUS_BYTES_MAX = 4 * 1024 * 1024;

export interface Shared {
  /** 16 hex digits, drawn anew by each process. */
  readonly replicaId: string;
  readonly bus: Bus;
  /**
   * For how long (ms) some part of the log could not be read; 0 = everything that others wrote is here,
   * but for what is on its way.
   */
  staleMs(): number;
  /**
   * Takes the named lease, or renews it. True: no other replica has it for `ttlMs` from the time of this
   * call. False: another has it, or the store is away. To keep it, ask again well before it runs out.
   */
  lease(name: string, ttlMs: number): Promise<boolean>;
  /** Lets go of a lease, if this replica has it. */
  release(name: string): Promise<void>;
}
