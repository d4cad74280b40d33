// The metrics as text. The numbers live in the registry and its neighbours and are read when asked
// for; nothing is counted twice.
//
// Series are capped. What comes first keeps its own series for good, so that no counter ever goes
// back; past the cap, what is new is added to one series of its metric whose labels all read `other`,
// so that sums stay right. Reading and writing go in slices: a scrape of 50,000 series holds nobody up.

import { Histogram, Registry as PromRegistry, collectDefaultMetrics } from 'prom-client';
import { inSlices, LOOKED_AT, type Pieces } from '../slices.js';
import { CATALOGUE, PREFIX, type Metric, type MetricName } from './catalogue.js';
import { head, line, preamble } from './text.js';

/** Adds `value` to the series with these label values, in the order of the catalogue. */
export type Emit = (name: MetricName, labels: readonly string[], value: number) => void;

/** Share of the cap that per-edge series may take, so that per-service ones always find room. */
const EDGE_SHARE = 0.8;

const OTHER = 'other';

/** Upper ends of the buckets of durations, s. */
const BUCKETS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
] as const;

interface Series {
  /** Its line up to the value. */
  readonly head: string;
  value: number;
  /** The scrape that it was told in last. */
  scrape: number;
}

/** A metric whose numbers are told anew for each scrape. */
interface Told {
  readonly name: string;
  readonly metric: Metric;
  /** By label values. */
  readonly series: Map<string, Series>;
  readonly other: Series;
}

export class Exporter {
  private readonly registry = new PromRegistry();
  private readonly told = new Map<string, Told>();
  private readonly histograms = new Map<string, Histogram>();
  private readonly folded = new Set<string>();
  private admitted = 0;
  private folds = 0;
  private scrape = 0;
  private rendering: Promise<{ text: string; contentType: string }> | undefined;

  /**
   * @param seriesMax series of our own, at most (one `other` a metric comes on top)
   * @param collect   emits all that there is to tell, in pieces or at once
   */
  constructor(
    private readonly seriesMax: number,
    private readonly collect: (emit: Emit) => Pieces<void> | void,
  ) {
    collectDefaultMetrics({ register: this.registry });
    for (const [name, metric] of Object.entries(CATALOGUE as Record<string, Metric>)) {
      const full = PREFIX + name;
      if (metric.type === 'histogram') {
        const { help, labels } = metric;
        const options = {
          name: full,
          help,
          labelNames: [...labels],
          registers: [this.registry],
          buckets: [...BUCKETS],
        };
        this.histograms.set(name, new Histogram(options));
        continue;
      }
      const others = metric.labels.map(() => OTHER);
      const other = { head: head(full, metric.labels, others), value: 0, scrape: 0 };
      this.told.set(name, { name: full, metric, series: new Map(), other });
    }
  }

  /** Adds to a histogram, whose numbers live here. */
  observe(name: MetricName, value: number): void {
    this.histograms.get(name)?.observe(value);
  }

  /** Who asks while another scrape is under way gets the text of that one. */
  render(): Promise<{ text: string; contentType: string }> {
    return (this.rendering ??= this.renderNow().finally(() => (this.rendering = undefined)));
  }

  private async renderNow(): Promise<{ text: string; contentType: string }> {
    this.scrape += 1;
    const work = this.collect((name, labels, value) => this.emit(name, labels, value));
    if (work !== undefined) await inSlices(work);
    this.emit('series_overflow_total', [], this.folds);
    const own = await inSlices(this.write());
    return { text: `${own}${await this.registry.metrics()}`, contentType: this.registry.contentType };
  }

  private *write(): Pieces<string> {
    const texts: string[] = [];
    let written = 0;
    for (const { name, metric, series, other } of this.told.values()) {
      texts.push(preamble(name, metric.type, metric.help));
      // A metric without labels is one number, and there even while nobody has told it.
      if (metric.labels.length === 0 && other.scrape !== this.scrape) texts.push(line(other.head, 0));
      for (const one of [other, ...series.values()]) {
        if (++written % LOOKED_AT === 0) yield;
        if (one.scrape === this.scrape) texts.push(line(one.head, one.value));
      }
      texts.push('\n');
    }
    return texts.join('');
  }

  private emit(name: MetricName, values: readonly string[], value: number): void {
    const series = this.seriesOf(this.told.get(name)!, values);
    series.value = series.scrape === this.scrape ? series.value + value : value;
    series.scrape = this.scrape;
  }

  private seriesOf({ name, metric, series, other }: Told, values: readonly string[]): Series {
    const { labels, perEdge } = metric;
    if (labels.length === 0) return other;
    const key = values.join('\0');
    const known = series.get(key);
    if (known !== undefined) return known;
    if (this.admitted >= (perEdge === true ? this.seriesMax * EDGE_SHARE : this.seriesMax)) {
      this.noteFolded(`${name}\0${key}`);
      return other;
    }
    this.admitted += 1;
    const made = { head: head(name, labels, values), value: 0, scrape: 0 };
    series.set(key, made);
    return made;
  }

  /** Counts distinct series, as far as they can be remembered. */
  private noteFolded(key: string): void {
    if (this.folded.has(key) || this.folded.size >= this.seriesMax) return;
    this.folded.add(key);
    this.folds += 1;
  }
}
