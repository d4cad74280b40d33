// Slices in, Markdown out.
import { estimate, median, quantile, type Estimate } from '../filter/statistics.js';

export type Lane = 'redis' | 'redis, again' | 'signal';

/** Every lane's measurements of the same moments. */
export interface Slice {
  readonly round: number;
  readonly loaded: boolean;
  /** ms, ascending. */
  readonly took: Readonly<Record<Lane, readonly number[]>>;
  /** Of the load, while this was measured. */
  readonly rowsPerSecond: number;
  /** CPU of the collector. */
  readonly cores: number;
}

/** A signal may take this many times a PUBLISH; and under load this many times what it takes without, at p99. */
const P50_RATIO_MAX = 5;
const LOADED_P99_RATIO_MAX = 3;

type Random = () => number;

/**
 * @param slices  per round one without and one under load
 * @param signals from failure to the application's signal, ms, in any order
 */
export function table(slices: readonly Slice[], signals: readonly number[], random: Random): string {
  const lanes: Lane[] = ['redis', 'redis, again', 'signal'];
  const rows = [false, true].flatMap(loaded => lanes.map(lane => laneRow(of(slices, loaded), lane, loaded)));
  const sorted = [...signals].sort((a, b) => a - b);
  return [
    ['| from, to | | p50, µs | p90, µs | p99, µs | collector, cores |', '|---|---|---|---|---|---|', ...rows].join(
      '\n',
    ),
    ['| comparison, median of rounds (95 %) | | goal |', '|---|---|---|', ...comparisons(slices, random)].join('\n'),
    `From the failed row to the signal of Rollback.Watch: p50 ${quantile(sorted, 0.5).toFixed(0)} ms, ` +
      `p99 ${quantile(sorted, 0.99).toFixed(0)} ms, ${sorted.length} signals.`,
  ].join('\n\n');
}

const of = (slices: readonly Slice[], loaded: boolean): Slice[] => slices.filter(slice => slice.loaded === loaded);

function laneRow(slices: readonly Slice[], lane: Lane, loaded: boolean): string {
  const at = (q: number): string => (median(slices.map(({ took }) => quantile(took[lane], q))) * 1000).toFixed(0);
  const load = `${Math.round(median(slices.map(slice => slice.rowsPerSecond)) / 100) * 100} rows/s`;
  const name = lane === 'signal' ? 'failed row to directive at another sidecar' : `PUBLISH to message, ${lane}`;
  const cores = lane === 'signal' ? median(slices.map(slice => slice.cores)).toFixed(2) : '';
  return `| ${name} | ${loaded ? load : 'idle'} | ${at(0.5)} | ${at(0.9)} | ${at(0.99)} | ${cores} |`;
}

function comparisons(slices: readonly Slice[], random: Random): string[] {
  const [idle, loaded] = [of(slices, false), of(slices, true)];
  const at = ({ took }: Slice, lane: Lane, q: number): number => quantile(took[lane], q);
  const redis = (slice: Slice, q: number): number => (at(slice, 'redis', q) + at(slice, 'redis, again', q)) / 2;
  const ratio = (some: readonly Slice[], q: number): Estimate =>
    estimate(
      some.map(slice => at(slice, 'signal', q) / redis(slice, q)),
      random,
    );
  const again = (some: readonly Slice[], q: number): Estimate =>
    estimate(
      some.map(slice => at(slice, 'redis, again', q) / at(slice, 'redis', q)),
      random,
    );
  const underLoad = (of: (slice: Slice) => number): Estimate =>
    estimate(
      loaded.map(slice => of(slice) / of(idle.find(({ round }) => round === slice.round)!)),
      random,
    );
  const p99Noise = Math.max(apart(again(idle, 0.99)), apart(again(loaded, 0.99)));
  return [
    line('p50, signal / Redis, idle', ratio(idle, 0.5), P50_RATIO_MAX, apart(again(idle, 0.5))),
    line('p50, signal / Redis, under load', ratio(loaded, 0.5)),
    line('p99, signal / Redis, idle', ratio(idle, 0.99)),
    line('p99, signal / Redis, under load', ratio(loaded, 0.99)),
    line(
      'p99, signal, under load / idle',
      underLoad(slice => at(slice, 'signal', 0.99)),
      LOADED_P99_RATIO_MAX,
      p99Noise,
    ),
    line(
      'p99, Redis, under load / idle',
      underLoad(slice => redis(slice, 0.99)),
    ),
    line('A/A: p50 of Redis, again / Redis, idle', again(idle, 0.5)),
    line('A/A: p99 of Redis, again / Redis, idle', again(idle, 0.99)),
    line('A/A: p99 of Redis, again / Redis, under load', again(loaded, 0.99)),
  ];
}

/** How many times two equal lanes differ, 1 or more. */
const apart = ({ value }: Estimate): number => Math.max(value, 1 / value);

/** @param noise as `apart`: a goal is judged only if it is met, or missed, by more than that */
function line(text: string, { value, low, high }: Estimate, goal?: number, noise = 1): string {
  return `| ${text} | ${value.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)}) | ${goal === undefined ? '' : `<= ${goal}: ${verdict(value, goal, noise)}`} |`;
}

function verdict(value: number, goal: number, noise: number): string {
  if (value * noise <= goal) return 'met';
  return value / noise > goal ? 'missed' : `not judged, A/A is off by ${((noise - 1) * 100).toFixed(0)} %`;
}
