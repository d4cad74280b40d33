// Times and durations as people write and read them. Pure.

import { wrongUse } from './errors.js';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** google.protobuf.Timestamp or Duration, for requests. */
export interface Seconds {
  readonly seconds: string;
  readonly nanos: number;
}

export function seconds(ms: number): Seconds {
  const whole = Math.floor(ms / 1000);
  return { seconds: String(whole), nanos: Math.round((ms - whole * 1000) * 1e6) };
}

/** `5m`, `90s`, `1h30m` -> ms. @throws CliError */
export function parseSpan(text: string, option: string): number {
  let ms = 0;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  for (const [, number, unit] of parts) ms += Number(number) * UNIT_MS[unit!]!;
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text || !Number.isFinite(ms)) {
    throw wrongUse(`${option} is "${text}", must be a duration like 500ms, 30s, 5m, 2h or 1d`);
  }
  return ms;
}

/** RFC 3339, or a duration that counts back from now -> ms since 1970. @throws CliError */
export function parseMoment(text: string, option: string, nowMs: number): number {
  if (/^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)$/.test(text)) {
    const ms = Date.parse(text);
    if (!Number.isNaN(ms)) return ms;
  } else if (/^\d+(\.\d+)?(ms|s|m|h|d)/.test(text)) return nowMs - parseSpan(text, option);
  throw wrongUse(`${option} is "${text}", must be a time like 2026-01-31T12:00:00Z, or like 5m for five minutes ago`);
}

/** As kubectl shows ages: `8s`, `5m30s`, `3h12m`, `26h`, `5d`. */
export function age(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const m = Math.floor(s / 60);
  const h = Math.floor(m / 60);
  const d = Math.floor(h / 24);
  if (s < 120) return `${s}s`;
  if (m < 10) return s % 60 === 0 ? `${m}m` : `${m}m${s % 60}s`;
  if (h < 3) return `${m}m`;
  if (h < 8) return m % 60 === 0 ? `${h}h` : `${h}h${m % 60}m`;
  return h < 48 ? `${h}h` : `${d}d`;
}

/** `0.8ms`, `12ms`, `1.2s`, then as ages. */
export function span(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)}ms`;
  if (ms < 1000) return `${Math.round(ms)}ms`;
  return ms < 120_000 ? `${(ms / 1000).toFixed(1)}s` : age(ms);
}

/** Time of a proto3 JSON timestamp, ms since 1970; undefined when it is not set. */
export const momentOf = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Date.parse(text);

/** Length of a proto3 JSON duration (`1.5s`), ms; undefined when it is not set. */
export const spanOf = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number(text.slice(0, -1)) * 1000;

/** With milliseconds, by UTC. */
export const rfc3339 = (text: string | undefined): string => (text === undefined ? '-' : new Date(text).toISOString());
