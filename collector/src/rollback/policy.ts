// Decides whether a transaction is doomed, and says what that rests on. Pure: reads no clock and no store.
//
// Everything that is missing, thin or odd means no verdict: a request refused wrongly costs more than
// many that are let through in vain.
//
// @see docs/decisions/0005-early-rollback.md

import { THINNED_US, TRACES_MIN, type ForwardEdge, type KindStats } from './kind-stats.js';
import { effectiveMode, weakest, type Controls, type Mode } from './modes.js';
import { chainsOf, failed, type Chain, type Declined } from './outcome.js';
import { edgeName, stepName } from './sample.js';
import type { View } from './view.js';
import { wilsonLower } from './wilson.js';

export interface NamedStep {
  readonly service: string;
  readonly operation: string;
  /** Empty = in every kind. */
  readonly kinds: readonly string[];
  /** Final failures that doom; undefined = 1 + the most repeats seen. */
  readonly failures: number | undefined;
  readonly mode: Mode | undefined;
  /** Share of the requests to one callee, 0 to 1. */
  readonly budgetRatio: number;
  /** Where it stands in the file. */
  readonly line: number;
}

export interface Policy {
  readonly mode: Mode;
  readonly ttlMs: number;
  readonly learn: { readonly enabled: boolean; readonly budgetRatio: number; readonly budgetMin: number };
  readonly declined: Declined;
  readonly steps: readonly NamedStep[];
  /** `service OPERATION`: never refused. */
  readonly never: ReadonlySet<string>;
  /** `service OPERATION`: of an unsafe method, and yet nothing to undo. */
  readonly safe: ReadonlySet<string>;
  /** Scopes with a mode of their own; it never goes above `mode`. */
  readonly scopes: readonly { readonly scope: string; readonly mode: Mode }[];
}

/** The lower bound from which a learned step dooms. */
export const LOWER_BOUND = 0.9;

/** Share of traces with exactly one entry from which a kind is enforceable. */
export const SINGLE_RATIO_MIN = 0.99;

/** Share of the learned verdicts that are never acted on, in thousandths: those that keep teaching. */
export const HELD_OUT_PERMILLE = 50;

/** A failure older than this dooms nothing: the transaction is over, or nobody knows. */
export const FRESH_US = 10e6;

export interface Verdict {
  readonly reason: 'named' | 'learned';
  readonly chain: Chain;
  readonly mode: Mode;
  readonly heldOut: boolean;
  readonly forward: readonly ForwardEdge[];
  readonly budgetRatio: number;
  readonly budgetMin: number;
  /** `name=value`. */
  readonly evidence: readonly string[];
}

export type Decision =
  | { readonly verdict: Verdict }
  /** `why` is one of a few texts; `wanted`: something is not known yet and may come. */
  | { readonly verdict: undefined; readonly why: string; readonly wanted: boolean };

/**
 * @param view   what is known of the transaction; its times and `nowUs` are by one clock
 * @param stats  of its kind; undefined = never seen
 */
export function decide(
  policy: Policy,
  stats: KindStats | undefined,
  view: View,
  controls: Controls,
  nowUs: number,
): Decision {
  const chains = chainsOf(view, policy.declined).filter(chain => failed(chain) && chain.step.endUs >= nowUs - FRESH_US);
  if (chains.length === 0) return none('no fresh final failure');
  if (view.entries > 1) return none('more than one entry');
  if (view.state !== 'RUNNING') return none('ended');
  if (view.kind === '') return { verdict: undefined, why: 'kind not known', wanted: true };
  const unfit = unfitness(stats, view, nowUs);
  if (stats === undefined || unfit !== '') return none(unfit);
  let why = 'no step that dooms';
  for (const chain of chains) {
    const found = judge(policy, stats, view, chain, controls, nowUs);
    if (typeof found !== 'string') return { verdict: found };
    why = found;
  }
  return none(why);
}

/** Why nothing is decided about a kind; '' = it is enforceable. */
export function unfitness(stats: KindStats | undefined, view: { readonly thinned: boolean }, nowUs: number): string {
  if (stats === undefined || stats.traces < TRACES_MIN) return 'too few traces';
  if (stats.singleRatio < SINGLE_RATIO_MIN) return 'kind has several entries';
  if (view.thinned || (stats.thinnedUs !== 0 && stats.thinnedUs >= nowUs - THINNED_US)) return 'thinned';
  return '';
}

function judge(
  policy: Policy,
  stats: KindStats,
  view: View,
  chain: Chain,
  controls: Controls,
  nowUs: number,
): Verdict | string {
  const { step } = chain;
  const named = policy.steps.find(one => names(one, step, view.kind));
  const repeats = stats.repeats.most(edgeName(step), nowUs);
  const limit = named?.failures ?? 1 + repeats;
  if (chain.failures < limit) return 'it may be repeated';
  const { failures, fatal } = stats.evidence(stepName(step), nowUs);
  const bound = wilsonLower(fatal, failures);
  if (named === undefined && !policy.learn.enabled) return 'learning is off';
  if (named === undefined && bound < LOWER_BOUND) return 'below the bound';
  const place = { kind: view.kind, service: step.service, caller: step.caller };
  const own = named?.mode ?? policy.mode;
  const all = withScopes(policy, controls);
  const mode = effectiveMode(weakest(policy.mode, own), all, place, nowUs);
  if (mode === 'off') return 'off';
  const { learn } = policy;
  return {
    reason: named === undefined ? 'learned' : 'named',
    chain,
    mode,
    heldOut: named === undefined && isHeldOut(view.key),
    forward: stats.forward(stepName(step)).filter(({ edge }) => mayRefuse(edge, mode, policy, all, view.kind, nowUs)),
    budgetRatio: named?.budgetRatio ?? learn.budgetRatio,
    budgetMin: named === undefined ? learn.budgetMin : 0,
    evidence: [
      ...(named === undefined ? [] : [`policy_line=${named.line}`]),
      `failures=${chain.failures}`,
      `failures_limit=${limit}`,
      `seen=${failures}`,
      `fatal=${fatal}`,
      `lower_bound=${bound.toFixed(3)}`,
      `traces=${stats.traces}`,
      `single_entry_ratio=${stats.singleRatio.toFixed(3)}`,
      `mode=${mode}`,
    ],
  };
}

/** Controls with the scopes of the policy: overrides without an end. */
export function withScopes({ scopes }: Policy, { overrides, kills }: Controls): Controls {
  const scoped = scopes.map(({ scope, mode }) => ({ ...NO_OVERRIDE, scope, mode }));
  return { overrides: [...scoped, ...overrides], kills };
}

/** Whether an edge may be refused: nobody took it out, and nothing weaker holds where it leads or begins. */
export function mayRefuse(
  { service, operation, caller }: ForwardEdge['edge'],
  mode: Mode,
  { never }: Policy,
  controls: Controls,
  kind: string,
  nowUs: number,
): boolean {
  if (never.has(stepName({ service, operation }))) return false;
  return effectiveMode(mode, controls, { kind, service, caller }, nowUs) === mode;
}

export function names(named: NamedStep, step: { service: string; operation: string }, kind: string): boolean {
  if (named.service !== step.service || named.operation !== step.operation) return false;
  return named.kinds.length === 0 || named.kinds.includes(kind);
}

/** The same answer for a key everywhere and always, and independent of how keys are made. */
export function isHeldOut(key: string): boolean {
  let hash = 0x811c9dc5; // FNV-1a, 32 bits, then the finalizer of MurmurHash3
  for (let at = 0; at < key.length; at++) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) % 1000 < HELD_OUT_PERMILLE;
}

const NO_OVERRIDE = { untilUs: Number.POSITIVE_INFINITY, reason: '', actor: '' };

const none = (why: string): Decision => ({ verdict: undefined, why, wanted: false });
