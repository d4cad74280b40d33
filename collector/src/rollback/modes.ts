// How far rollback goes: modes, scopes, and the weakest of all that apply. Pure.

import { namespaceOf } from '../rpc/pages.js';

/** From weakest to strongest; numbers as in meshpulse.v1.RollbackMode. */
export const MODE = { off: 1, observe: 2, enforce: 3 } as const;

export type Mode = keyof typeof MODE;

export const MODES = Object.keys(MODE) as Mode[];

export const weakest = (...modes: readonly Mode[]): Mode =>
  modes.reduce((least, mode) => (MODE[mode] < MODE[least] ? mode : least), 'enforce');

export const modeName = (mode: Mode | undefined): string =>
  mode === undefined ? 'ROLLBACK_MODE_UNSPECIFIED' : `ROLLBACK_MODE_${mode.toUpperCase()}`;

export function modeOf(name: string): Mode | undefined {
  return MODES.find(mode => name === modeName(mode));
}

/** What a scope is compared with: a failed step in a kind. Services are `name.namespace`. */
export interface Place {
  readonly kind: string;
  /** Of the failed step, and its caller; '' = not known. */
  readonly service: string;
  readonly caller: string;
}

export interface Override {
  readonly scope: string;
  readonly mode: Mode;
  readonly untilUs: number;
  readonly reason: string;
  readonly actor: string;
}

export interface Kill {
  readonly scope: string;
  readonly sinceUs: number;
  readonly reason: string;
  readonly actor: string;
}

/** What people may write as a scope. */
export const SCOPE_GRAMMAR = '`mesh`, `namespace/NS`, `service/NAME` or `kind/KIND`';

const SCOPE = /^(?:mesh|(?:namespace|service)\/[^\s/]{1,200}|kind\/\S[^\n]{0,400})$/;

export const isScope = (text: string): boolean => SCOPE.test(text);

/** A service is in a scope by its own name and namespace; a kind also by the service that it enters. */
export function inScope(scope: string, { kind, service, caller }: Place): boolean {
  if (scope === 'mesh') return true;
  const [what, name] = [scope.slice(0, scope.indexOf('/')), scope.slice(scope.indexOf('/') + 1)];
  if (what === 'kind') return kind === name;
  const services = [service, caller, kind.split(' ')[0]!].filter(one => one !== '');
  return services.some(one => (what === 'service' ? one === name : namespaceOf(one) === name));
}

export interface Controls {
  readonly overrides: readonly Override[];
  readonly kills: readonly Kill[];
}

export const NO_CONTROLS: Controls = { overrides: [], kills: [] };

/** The mode that holds at a place; a kill beats everything, then the weakest counts. */
export function effectiveMode(policy: Mode, { overrides, kills }: Controls, place: Place, nowUs: number): Mode {
  if (kills.some(kill => inScope(kill.scope, place))) return 'off';
  const live = overrides.filter(one => one.untilUs > nowUs && inScope(one.scope, place));
  return weakest(policy, ...live.map(one => one.mode));
}
