// Names of what is kept in Redis. All keys of one command have one hash tag, so they are on one node.
//
//     mp:{3}:log           stream: the log of shard 3; also the channel that announces its appends
//     mp:{3}:seen          hash: replica -> number of its last blob in that log; `trimmed` -> cut off up to
//     mp:{keep}:lease:X    string with an expiry: the replica that has lease X
//     mp:{keep}:snapshot   string: JSON pointer to the newest snapshot
//     mp:{keep}:snapshot:N hash: chunk -> bytes
//     mp:{bus}             channel: what replicas tell each other
import { crc32 } from 'node:zlib';

/** Shards of the log. Shard 0 has all entries of rollback, the others the records of the proxies. */
export const SHARDS = 16;
export const CONTROL_SHARD = 0;

/** The shard of everything that a proxy's lives put. */
export const shardOf = (proxyId: string): number => 1 + (crc32(proxyId) % (SHARDS - 1));

export class Keys {
  constructor(private readonly prefix: string) {}

  log(shard: number): string {
    return `${this.prefix}:{${shard}}:log`;
  }

  seen(shard: number): string {
    return `${this.prefix}:{${shard}}:seen`;
  }

  lease(name: string): string {
    return `${this.prefix}:{keep}:lease:${name}`;
  }

  get pointer(): string {
    return `${this.prefix}:{keep}:snapshot`;
  }

  snapshot(number: number): string {
    return `${this.prefix}:{keep}:snapshot:${number}`;
  }

  get bus(): string {
    return `${this.prefix}:{bus}`;
  }
}
