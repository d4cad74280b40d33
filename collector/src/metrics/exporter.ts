// The metrics as text. The numbers live in the registry and its neighbours and are read when asked
// for; nothing is counted twice.
//
// Series are capped. What comes first keeps its own series for good, so that no counter ever goes
// back; past the cap, what is new is added to one series of its metric whose labels all read `other`,
// so that sums stay right.

import { Counter, Gauge, Histogram, Registry as PromRegistry, collectDefaultMetrics } from 'prom-client';
import { CATALOGUE, PREFIX, type Metric, type MetricName } from './catalogue.js';

/** Adds `value` to the series with these label values, in the order of the catalogue. */
export type Emit = (name: MetricName, labels: readonly string[], value: number) => void;

/** Share of the cap that per-edge series may take, so that per-service ones always find room. */
const EDGE_SHARE = 0.8;

const OTHER = 'other';

/** Upper ends of the buckets of durations, s. */
const BUCKETS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
] as const;

export class Exporter {
  private readonly registry = new PromRegistry();
  private readonly metrics = new Map<string, Counter | Gauge>();
  private readonly histograms = new Map<string, Histogram>();
  private readonly admitted = new Set<string>();
  private readonly folded = new Set<string>();
  private folds = 0;

  /**
   * @param seriesMax series of our own, at most (one `other` a metric comes on top)
   * @param collect   emits all that there is to tell
   */
  constructor(
    private readonly seriesMax: number,
    private readonly collect: (emit: Emit) => void,
  ) {
    collectDefaultMetrics({ register: this.registry });
    for (const [name, metric] of Object.entries(CATALOGUE as Record<string, Metric>)) {
      const options = {
        name: PREFIX + name,
        help: metric.help,
        labelNames: [...metric.labels],
        registers: [this.registry],
      };
      if (metric.type === 'histogram') {
        this.histograms.set(name, new Histogram({ ...options, buckets: [...BUCKETS] }));
        continue;
      }
      this.metrics.set(name, metric.type === 'counter' ? new Counter(options) : new Gauge(options));
    }
  }

  /** Adds to a histogram, whose numbers live here. */
  observe(name: MetricName, value: number): void {
    this.histograms.get(name)?.observe(value);
  }

  async render(): Promise<{ text: string; contentType: string }> {
    for (const metric of this.metrics.values()) metric.reset();
    this.collect((name, labels, value) => this.emit(name, labels, value));
    this.emit('series_overflow_total', [], this.folds);
    return { text: await this.registry.metrics(), contentType: this.registry.contentType };
  }

  private emit(name: MetricName, values: readonly string[], value: number): void {
    const { labels } = CATALOGUE[name] as Metric;
    const own = labels.length === 0 || this.admit(name, values);
    const pairs = labels.map((label, i): [string, string] => [label, own ? values[i]! : OTHER]);
    this.metrics.get(name)!.inc(Object.fromEntries(pairs), value);
  }

  private admit(name: MetricName, values: readonly string[]): boolean {
    const key = `${name}\0${values.join('\0')}`;
    if (this.admitted.has(key)) return true;
    const max = (CATALOGUE[name] as Metric).perEdge === true ? this.seriesMax * EDGE_SHARE : this.seriesMax;
    if (this.admitted.size < max) {
      this.admitted.add(key);
      return true;
    }
    this.noteFolded(key);
    return false;
  }

  /** Counts distinct series, as far as they can be remembered. */
  private noteFolded(key: string): void {
    if (this.folded.has(key) || this.folded.size >= this.seriesMax) return;
    this.folded.add(key);
    this.folds += 1;
  }
}
