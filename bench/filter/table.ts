// Rounds in, Markdown out.
import { type Arm, type Direction, DIRECTIONS, EMPTY, LUA, NONE, NONE_AGAIN, OURS } from './arms.js';
import type { Measured, Round } from './rounds.js';
import { type Estimate, estimate, median } from './statistics.js';

type Figure = (round: Round) => number;

/** With the two equal proxies further apart than this, a run says nothing about the others. */
const CPU_NOISE_MAX = 0.03;
const P99_NOISE_MAX = 0.07;

/** Ours against the others, and the goal it is held against. */
interface Comparison {
  text: string;
  figure: Figure;
  unit: '' | ' µs';
  /** At most this; absent: for information. */
  goal?: number;
  /** The same measure between the two proxies without a filter, and how far from 1 it may be for a verdict. */
  control?: { figure: Figure; within: number };
}

/**
 * @param arms   in the order of the rows
 * @param rounds at least one, each with figures of every arm
 * @param random for the bootstrap
 */
export function tables(arms: Arm[], rounds: Round[], random: () => number): string {
  const parts = DIRECTIONS.map(direction => armTable(direction, arms, rounds, random));
  return [...parts, comparisonTable(rounds, random)].join('\n\n');
}

function armTable(direction: Direction, arms: Arm[], rounds: Round[], random: () => number): string {
  const rows = arms.map(arm => {
    const of = (key: keyof Measured): number => median(rounds.map(round => at(round, arm.name, direction)[key]));
    const added = estimate(rounds.map(addedBy(arm.name, direction)), random);
    const resident = median(rounds.map(round => (round.residentBytes.get(arm.name) ?? NaN) / 2 ** 20));
    const cells = [
      arm.title,
      of('processUs').toFixed(1),
      of('workerUs').toFixed(1),
      arm.name === NONE ? '' : interval(added, ''),
      (of('p50Ms') * 1000).toFixed(0),
      (of('p99Ms') * 1000).toFixed(0),
      resident.toFixed(0),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return [
    `**${direction}** (${direction === 'outbound' ? 'order, 3 stamps on the request' : 'order, 2 stamps on the response'})`,
    '',
    '| arm | CPU per request, µs | of it the worker | added, µs (95 %) | p50, µs | p99, µs | RSS, MiB |',
    '|---|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}

function comparisonTable(rounds: Round[], random: () => number): string {
  const rows = comparisons().map(comparison => {
    const found = estimate(rounds.map(comparison.figure), random);
    return `| ${comparison.text} | ${interval(found, comparison.unit)} | ${verdict(comparison, found.value, rounds)} |`;
  });
  return ['| comparison, median of rounds (95 %) | | goal |', '|---|---|---|', ...rows].join('\n');
}

function verdict({ goal, unit, control }: Comparison, value: number, rounds: Round[]): string {
  if (goal === undefined) return '';
  const noise = control ? Math.abs(median(rounds.map(control.figure)) - 1) : 0;
  if (control && noise > control.within)
    return `<= ${goal}${unit}: not judged, A/A is off by ${(noise * 100).toFixed(0)} %`;
  return `<= ${goal}${unit}: ${value <= goal ? 'met' : 'missed'}`;
}

function comparisons(): Comparison[] {
  const both = (figure: (direction: Direction) => Figure): Figure => {
    return round => DIRECTIONS.reduce((sum, direction) => sum + figure(direction)(round), 0);
  };
  const ours = (direction: Direction) => addedBy(OURS, direction);
  const lua = (direction: Direction) => addedBy(LUA, direction);
  const aboveEmpty =
    (direction: Direction): Figure =>
    round =>
      addedBy(OURS, direction)(round) - addedBy(EMPTY, direction)(round);
  const latency =
    (direction: Direction, key: 'p50Ms' | 'p99Ms'): Figure =>
    round =>
      at(round, OURS, direction)[key] / mean(round, [NONE, NONE_AGAIN], direction, key);
  const cpu = (direction: Direction) => ({ figure: again(direction, 'processUs'), within: CPU_NOISE_MAX });
  return [
    ...DIRECTIONS.flatMap((direction): Comparison[] => [
      {
        text: `added CPU, ours / Lua, ${direction}`,
        figure: ratio(ours(direction), lua(direction)),
        unit: '',
        goal: 0.6,
        control: cpu(direction),
      },
      {
        text: `ours above the empty Wasm filter, ${direction}`,
        figure: aboveEmpty(direction),
        unit: ' µs',
        goal: 9,
        control: cpu(direction),
      },
      { text: `p50, ours / no filter, ${direction}`, figure: latency(direction, 'p50Ms'), unit: '' },
      {
        text: `p99, ours / no filter, ${direction}`,
        figure: latency(direction, 'p99Ms'),
        unit: '',
        goal: 1.15,
        control: { figure: again(direction, 'p99Ms'), within: P99_NOISE_MAX },
      },
    ]),
    {
      text: 'added CPU, ours / Lua, both directions together',
      figure: ratio(both(ours), both(lua)),
      unit: '',
      goal: 0.6,
      control: cpu('outbound'),
    },
    ...DIRECTIONS.flatMap((direction): Comparison[] => [
      {
        text: `A/A: CPU of no filter, again / no filter, ${direction}`,
        figure: again(direction, 'processUs'),
        unit: '',
      },
      { text: `A/A: p99 of no filter, again / no filter, ${direction}`, figure: again(direction, 'p99Ms'), unit: '' },
    ]),
  ];
}

function ratio(a: Figure, b: Figure): Figure {
  return round => a(round) / b(round);
}

function again(direction: Direction, key: keyof Measured): Figure {
  return round => at(round, NONE_AGAIN, direction)[key] / at(round, NONE, direction)[key];
}

/** CPU above the same round's proxies without a filter, us per request. */
export function addedBy(arm: string, direction: Direction): Figure {
  return round => {
    const base = arm === NONE_AGAIN ? [NONE] : [NONE, NONE_AGAIN];
    return at(round, arm, direction).processUs - mean(round, base, direction, 'processUs');
  };
}

function mean(round: Round, arms: string[], direction: Direction, key: keyof Measured): number {
  return arms.reduce((sum, arm) => sum + at(round, arm, direction)[key], 0) / arms.length;
}

function at(round: Round, arm: string, direction: Direction): Measured {
  const found = round.figures.get(arm)?.[direction];
  if (!found) throw new Error(`a round lacks ${arm}, ${direction}`);
  return found;
}

function interval({ value, low, high }: Estimate, unit: string): string {
  return `${value.toFixed(2)}${unit} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}
