// What replicas tell each other, and the word that a log has grown: sharded Pub/Sub. It may lose anything.

import { COMMAND_MS, connectSubscriber, ended, persistently, type RedisAccess } from './connect.js';
import type { StoreLog } from '../store.js';
import { BUS_BYTES_MAX, type Bus } from '../shared.js';
import { SHARDS, type Keys } from './keys.js';
import type { Client } from './scripts.js';

/** Hex digits of a replica's id, in front of each message. */
const ID_BYTES = 16;

/** How often a message to oneself tells whether the subscription is alive, ms. */
const PROBE_MS = 250;

/** After this long (ms) without hearing oneself, the subscription is made anew. */
const RENEW_MS = 3000;

/** At start: how long the subscription may take, ms. */
const OPEN_MS = 10_000;

export class RedisBus implements Bus {
  private readonly subscriber: Client;
  private readonly handlers: ((from: string, bytes: Buffer) => void)[] = [];
  private timer: NodeJS.Timeout | undefined;
  private heardMs = performance.now();
  private renewedMs = performance.now();
  private closed = false;
  dropped = 0;

  /** @param grown called with the shard whose log another replica has appended to */
  constructor(
    private readonly client: Client,
    private readonly access: RedisAccess,
    private readonly keys: Keys,
    private readonly replicaId: string,
    private readonly log: StoreLog,
    private readonly grown: (shard: number) => void,
  ) {
    this.subscriber = connectSubscriber(access);
    // A connection that fails is tried again by itself; that nothing is heard meanwhile is told by `staleMs`.
    this.subscriber.on('error', () => undefined).on('node error', () => undefined);
    const shards = new Map(Array.from({ length: SHARDS }, (_, shard) => [keys.log(shard), shard]));
    this.subscriber.on('smessageBuffer', (channel: Buffer, message: Buffer) => {
      const shard = shards.get(channel.toString('latin1'));
      if (shard === undefined) this.hear(message);
      else if (message.toString('latin1') !== replicaId) this.grown(shard);
    });
  }

  /** Settles when everything is subscribed to. The connection of its own may come later than that for commands. */
  async open(): Promise<void> {
    await persistently(() => this.subscribeAll(), performance.now() + OPEN_MS);
    this.heardMs = performance.now();
    this.timer = setInterval(() => this.probe(), PROBE_MS);
    this.timer.unref();
  }

  publish(bytes: Buffer): void {
    if (this.closed || bytes.length > BUS_BYTES_MAX) {
      this.dropped += 1;
      return;
    }
    const message = Buffer.concat([Buffer.from(this.replicaId, 'latin1'), bytes]);
    this.client.spublish(this.keys.bus, message).catch(() => (this.dropped += 1));
  }

  subscribe(handler: (from: string, bytes: Buffer) => void): void {
    this.handlers.push(handler);
  }

  /** How long nothing was heard although we speak, ms. */
  silentMs(): number {
    return performance.now() - this.heardMs;
  }

  close(): void {
    this.closed = true;
    clearInterval(this.timer);
    this.subscriber.disconnect();
  }

  private hear(message: Buffer): void {
    const from = message.toString('latin1', 0, ID_BYTES);
    if (from === this.replicaId) this.heardMs = performance.now();
    // Nothing but the id: a probe.
    else if (message.length > ID_BYTES) this.handle(from, message.subarray(ID_BYTES));
  }

  /** Whoever can publish could send anything: it must not end the process. */
  private handle(from: string, bytes: Buffer): void {
    for (const handler of this.handlers) {
      try {
        handler(from, bytes);
      } catch (error) {
        this.dropped += 1;
        this.log.error({ from, bytes: bytes.length, err: error }, 'a message of another replica cannot be used');
      }
    }
  }

  private probe(): void {
    this.publish(Buffer.alloc(0));
    if (this.silentMs() < RENEW_MS || performance.now() - this.renewedMs < RENEW_MS) return;
    this.renewedMs = performance.now();
    void this.renew();
  }

  /** A subscription that hears nothing, or went to a node that no longer has the slot. */
  private async renew(): Promise<void> {
    if (!this.access.address.cluster) {
      // It subscribes again by itself.
      this.subscriber.disconnect(true);
      return;
    }
    await this.subscribeAll().catch(() => undefined);
  }

  private async subscribeAll(): Promise<void> {
    const channels = [this.keys.bus, ...Array.from({ length: SHARDS }, (_, shard) => this.keys.log(shard))];
    for (const channel of channels) await ended(this.subscriber.ssubscribe(channel), 5 * COMMAND_MS);
  }
}
