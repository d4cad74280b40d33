// The sidecars of the shop at one collector: teaches them, lets checkouts fail, and says when others knew.
import { makeGenericClientConstructor, credentials, type Client, type ServiceError } from '@grpc/grpc-js';
import { service } from '../../collector/src/rpc/protos.js';
import {
  Batches,
  began,
  call,
  entry,
  FAILED,
  healthy,
  helloOf,
  newKey,
  serviceOf,
  SERVICES,
  type Name,
} from './messages.js';
import { directivesOf, isAnswer, Sidecar } from './sidecar.js';

type Plain = Record<string, unknown>;

/** Enough for the kind to be enforceable and for the edge to `ship` to be known. */
const TAUGHT = 150;
/** Transactions are learned from once they have been quiet for 3 s; then some. */
const LEARN_MS = 5000;
const WATCHED: Name = 'stock';

interface RollbackClient extends Client {
  Watch(request: Plain): NodeJS.EventEmitter & { cancel(): void };
  Ack(request: Plain, done: (error: ServiceError | null) => void): void;
  GetLedger(request: Plain, done: (error: ServiceError | null, ledger: Plain) => void): void;
}

export class Shop {
  private readonly batches = Batches.of('gateway');
  private readonly watched = new Map<string, number>();
  private number = 0;
  /** From the failed row to the first signal of Rollback.Watch, ms. */
  readonly signals: number[] = [];

  private constructor(
    private readonly sidecars: Readonly<Record<Name, Sidecar>>,
    private readonly rollback: RollbackClient,
    private readonly watch: { cancel(): void },
  ) {}

  static start(address: string): Shop {
    const sidecars = Object.fromEntries(SERVICES.map(name => [name, new Sidecar(address, helloOf(name))]));
    const Constructor = makeGenericClientConstructor(service('Rollback'), 'Rollback');
    const rollback = new Constructor(address, credentials.createInsecure()) as unknown as RollbackClient;
    const watch = rollback.Watch({ service: serviceOf(WATCHED) });
    const shop = new Shop(sidecars as Record<Name, Sidecar>, rollback, watch);
    watch.on('data', (signal: Plain) => shop.onSignal(signal));
    watch.on('error', () => undefined);
    return shop;
  }

  /** Healthy checkouts, until they are learned from. */
  async teach(): Promise<void> {
    const rows = Array.from({ length: TAUGHT }, () => healthy(this.newKey())).flat();
    await this.sidecars.gateway.ask(this.batches.next(rows, Date.now()));
    await new Promise(resolve => setTimeout(resolve, LEARN_MS));
  }

  /**
   * One checkout whose charge fails. From when the gateway's sidecar has written that, to when the
   * directive is at the sidecar of `shipping`, which is to refuse what comes; ms.
   */
  async fail(): Promise<number> {
    const { gateway, shipping } = this.sidecars;
    const key = this.newKey();
    await gateway.ask(began(key, Date.now()));
    const rows = [call(key, 'reserve'), call(key, 'charge', FAILED)];
    const message = this.batches.next(rows, Date.now());
    const told = shipping.next('directive', reply => directivesOf(reply).some(one => isDoomOf(one, key)));
    const answered = gateway.next('answer', isAnswer);
    const sentMs = performance.now();
    gateway.send(message);
    const { atMs } = await told;
    await answered;
    this.watched.set(key, sentMs);
    // Ends it; and a healthy one beside it, so that the callee is not down for everyone.
    await gateway.ask(this.batches.next([entry(key, FAILED), ...healthy(this.newKey())], Date.now()));
    return atMs - sentMs;
  }

  /** Verdicts made, and those that were wrong. */
  ledger(): Promise<Plain> {
    return new Promise((resolve, reject) =>
      this.rollback.GetLedger({}, (error, ledger) => (error === null ? resolve(ledger) : reject(error))),
    );
  }

  close(): void {
    this.watch.cancel();
    this.rollback.close();
    for (const sidecar of Object.values(this.sidecars)) sidecar.close();
  }

  private newKey(): string {
    return newKey(++this.number);
  }

  private onSignal({ id, key }: Plain): void {
    const nowMs = performance.now();
    const sentMs = this.watched.get(String(key));
    if (sentMs !== undefined) this.signals.push(nowMs - sentMs);
    this.watched.delete(String(key));
    this.rollback.Ack({ signal: id, by: 'bench' }, error => {
      if (error !== null) throw error;
    });
  }
}

function isDoomOf({ kind, keys }: Plain, key: string): boolean {
  return kind === 'DIRECTIVE_KIND_DOOM' && (keys as string[])[1] === String(BigInt(`0x${key.slice(16)}`));
}
