// The parent's side of the acknowledging collector.
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Address } from '../../demo/src/mesh/address.js';

export class AckCollector {
  private constructor(
    private readonly child: ChildProcess,
    readonly address: Address,
  ) {}

  static async start(): Promise<AckCollector> {
    const child = fork(fileURLToPath(new URL('./acknowledging-collector.js', import.meta.url)));
    const [{ port }] = (await once(child, 'message')) as [{ port: number }];
    return new AckCollector(child, { host: '127.0.0.1', port });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the collector did not start');
    return this.child.pid;
  }

  /** Rows that it has acknowledged since its start. */
  async rows(): Promise<number> {
    this.child.send({});
    const [{ rows }] = (await once(this.child, 'message')) as [{ rows: number }];
    return rows;
  }

  stop(): void {
    this.child.disconnect();
  }
}
