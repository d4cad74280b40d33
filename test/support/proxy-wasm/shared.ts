/**
 * What the VMs of one proxy process share: data with compare-and-swap numbers, queues, metrics.
 */
import { METRIC_ID_STEP, MetricType, Status } from './abi.js';

export interface SharedValue {
  readonly value: Buffer;
  readonly cas: number;
}

/** Key-value data, one namespace per vm_id. There is no create-if-absent: cas 0 always writes. */
export class SharedData {
  private readonly spaces = new Map<string, Map<string, SharedValue>>();
  private nextCas = 1;

  get(vmId: string, key: string): SharedValue | undefined {
    return this.spaces.get(vmId)?.get(key);
  }

  set(vmId: string, key: string, value: Buffer, cas: number): Status {
    let space = this.spaces.get(vmId);
    if (space === undefined) this.spaces.set(vmId, (space = new Map<string, SharedValue>()));
    const present = space.get(key);
    if (present !== undefined && cas !== 0 && cas !== present.cas) return Status.CasMismatch;
    space.set(key, { value, cas: this.nextCas++ });
    return Status.Ok;
  }

  keys(vmId: string): string[] {
    return [...(this.spaces.get(vmId)?.keys() ?? [])];
  }

  /** The last VM of this id is gone. */
  drop(vmId: string): void {
    this.spaces.delete(vmId);
  }
}

interface Queue {
  readonly items: Buffer[];
  notify: (token: number) => void;
}

/** Queues by (vm_id, name). Registering again moves the callback to the last registrant. Unbounded. */
export class SharedQueues {
  private readonly tokens = new Map<string, number>();
  private readonly queues = new Map<number, Queue>();
  private nextToken = 1;

  register(vmId: string, name: string, notify: (token: number) => void): number {
    const key = `${vmId}\0${name}`;
    const token = this.tokens.get(key) ?? this.nextToken++;
    this.tokens.set(key, token);
    const queue = this.queues.get(token);
    if (queue === undefined) this.queues.set(token, { items: [], notify });
    else queue.notify = notify;
    return token;
  }

  /** 0 = no such queue. */
  resolve(vmId: string, name: string): number {
    return this.tokens.get(`${vmId}\0${name}`) ?? 0;
  }

  enqueue(token: number, item: Buffer): Status {
    const queue = this.queues.get(token);
    if (queue === undefined) return Status.NotFound;
    queue.items.push(item);
    queue.notify(token);
    return Status.Ok;
  }

  dequeue(token: number): Buffer | Status {
    const queue = this.queues.get(token);
    if (queue === undefined) return Status.NotFound;
    return queue.items.shift() ?? Status.Empty;
  }

  /** Items waiting in the queue called `name`, whatever its vm_id. */
  depth(name: string): number {
    let items = 0;
    for (const [key, token] of this.tokens) {
      if (key.endsWith(`\0${name}`)) items += this.queues.get(token)?.items.length ?? 0;
    }
    return items;
  }
}

/** One native statistic; every VM that defines the same name and kind gets the same one. */
export interface Metric {
  readonly type: number;
  readonly name: string;
  value: bigint;
  /** Histograms only. */
  readonly samples: bigint[];
}

/** Past this, a histogram keeps no further samples: tests look at the first ones only. */
const SAMPLES_MAX = 10_000;

export class Metrics {
  private readonly byName = new Map<string, Metric>();

  define(type: number, name: string): Metric {
    const key = `${String(type)}\0${name}`;
    let metric = this.byName.get(key);
    if (metric === undefined) this.byName.set(key, (metric = { type, name, value: 0n, samples: [] }));
    return metric;
  }

  /** The value of the counter or gauge of this name; `undefined` when nobody defined it. */
  value(name: string): number | undefined {
    for (const metric of this.byName.values()) {
      if (metric.name === name && metric.type !== MetricType.Histogram) return Number(metric.value);
    }
    return undefined;
  }

  names(): string[] {
    return [...this.byName.values()].map(metric => metric.name);
  }
}

/** One VM's handles to the process's metrics. Gauges and counters are unsigned and wrap, as native ones do. */
export class MetricHandles {
  private readonly byId = new Map<number, Metric>();
  private readonly nextId = [MetricType.Counter as number, MetricType.Gauge as number, MetricType.Histogram as number];

  constructor(private readonly metrics: Metrics) {}

  /** @returns the id, or `undefined` for an unknown kind. */
  define(type: number, name: string): number | undefined {
    const id = this.nextId[type];
    if (id === undefined) return undefined;
    this.nextId[type] = id + METRIC_ID_STEP;
    this.byId.set(id, this.metrics.define(type, name));
    return id;
  }

  increment(id: number, offset: bigint): Status {
    const metric = this.byId.get(id);
    if ((id & 3) > MetricType.Gauge) return Status.BadArgument;
    if (metric === undefined) return Status.NotFound;
    if (metric.type === MetricType.Counter && offset <= 0n) return Status.BadArgument;
    metric.value = BigInt.asUintN(64, metric.value + offset);
    return Status.Ok;
  }

  record(id: number, value: bigint): Status {
    const metric = this.byId.get(id);
    if (metric === undefined) return Status.NotFound;
    if (metric.type === MetricType.Counter) metric.value = BigInt.asUintN(64, metric.value + value);
    else if (metric.type === MetricType.Gauge) metric.value = BigInt.asUintN(64, value);
    else if (metric.samples.length < SAMPLES_MAX) metric.samples.push(value);
    return Status.Ok;
  }

  get(id: number): bigint | Status {
    const metric = this.byId.get(id);
    if ((id & 3) > MetricType.Gauge) return Status.BadArgument;
    return metric === undefined ? Status.NotFound : metric.value;
  }
}
