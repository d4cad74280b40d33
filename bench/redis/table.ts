// From slices to the table of the README: medians over rounds, ratios within a round.
import { estimate, median } from '../filter/statistics.js';

export interface Slice {
  readonly arm: string;
  readonly round: number;
  readonly events: number;
  readonly tookMs: number;
  /** User and system time of the client, NaN = not measured, and of Redis, us. */
  readonly clientUs: number;
  readonly serverUs: number;
}

const OURS = 'store';

export function table(slices: readonly Slice[], random: () => number): string {
  const arms = [...new Set(slices.map(({ arm }) => arm))].sort();
  const lines = [
    '| way | events/s | client, µs/event | events/s per client core | Redis, µs/event | client CPU to ours |',
    '|---|---|---|---|---|---|',
  ];
  for (const arm of arms) {
    const own = slices.filter(slice => slice.arm === arm);
    const of = (value: (slice: Slice) => number): number => median(own.map(value));
    const clientUs = of(({ clientUs, events }) => clientUs / events);
    const ratios = own.map(slice => {
      const ours = slices.find(other => other.arm === OURS && other.round === slice.round)!;
      return slice.clientUs / slice.events / (ours.clientUs / ours.events);
    });
    lines.push(
      `| ${arm} | ${rounded(of(({ events, tookMs }) => (events / tookMs) * 1000))} | ${shown(clientUs)} | ` +
        `${Number.isNaN(clientUs) ? '' : rounded(1e6 / clientUs)} | ${shown(of(({ serverUs, events }) => serverUs / events))} | ` +
        `${Number.isNaN(clientUs) ? '' : spread(ratios, random)} |`,
    );
  }
  return lines.join('\n');
}

const shown = (us: number): string => (Number.isNaN(us) ? '' : us.toFixed(3));
const rounded = (perSecond: number): string => (Math.round(perSecond / 1000) * 1000).toLocaleString('en');

function spread(ratios: readonly number[], random: () => number): string {
  const { value, low, high } = estimate(ratios, random);
  return `${value.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}
